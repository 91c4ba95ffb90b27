"""`adlik bench`: how fast each variant is alone, and what the way through the gateway adds."""

from __future__ import annotations

import asyncio
import functools
import itertools
import tempfile
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from adlik import oip, render
from adlik.client import Client
from adlik.commands.options import Json, Name, Url, print_json, said
from adlik.errors import AdlikError
from adlik.plans import Plan
from adlik.records import ModelVersion, TensorSpec, Variant

SLICE_SECONDS = 0.5
SEED = 20
MAX_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One measured way of asking; latencies in milliseconds."""

    what: str
    concurrency: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    errors: int
    note: str = ""


@said
def bench(
    name: Name,
    concurrency: Annotated[str, typer.Option(help="Numbers of clients, with commas.")] = "1,8",
    seconds: Annotated[float, typer.Option(help="Per row.", min=0.1)] = 5.0,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Measures each variant in this process and the served one through the gateway."""
    try:
        clients = [int(part) for part in concurrency.split(",")]
    except ValueError as error:
        raise AdlikError("INVALID_REQUEST", f"'{concurrency}' is no list of numbers.") from error
    with Client(url) as client, tempfile.TemporaryDirectory() as directory:
        record = client.version(name)
        inputs = random_inputs(record.pushed.signature.inputs)
        asked = _with_picture(record.pushed.plan, inputs)
        ways: dict[str, Callable[[], Any]] = {}
        notes: dict[str, str] = {}
        for variant in record.variants:
            label = variant.compiled.variant
            try:
                run = load_variant(client, record, variant, Path(directory))
                ways[label] = functools.partial(run, inputs)
            except AdlikError as error:
                notes[label] = f"not run here: {error.message}"
        rows = [
            row
            for number in clients
            for row in _measure(client, name, asked, ways, number, seconds)
        ]
        rows += [Row(label, 0, 0, 0, 0, 0, 0, note) for label, note in notes.items()]
    if json_output:
        print_json(rows)
        return
    render.console().print(bench_table(rows))


def bench_table(rows: list[Row]) -> Any:
    """Returns the rows as a table."""
    numbers = ["clients", "p50", "p90", "p99", "per second", "errors"]
    made = render.table("way", *numbers, "", right=numbers)
    for row in rows:
        if row.note:
            made.add_row(row.what, "", "", "", "", "", "", row.note)
            continue
        times = (f"{value:.3f} ms" for value in (row.p50_ms, row.p90_ms, row.p99_ms))
        made.add_row(
            row.what, str(row.concurrency), *times, f"{row.per_second:.0f}", str(row.errors), ""
        )
    return made


def random_inputs(specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """Returns one random sample of every input; unknown sizes are 1."""
    rng = np.random.default_rng(SEED)
    inputs = {}
    for spec in specs:
        shape = [size if size > 0 else 1 for size in spec.shape]
        dtype = oip.numpy_type(spec.datatype)
        if dtype is None:
            raise AdlikError("INVALID_TENSOR", f"'{spec.name}' takes text: it can't be measured.")
        if np.issubdtype(dtype, np.floating):
            inputs[spec.name] = rng.standard_normal(shape).astype(dtype)
        else:
            inputs[spec.name] = rng.integers(0, 2, shape).astype(dtype)
    return inputs


def _with_picture(plan: Plan, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what the gateway is asked: a picture where the plan has a pipeline."""
    if plan.pipeline is None:
        return inputs
    name = plan.pipeline.image.input or next(iter(inputs))
    rows, columns = inputs[name].shape[2:]
    picture = np.random.default_rng(SEED).integers(0, 256, (rows, columns, 3), np.uint8)
    return {**inputs, name: picture}


def load_variant(
    client: Client, record: ModelVersion, variant: Variant, folder: Path
) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Downloads a variant and loads it with an installed engine; raises `AdlikError`."""
    compiled = variant.compiled
    engine = _engine(compiled.engine)
    if reason := engine.unavailable():
        raise AdlikError("UNAVAILABLE", reason)
    path = folder / compiled.variant
    client.download(record.pushed.name, record.pushed.version, compiled.variant, path)
    if compiled.artifact.media_type == "application/zip":
        unpacked = folder / f"{compiled.variant}.d"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
        path = unpacked
    loaded = engine.load(path, precision=compiled.precision)
    run: Callable[[Mapping[str, np.ndarray]], Any] = loaded.run
    return run


def _engine(name: str) -> Any:
    for point in entry_points(group="adlik.engines", name=name):
        try:
            return point.load()
        except ImportError as error:
            raise AdlikError("UNAVAILABLE", f"the engine '{name}' is not installed") from error
    raise AdlikError("UNAVAILABLE", f"the engine '{name}' is not installed")


def _measure(
    client: Client,
    name: str,
    inputs: dict[str, np.ndarray],
    ways: Mapping[str, Callable[[], Any]],
    clients: int,
    seconds: float,
) -> Iterator[Row]:
    """Yields a row per way, measured in turns so that a noisy moment hits all alike."""
    through = "gateway, HTTP binary"
    times: dict[str, list[float]] = {label: [] for label in (*ways, through)}
    spent = dict.fromkeys(times, 0.0)
    errors = dict.fromkeys(times, 0)
    for _ in itertools.repeat(None, MAX_ROUNDS):
        if min(spent.values()) >= seconds:
            break
        part = min(SLICE_SECONDS, seconds)
        for label in times:
            if label == through:
                found, failed, took = asyncio.run(
                    _over_http(client.url, name, inputs, clients, part)
                )
            else:
                found, failed, took = _in_process(ways[label], clients, part)
            times[label] += found
            errors[label] += failed
            spent[label] += took
    for label, found in times.items():
        way = f"{label}, in process" if label in ways else label
        p50, p90, p99 = np.percentile(np.array(found or [0.0]) * 1e3, [50, 90, 99])
        yield Row(way, clients, p50, p90, p99, len(found) / spent[label], errors[label])


def _in_process(
    run: Callable[[], Any], clients: int, seconds: float
) -> tuple[list[float], int, float]:
    run()
    end = time.perf_counter() + seconds

    def loop() -> list[float]:
        found = []
        while (start := time.perf_counter()) < end:
            run()
            found.append(time.perf_counter() - start)
        return found

    started = time.perf_counter()
    # An engine takes one call at a time; several clients wait for each other as in serving.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(loop).result()
    waited = [value * clients for value in found]
    return waited, 0, time.perf_counter() - started


async def _over_http(
    url: str, name: str, inputs: dict[str, np.ndarray], clients: int, seconds: float
) -> tuple[list[float], int, float]:
    body, json_length = oip.encode(inputs)
    headers = {oip.JSON_LENGTH_HEADER: str(json_length)}
    found: list[float] = []
    errors = 0
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as http:

        async def ask() -> bool:
            response = await http.post(f"/v2/models/{name}/infer", content=body, headers=headers)
            return response.is_success

        await asyncio.gather(*(_tolerant(ask) for _ in range(clients)))
        end = time.perf_counter() + seconds

        async def loop() -> None:
            nonlocal errors
            while (start := time.perf_counter()) < end:
                if await _tolerant(ask):
                    found.append(time.perf_counter() - start)
                else:
                    errors += 1

        started = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(clients)))
        return found, errors, time.perf_counter() - started


async def _tolerant(ask: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await ask()
    except httpx.HTTPError:
        return False

"""Compares ways to carry one inference from gateway to serving: the link, gRPC and NATS.

Every way carries the same ModelInferRequest (one tensor) to another process, which touches each of
its pages and answers with a ModelInferResponse of 1000 floats. Ways take turns in short slices, so
that a disturbance of the machine hits all of them.

    python benchmarks/link.py [--seconds 1.5] [--sizes 1024,614400,4816896]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
import nats
import numpy as np
import uvloop
from adlik_common.link import LinkClient, LinkServer
from adlik_proto.inference import open_inference_pb2 as pb

CONCURRENCY = (1, 8)
SLICE_SECONDS = 0.25
WARM_UP_CALLS = 20
ANSWER = np.random.default_rng(0).random(1000, np.float32).tobytes()
GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]

Call = Callable[[], Awaitable[int]]


def request_message(size: int) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", id="1")
    message.inputs.add(name="x", datatype="UINT8", shape=[1, size])
    message.raw_input_contents.append(np.zeros(size, np.uint8).tobytes())
    return message


def response_message() -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="1", id="1")
    message.outputs.add(name="y", datatype="FP32", shape=[1, 1000])
    message.raw_output_contents.append(ANSWER)
    return message


RESPONSE = response_message().SerializeToString()


def touch(data: bytes | bytearray | memoryview) -> int:
    """Reads a byte of every page, as an engine would at least."""
    return int(np.frombuffer(data, np.uint8)[::4096].sum())


# ------------------------------------------------------------------------------------- servers


async def serve_link(address: str) -> None:
    def answer(request) -> None:
        touch(request.body)
        request.respond(b"", RESPONSE)

    await LinkServer(answer).start(address)


async def serve_grpc(address: str) -> None:
    async def raw(request, _context):
        touch(request)
        return RESPONSE

    async def parsed(request, _context):
        touch(request.raw_input_contents[0])
        return response_message()

    server = grpc.aio.server(options=GRPC_OPTIONS)
    handlers = {
        "Raw": grpc.unary_unary_rpc_method_handler(raw),
        "Parsed": grpc.unary_unary_rpc_method_handler(
            parsed, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("benchmark", handlers)])
    server.add_insecure_port(address)
    await server.start()
    # Not collected while the process lives.
    asyncio.get_running_loop().server = server


async def serve_nats(address: str) -> None:
    client = await nats.connect(address, pending_size=256 << 20)

    async def answer(message) -> None:
        touch(message.data)
        await message.respond(RESPONSE)

    await client.subscribe("infer", cb=answer, pending_bytes_limit=1 << 30)
    await client.flush()


SERVERS = {"link": serve_link, "grpc": serve_grpc, "nats": serve_nats}


async def serve(kind: str, address: str) -> None:
    await SERVERS[kind](address)
    print("READY", flush=True)
    await asyncio.Event().wait()


# ------------------------------------------------------------------------------------- clients


@asynccontextmanager
async def over_link(address: str, size: int) -> AsyncIterator[Call]:
    client, body = LinkClient(address), request_message(size).SerializeToString()

    async def call() -> int:
        return len((await client.request(b"", body)).body)

    yield call
    await client.close()


@asynccontextmanager
async def over_grpc_raw(address: str, size: int) -> AsyncIterator[Call]:
    body = request_message(size).SerializeToString()
    async with grpc.aio.insecure_channel(address, options=GRPC_OPTIONS) as channel:
        method = channel.unary_unary("/benchmark/Raw")

        async def call() -> int:
            return len(await method(body))

        yield call


@asynccontextmanager
async def over_grpc_parsed(address: str, size: int) -> AsyncIterator[Call]:
    async with grpc.aio.insecure_channel(address, options=GRPC_OPTIONS) as channel:
        method = channel.unary_unary(
            "/benchmark/Parsed",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        message = request_message(size)

        async def call() -> int:
            # A gateway that parses has a new message for each request.
            copy = pb.ModelInferRequest()
            copy.CopyFrom(message)
            return len((await method(copy)).raw_output_contents[0])

        yield call


@asynccontextmanager
async def over_nats(address: str, size: int) -> AsyncIterator[Call]:
    client = await nats.connect(address, pending_size=256 << 20)
    body = request_message(size).SerializeToString()

    async def call() -> int:
        return len((await client.request("infer", body, timeout=30)).data)

    yield call
    await client.close()


# ---------------------------------------------------------------------------------- measurement


@contextlib.contextmanager
def running(*command: str, ready: bool):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if ready:
            process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


async def slice_of(call: Call, concurrency: int) -> tuple[list[float], float]:
    """Calls for a slice of time; returns the latencies and the slice's length, in seconds."""
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + SLICE_SECONDS

    async def client() -> None:
        while (before := time.perf_counter()) < end:
            await call()
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return latencies, time.perf_counter() - started


async def measure(ways: dict[str, tuple], size: int, seconds: float) -> None:
    async with contextlib.AsyncExitStack() as stack:
        calls = {
            name: await stack.enter_async_context(way(address, size))
            for name, (way, address) in ways.items()
        }
        for call in calls.values():
            for _ in range(WARM_UP_CALLS):
                await call()
        for concurrency in CONCURRENCY:
            latencies: dict[str, list[float]] = {name: [] for name in calls}
            rates: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(max(1, round(seconds / SLICE_SECONDS))):
                for name, call in calls.items():
                    found, length = await slice_of(call, concurrency)
                    latencies[name] += found
                    rates[name].append(len(found) / length)
            for name in calls:
                p50, p99 = np.percentile(latencies[name], [50, 99]) * 1e3
                rate = statistics.median(rates[name])
                print(
                    f"| {size:>8} | {concurrency} | {name:<26} | {p50:7.3f} | {p99:7.3f} |"
                    f" {rate:7.0f} |",
                    flush=True,
                )


async def main(sizes: list[int], seconds: float, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        configuration = folder / "nats.conf"
        configuration.write_text(
            "host: 127.0.0.1\nport: -1\nmax_payload: 8MB\nmax_pending: 256MB\n"
            f'ports_file_dir: "{folder}"\n'
        )
        binary = Path(sys.executable).with_name("nats-server")
        stack.enter_context(running(str(binary), "-c", str(configuration), ready=False))
        while not (ports := list(folder.glob("*.ports"))):
            await asyncio.sleep(0.02)
        nats_url = ports[0].read_text().split('"')[3]
        ways = {
            "link, Unix socket": (over_link, "link", f"unix://{folder}/link.sock"),
            "link, TCP": (over_link, "link", "tcp://127.0.0.1:15051"),
            "grpc.aio, bytes, Unix": (over_grpc_raw, "grpc", f"unix:{folder}/grpc.sock"),
            "grpc.aio, message, Unix": (over_grpc_parsed, "grpc", f"unix:{folder}/grpc.sock"),
            "grpc.aio, bytes, TCP": (over_grpc_raw, "grpc", "127.0.0.1:15052"),
            "NATS core": (over_nats, "nats", nats_url),
        }
        for kind, address in dict.fromkeys((kind, address) for _, kind, address in ways.values()):
            stack.enter_context(
                running(sys.executable, __file__, "--serve", kind, address, ready=True)
            )
        print(f"\n{machine()}\n\n| bytes | clients | way | p50 ms | p99 ms | requests/s |")
        print("|---|---|---|---|---|---|")
        for size in sizes:
            await measure(
                {name: (way, address) for name, (way, _, address) in ways.items()}, size, seconds
            )


def machine() -> str:
    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    cores = len({*Path("/sys/devices/system/cpu").glob("cpu[0-9]*")})
    return (
        f"{', '.join(names)}, {cores} cores, Python {platform.python_version()}, "
        f"uvloop {version('uvloop')}, grpcio {version('grpcio')}, nats-py {version('nats-py')}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1024,614400,4816896", help="tensor bytes")
    parser.add_argument("--seconds", type=float, default=1.5, help="per way, size and concurrency")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "ADDRESS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(*arguments.serve))
    else:
        with tempfile.TemporaryDirectory() as name:
            sizes = [int(size) for size in arguments.sizes.split(",")]
            uvloop.run(main(sizes, arguments.seconds, Path(name)))

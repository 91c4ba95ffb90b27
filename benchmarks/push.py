"""Pushes the same models to a mesh of this checkout and to one of another commit, in turns.

Both meshes run on this machine at once and rest while the other works. The other commit's files are
taken out of git into a temporary folder and run in this environment, its members first on
PYTHONPATH. Every round pushes new bytes, so that nothing comes from a cache.

    python -m benchmarks.push [--against COMMIT] [--rounds N] [--only SUBJECT] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from adlik import AdlikError, Client

from benchmarks import machine
from benchmarks.subjects import Subject, make_mlp, make_mobilenet, make_tokens

BEFORE_PROOF = "e6c6ffd"
"""The commit before the proof of issue 7: what a push may not become slower than."""
ROOT = Path(__file__).parent.parent
ROUNDS = 3
VERIFY = "compiler.verify"
ASK_SECONDS = 0.05
ANSWER_SECONDS = 120.0
SETTLED_SECONDS = 600.0
QUIET_SECONDS = 6.0
NEW, OLD = "new", "old"
# Idle compilers would tune what was pushed before.
SETTINGS = {"ADLIK_IDLE_SECONDS": "0"}


@dataclass(frozen=True, slots=True)
class Case:
    """A model to push, with samples or without, and under which name."""

    name: str
    subject: Subject
    samples: Path | None


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh: which code it runs, where that lies, and a client of it."""

    label: str
    root: Path
    client: Client


@dataclass(frozen=True, slots=True)
class Push:
    """What one push took, in seconds, and what became of it.

    Attributes:
        case: The model, as it is called.
        label: Which code it was pushed to.
        first_answer: From the push until the model answered.
        settled: From the push until nothing more happened to the version.
        first_verified: Verification of the first variant, from its trace.
        verifying: All verifications together: the time in which at least one was under way.
        variants: How many variants were verified.
        released: The variant that is served in the end.
    """

    case: str
    label: str
    first_answer: float
    settled: float
    first_verified: float
    verifying: float
    variants: int
    released: str


MEASURES: dict[str, Callable[[Push], float]] = {
    "push → first answer": lambda push: push.first_answer,
    "push → settled": lambda push: push.settled,
    "first verification": lambda push: push.first_verified,
    "all verifications": lambda push: push.verifying,
}


# ----------------------------------------------------------------------------- the other commit


def unpack(commit: str, folder: Path) -> Path:
    """Writes a commit's files into a folder and generates its messages; returns the folder."""
    folder.mkdir()
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    generator = [sys.executable, str(folder / "proto" / "generate.py")]
    subprocess.run(generator, check=True, capture_output=True)
    return folder


def members(root: Path) -> list[Path]:
    """Returns the folders that a checkout's packages are imported from."""
    found = [path.parent for kind in ("libs", "services") for path in root.glob(f"{kind}/*/*.toml")]
    return [root / "proto", *sorted(found)]


def check_imported(mesh: Mesh) -> None:
    """Ends the run unless a mesh's processes have imported the code they are to be measured of.

    Python leaves byte code beside every module that it imports: what the compiler's children do is
    the last that is imported in a push.
    """
    for module in ("gateway/adlik_gateway/settings", "compiler/adlik_compiler/verify"):
        path = mesh.root / "services" / module
        if not list((path.parent / "__pycache__").glob(f"{path.name}.*.pyc")):
            raise SystemExit(f"The {mesh.label} mesh has not imported {path}.py.")


@contextmanager
def started(label: str, root: Path, data_dir: Path) -> Iterator[Mesh]:
    """Runs a mesh of a checkout's code."""
    path = os.pathsep.join(map(str, members(root)))
    environment = {**os.environ, **SETTINGS, "PYTHONPATH": path}  # noqa: TID251 - for a program
    environment.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # as users have it; `check_imported` looks for it
    command = [sys.executable, "-P", "-m", "adlik", "up", "--data-dir", str(data_dir)]
    data_dir.mkdir()
    with (data_dir / "launcher.log").open("wb") as log:
        launcher = subprocess.Popen(
            [*command, "--http-port", "0", "--grpc-port", "0", "--json"],
            env=environment,
            cwd=data_dir,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert launcher.stdout is not None
        line = launcher.stdout.readline()
        if not line:
            raise SystemExit((data_dir / "launcher.log").read_text())
        with Client(json.loads(line)["http"]) as client:
            yield Mesh(label, root, client)
    finally:
        launcher.terminate()
        launcher.wait()


# ---------------------------------------------------------------------------------- measurement


def push(mesh: Mesh, case: Case, model: Path) -> Push:
    """Pushes a model, waits until nothing more happens to it, and deletes it."""
    client, started_at = mesh.client, time.monotonic()
    client.push(case.name, model, samples=case.samples)
    _eventually(lambda: bool(client.infer(case.name, case.subject.inputs)), ANSWER_SECONDS)
    first_answer = time.monotonic() - started_at
    _eventually(lambda: client.version(case.name).settled, SETTLED_SECONDS)
    settled = time.monotonic() - started_at
    found, variants = client.model(case.name), client.version(case.name).variants
    verified = _verifications(client, case.name, len(variants))
    client.delete(case.name)
    return Push(
        case=case.name,
        label=mesh.label,
        first_answer=first_answer,
        settled=settled,
        first_verified=verified[0][1] - verified[0][0],
        verifying=_covered(verified),
        variants=len(verified),
        released=found.release.compiled.variant if found.release else "nothing",
    )


def _eventually(happens: Callable[[], bool], seconds: float) -> None:
    """Asks until something has happened; errors until then mean that it has not."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            if happens():
                return
        except AdlikError as error:
            if time.monotonic() > give_up:
                raise SystemExit(f"waited {seconds:g} s in vain: {error}") from error
        if time.monotonic() > give_up:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(ASK_SECONDS)


def _verifications(client: Client, name: str, wanted: int) -> list[tuple[float, float]]:
    """Returns when each verification began and ended, in seconds, the earliest first."""
    found: list[tuple[float, float]] = []

    def complete() -> bool:
        spans = [span for span in client.trace(model=name).spans if span.name == VERIFY]
        found[:] = sorted((s.start_unix_nano / 1e9, s.end_unix_nano / 1e9) for s in spans)
        return len(found) >= wanted

    _eventually(complete, ANSWER_SECONDS)
    return found


def _covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Returns the time in which at least one was under way: they wait for each other."""
    total, until = 0.0, 0.0
    for start, end in intervals:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def fresh(model: Path, folder: Path, number: int) -> Path:
    """Writes the same model with other bytes, so that nothing of it is known."""
    proto = onnx.load(model)
    proto.doc_string = f"round {number}"
    path = folder / f"{model.stem}-{number}.onnx"
    onnx.save(proto, path)
    return path


def warm_up(meshes: Sequence[Mesh], folder: Path) -> None:
    """Pushes a small model to each mesh, which imports everything, and checks what it was."""
    mlp = make_mlp(folder)
    for mesh in meshes:
        push(mesh, Case("warm-up", mlp, None), fresh(mlp.path, folder, 0))
        check_imported(mesh)


def measure(meshes: Sequence[Mesh], cases: Sequence[Case], rounds: int, folder: Path) -> list[Push]:
    """Pushes each case to each mesh, in turns."""
    pushes = []
    for number in range(1, rounds + 1):
        for case in cases:
            model = fresh(case.subject.path, folder, number)
            # Who comes first changes: the first finds the files of the model in no cache.
            for mesh in meshes if number % 2 else reversed(meshes):
                machine.wait_quiet(QUIET_SECONDS)
                found = push(mesh, case, model)
                pushes.append(found)
                print(
                    f"round {number}, {case.name}, {mesh.label}: {found.first_answer:.2f} s to the "
                    f"first answer, {found.settled:.2f} s in all, {found.variants} variants, "
                    f"released {found.released}",
                    flush=True,
                )
    return pushes


# --------------------------------------------------------------------------------------- report


def table(pushes: Sequence[Push]) -> str:
    """Returns medians, and medians of the ratios of pushes of the same round, as Markdown."""
    lines = [
        "| model | time | old s | new s | new / old |",
        "|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(push.case for push in pushes):
        for measure_name, of in MEASURES.items():
            old, new = (
                [of(push) for push in pushes if (push.case, push.label) == (case, label)]
                for label in (OLD, NEW)
            )
            ratio = statistics.median(n / o for n, o in zip(new, old, strict=True))
            cells = f"{statistics.median(old):.2f} | {statistics.median(new):.2f} | {ratio:.2f}"
            lines.append(f"| {case} | {measure_name} | {cells} |")
    return "\n".join(lines)


def cases_of(folder: Path, only: str) -> list[Case]:
    """Returns what is pushed: small, real, of open sizes, with samples and without."""
    mlp = make_mlp(folder)
    cases = [Case("mlp", mlp, None), Case("mlp-samples", mlp, mlp.samples)]
    tokens = make_tokens(folder)
    cases.append(Case("tokens", tokens, None))
    if only in ("", "mobilenet"):
        mobilenet = make_mobilenet(folder)
        cases.append(Case("mobilenet", mobilenet, mobilenet.samples))
    return [case for case in cases if only in ("", case.name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", default=BEFORE_PROOF, help="commit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pushes of each (default 3)")
    parser.add_argument("--only", default="", help="mlp, mlp-samples, tokens or mobilenet")
    parser.add_argument("--json", type=Path, help="also write every push to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adlik-bench-push-") as name, ExitStack() as stack:
        folder = Path(name)
        cases = cases_of(folder, arguments.only)
        if not cases:
            parser.error(f"there is no model '{arguments.only}'")
        roots = {OLD: unpack(arguments.against, folder / OLD), NEW: ROOT}
        meshes = [
            stack.enter_context(started(label, root, folder / f"{label}-mesh"))
            for label, root in roots.items()
        ]
        line = machine.describe("onnxruntime", "openvino")
        print(f"{line}\nagainst {arguments.against}, {arguments.rounds} rounds\n", flush=True)
        warm_up(meshes, folder)
        pushes = measure(meshes, cases, arguments.rounds, folder)
        print(f"\n{table(pushes)}")
    if arguments.json:
        content = {"machine": line, "pushes": [asdict(push) for push in pushes]}
        arguments.json.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()

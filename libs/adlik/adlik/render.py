"""Tables and waterfalls for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adlik.records import (
    Fidelity,
    Jobs,
    Model,
    ModelVersion,
    Replica,
    Span,
    Trace,
    Variant,
    VariantState,
)

WATERFALL_WIDTH = 40
_COLOURS = {
    VariantState.RELEASED: "bold green",
    VariantState.REJECTED: "red",
    VariantState.FAILED: "red",
}


def console() -> Console:
    """Returns the terminal's console; lines are as wide as it, or 140 where there is none.

    Brackets are shown as they are: engines and shapes speak in them.
    """
    made = Console(highlight=False, markup=False)
    return made if made.is_terminal else Console(width=140, highlight=False, markup=False)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Returns an empty table in the house's style; columns named in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    return made


def models_table(models: Iterable[Model]) -> Table:
    """Returns a row per model."""
    made = table("model", "version", "served", "speed-up", "replicas", right=["speed-up"])
    for model in models:
        newest = str(model.versions[0].pushed.version) if model.versions else "-"
        release = model.release
        served = (
            f"v{release.pushed.version} {release.compiled.variant}" if release else "nothing yet"
        )
        speedup = f"{release.speedup:.2f}x" if release else ""
        made.add_row(model.name, newest, served, speedup, str(len(model.ready_replicas)))
    return made


def variants_table(record: ModelVersion) -> Table:
    """Returns a row per variant and per failure of a version."""
    made = table(
        "variant", "format", "precision", "size", "p50", "speed-up", "fidelity",
        "released, or why not",
        right=["size", "p50", "speed-up"],
    )  # fmt: skip
    for variant in sorted(record.variants, key=_speed, reverse=True):
        check = variant.verification
        made.add_row(
            variant.compiled.variant,
            variant.compiled.format,
            variant.compiled.precision,
            size(variant.compiled.artifact.size_bytes),
            f"{check.latency.p50_ms:.3g} ms" if check else "",
            f"{check.speedup:.2f}x" if check else "",
            fidelity(check.fidelity) if check else "",
            variant.note,
            style=_COLOURS.get(variant.state, ""),
        )
    for failure in record.failures:
        what = failure.subject or failure.stage
        said = f"{failure.error.code}: {failure.error.message} {failure.error.cure}"
        made.add_row(what, "-", "-", "", "", "", "", f"not made: {said}", style="yellow")
    return made


def not_run_table(replicas: Iterable[Replica]) -> Table:
    """Returns a row per engine, target or recipe that can't be used here, with the reason."""
    made = table("not run here", "reason")
    reasons = {
        name: reason
        for replica in replicas
        for name, reason in {**replica.engines, **replica.capabilities}.items()
        if reason
    }
    for name, reason in sorted(reasons.items()):
        made.add_row(name, reason)
    return made


def status_tables(replicas: Iterable[Replica], jobs: Jobs) -> list[Table]:
    """Returns the running processes, the queues, and what was given up."""
    running = table("service", "id", "host", "pid", "state", "loaded")
    for replica in replicas:
        loaded = ", ".join(f"{m.name} v{m.version} {m.variant}" for m in replica.loaded)
        failed = ", ".join(f"{name}: {error.code}" for name, error in replica.failed.items())
        state = "draining" if replica.draining else "ready"
        held = "; ".join(filter(None, [loaded, failed]))
        running.add_row(replica.service, replica.id, replica.host, str(replica.pid), state, held)
    queues = table("queue", "waiting", "running", "tried again", right=["waiting", "running"])
    for queue in jobs.consumers:
        counts = (queue.waiting, queue.running, queue.redelivered)
        queues.add_row(queue.name, *map(str, counts))
    dead = table("given up", "event", "model", "why")
    for letter in jobs.dead_letters:
        model = f"{letter.model} v{letter.version}"
        why = f"{letter.error.code}: {letter.error.message}"
        dead.add_row(letter.consumer, letter.event, model, why)
    return [running, queues, *([dead] if jobs.dead_letters else [])]


def waterfall(trace: Trace) -> Table:
    """Returns a trace as bars over time, indented by parent."""
    made = table("service", "span", "start", "time", "", right=["start", "time"])
    if not trace.spans:
        return made
    begin = min(span.start_unix_nano for span in trace.spans)
    end = max(span.end_unix_nano for span in trace.spans)
    scale = WATERFALL_WIDTH / max(end - begin, 1)
    for depth, span in _in_order(trace.spans):
        left = int((span.start_unix_nano - begin) * scale)
        width = max(1, round((span.end_unix_nano - span.start_unix_nano) * scale))
        bar = Text(" " * left + "█" * min(width, WATERFALL_WIDTH - left or 1))
        bar.stylize("red" if span.error else "cyan")
        made.add_row(
            span.service,
            "  " * depth + _label(span),
            milliseconds(span.start_unix_nano - begin),
            milliseconds(span.end_unix_nano - span.start_unix_nano),
            bar,
            style="red" if span.error else "",
        )
    return made


def size(size_bytes: int) -> str:
    """Returns a number of bytes for people."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def milliseconds(nanoseconds: int) -> str:
    """Returns a time for people."""
    return f"{nanoseconds / 1e6:,.1f} ms" if nanoseconds < 1e9 else f"{nanoseconds / 1e9:,.2f} s"


def fidelity(found: Fidelity) -> str:
    """Returns how near a variant is to the pushed model, for people."""
    if not found.outputs:
        return ""
    if not found.max_abs_error and found.r2 == 1:
        return "the same numbers"
    if found.noise_used:
        return f"within float noise ({found.noise_used:.0%} of it)"
    kept = f"R² {found.r2:.4f}"
    if found.expected_accuracy is not None:
        kept += f", expected accuracy {found.expected_accuracy:.1%}"
    return kept


def _label(span: Span) -> str:
    details = [
        span.attributes[key]
        for key in ("adlik.recipe", "adlik.pass", "adlik.target", "adlik.variant", "adlik.event")
        if key in span.attributes
    ]
    return f"{span.name} {' '.join(details)}".rstrip() + (f" ! {span.error}" if span.error else "")


def _in_order(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Returns spans with their depth, each followed by its children, by start time."""
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_span_id if span.parent_span_id in known else ""].append(span)
    ordered: list[tuple[int, Span]] = []
    stack = [(0, span) for span in reversed(children[""])]
    while stack:
        depth, span = stack.pop()
        ordered.append((depth, span))
        stack += [(depth + 1, child) for child in reversed(children[span.span_id])]
    return ordered


def _speed(variant: Variant) -> float:
    return variant.verification.speedup if variant.verification else 0.0

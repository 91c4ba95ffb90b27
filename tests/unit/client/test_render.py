"""Tables and waterfalls, as a terminal would show them."""

import io

import pytest
from adlik import render
from adlik.records import (
    ArtifactRef,
    CompiledModel,
    Consumer,
    DeadLetter,
    Error,
    Failure,
    Fidelity,
    Jobs,
    Latency,
    LoadedModel,
    Model,
    ModelVersion,
    OutputFidelity,
    PushedModel,
    Release,
    Replica,
    Span,
    Trace,
    Variant,
    VariantState,
    Verification,
)
from hypothesis import given
from hypothesis import strategies as st


def shown(*tables):
    console = render.console()
    console.file, console.width = io.StringIO(), 200
    for table in tables:
        console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def span(span_id, parent="", start=0, end=10, **fields):
    return Span(span_id, parent, f"span-{span_id}", "gateway", start, end, **fields)


def compiled(variant, size=2_500_000):
    return CompiledModel(variant=variant, format="onnx", artifact=ArtifactRef("", size))


def checked(speedup, agreement=None):
    output = OutputFidelity(name="y", r2=0.99987)
    fidelity = Fidelity(r2=0.99987, expected_accuracy=agreement, outputs=(output,))
    return Verification(speedup=speedup, latency=Latency(p50_ms=1.234), fidelity=fidelity)


def test_a_waterfall_puts_children_below_and_right_of_their_parents():
    spans = (span("b", "a"), span("d"), span("a"), span("c", "b"), span("e", "a"))
    names = [
        line[8:].split("  0.0 ms")[0].rstrip()
        for line in shown(render.waterfall(Trace("t", spans)))
    ]
    assert names[1:] == [
        " span-d", " span-a", "   span-b", "     span-c", "   span-e",
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(-1, 9), st.integers(0, 99), st.integers(0, 99)),
        max_size=10,
        unique_by=lambda drawn: drawn[0],
    )
)
def test_every_span_has_one_row_however_they_hang_together(drawn):
    spans = tuple(
        span(str(i), str(parent), start, start + length)
        for i, parent, start, length in drawn
        if parent < i  # a parent starts before its children are given ids
    )
    rows = shown(render.waterfall(Trace("t", spans)))[1:]
    assert sorted(row.split()[1] for row in rows) == sorted(s.name for s in spans)


def test_bars_lie_where_and_are_as_long_as_their_spans():
    spans = (span("a", end=1000), span("b", "a", 500, 750), span("c", "a", 1000, 1000))
    bars = [row.count("█") for row in shown(render.waterfall(Trace("t", spans)))[1:]]
    assert bars == [render.WATERFALL_WIDTH, render.WATERFALL_WIDTH // 4, 1]
    rows = shown(render.waterfall(Trace("t", spans)))[1:]
    assert rows[1].index("█") - rows[0].index("█") == render.WATERFALL_WIDTH // 2


def test_an_error_and_what_a_span_is_about_are_said():
    spans = (span("a", error="It broke.", attributes={"adlik.recipe": "int8", "x": "y"}),)
    (row,) = shown(render.waterfall(Trace("t", spans)))[1:]
    assert "span-a int8 ! It broke." in row
    assert " y " not in row


def test_an_empty_trace_is_an_empty_table():
    assert len(shown(render.waterfall(Trace()))) == 1


def test_variants_are_listed_fastest_first_with_what_was_not_made():
    record = ModelVersion(
        variants=(
            Variant(compiled("slow"), checked(1.0, 0.5), VariantState.VERIFIED, "passed"),
            Variant(compiled("new", 900), None, VariantState.COMPILED, "waits for verification"),
            Variant(compiled("fast"), checked(2.5), VariantState.RELEASED, "released: best"),
        ),
        failures=(Failure("compiler", "int8", Error("ENGINE_FAILED", "No.", "Mend it.")),),
    )
    head, *rows = shown(render.variants_table(record))
    assert [row.split()[0] for row in rows] == ["fast", "slow", "new", "int8"]
    assert "2.5 MB" in rows[0]
    assert "1.23 ms" in rows[0]
    assert "2.50x" in rows[0]
    assert "released: best" in rows[0]
    assert "R² 0.9999, expected accuracy 50.0%" in rows[1]
    assert "0.9 kB" in rows[2]
    assert "waits for verification" in rows[2]
    assert "not made: ENGINE_FAILED: No. Mend it." in rows[3]
    assert "released, or why not" in head


def test_models_show_what_is_served():
    release = Release(PushedModel("a", 2), compiled("clean.onnxruntime-fp32"), speedup=1.5)
    versions = (ModelVersion(PushedModel("a", 3)),)
    models = [Model("a", versions, release, ("r1", "r2")), Model("b", versions), Model("c")]
    _, *rows = shown(render.models_table(models))
    assert rows[0].split() == ["a", "3", "v2", "clean.onnxruntime-fp32", "1.50x", "2"]
    assert rows[1].split() == ["b", "3", "nothing", "yet", "0"]
    assert rows[2].split()[:2] == ["c", "-"]


def test_status_shows_processes_queues_and_dead_letters():
    replicas = [
        Replica("r1", "serving", "host", 7, loaded=(LoadedModel("m", 2, "v"),)),
        Replica("r2", "serving", "host", 8, draining=True, failed={"n": Error("NOT_FOUND")}),
    ]
    jobs = Jobs((Consumer("compiler", 3, 1, 2),))
    lines = "\n".join(shown(*render.status_tables(replicas, jobs)))
    assert "ready" in lines
    assert "m v2 v" in lines
    assert "draining" in lines
    assert "n: NOT_FOUND" in lines
    assert "given up" not in lines
    letter = DeadLetter("compiler", "ModelPushed", "m", 1, Error("ENGINE_FAILED", "No."))
    lines = "\n".join(shown(*render.status_tables([], Jobs(dead_letters=(letter,)))))
    assert "m v1" in lines
    assert "ENGINE_FAILED: No." in lines


def test_what_cannot_run_here_is_listed_once_with_its_reason():
    replicas = [
        Replica(engines={"tensorrt": "No GPU here.", "onnxruntime": ""}),
        Replica(capabilities={"tensorrt-fp16": "No GPU here.", "clean": ""}),
        Replica(engines={"tensorrt": "No GPU here."}),
    ]
    _, *rows = shown(render.not_run_table(replicas))
    assert [row.split()[0] for row in rows] == ["tensorrt", "tensorrt-fp16"]


@pytest.mark.parametrize(
    ("shown_as", "said"),
    [
        (render.size(99), "0.1 kB"),
        (render.size(2_500_000), "2.5 MB"),
        (render.milliseconds(1_500_000), "1.5 ms"),
        (render.milliseconds(2_500_000_000), "2.50 s"),
    ],
)
def test_numbers_are_written_for_people(shown_as, said):
    assert shown_as == said


def test_brackets_in_what_others_said_are_shown_as_they_are():
    """rich reads [words] in brackets as style: a shape or a path must not vanish."""
    note = "rejected: the shape [red] is not [bold]"
    record = ModelVersion(variants=(Variant(compiled("v"), None, VariantState.FAILED, note),))
    assert note in "\n".join(shown(render.variants_table(record)))

"""Which variant is served: decisions, and the way back."""

import pytest
from adlik_gateway.catalog.releases import (
    MAX_HISTORY,
    MIN_GAIN,
    best_variant,
    decide,
    pareto_front,
    release,
    rolled_back,
)
from adlik_proto.adlik.model.v1 import model_pb2
from hypothesis import given
from hypothesis import strategies as st

SPEEDUPS = st.floats(0, 100)


def record_of(speedups, *, version=1, rejected=(), min_speedup=None):
    record = model_pb2.ModelVersion()
    record.pushed.name, record.pushed.version = "m", version
    if min_speedup is not None:
        record.pushed.plan.limits.min_speedup = min_speedup
    for name, speedup in speedups.items():
        variant = record.variants.add()
        variant.compiled.variant = name
        variant.verification.speedup = speedup
        variant.verification.accepted = name not in rejected
    return record


def released(speedups, **options):
    record = record_of(speedups, **options)
    return release(record, best_variant(record), None, "test")


VARIANTS = st.dictionaries(st.sampled_from("abcde"), SPEEDUPS)


@given(VARIANTS, st.sets(st.sampled_from("abcde")))
def test_the_first_release_is_the_fastest_that_passed(speedups, rejected):
    chosen = decide(record_of(speedups, rejected=rejected), None)
    passed = {name: s for name, s in speedups.items() if name not in rejected}
    if not passed:
        assert chosen is None
    else:
        assert passed[chosen.compiled.variant] == chosen.speedup == max(passed.values())
        assert (chosen.revision, chosen.pinned) == (1, False)


@given(VARIANTS, st.sets(st.sampled_from("abcde")), st.floats(0, 3))
def test_what_was_never_verified_or_was_rejected_is_never_released(speedups, rejected, needed):
    record = record_of(speedups, rejected=rejected, min_speedup=needed)
    record.variants.add().compiled.variant = "unverified"
    for current in (None, released({"z": 0.01}), released({"z": 0.01}, version=0)):
        chosen = decide(record, current)
        allowed = set(speedups) - rejected
        assert chosen is None or chosen.compiled.variant in allowed


@given(VARIANTS.filter(bool), st.floats(0, 3))
def test_a_decision_that_was_taken_is_not_taken_again(speedups, needed):
    record = record_of(speedups, min_speedup=needed)
    assert decide(record, decide(record, None)) is None


@given(st.floats(0.5, 50), st.floats(0.5, 3))
def test_within_a_version_only_what_is_clearly_faster_takes_over(speedup, gain):
    current = released({"a": speedup})
    chosen = decide(record_of({"a": speedup, "b": speedup * gain}, min_speedup=0), current)
    assert (chosen is not None) == (speedup * gain >= speedup * MIN_GAIN)
    if chosen is not None:
        assert chosen.compiled.variant == "b"
        assert chosen.revision == current.revision + 1
        assert [r.compiled.variant for r in chosen.history] == ["a"]


@pytest.mark.parametrize(("speedup", "taken"), [(2.1, True), (2.03, False), (1.0, False)])
def test_other_bytes_of_the_served_variant_take_over_where_they_are_clearly_faster(speedup, taken):
    current = released({"a": 2.0})
    record = record_of({"a": speedup})
    record.variants[0].compiled.artifact.digest = "sha256:tuned"
    chosen = decide(record, current)
    assert (chosen is not None) == taken
    if taken:
        assert chosen.compiled.artifact.digest == "sha256:tuned"
        assert rolled_back(chosen).compiled == current.compiled


@pytest.mark.parametrize(("min_speedup", "taken"), [(None, False), (0.4, True), (0.7, False)])
def test_the_plans_speedup_must_be_reached_to_replace(min_speedup, taken):
    current = released({"a": 0.4})
    record = record_of({"a": 0.4, "b": 0.6}, min_speedup=min_speedup)
    assert (decide(record, current) is not None) == taken


def test_a_newer_version_takes_over_even_if_it_is_slower():
    current = released({"a": 5.0}, version=1)
    chosen = decide(record_of({"b": 0.5}, version=2), current)
    assert (chosen.pushed.version, chosen.compiled.variant) == (2, "b")


def test_an_older_version_never_comes_back_by_itself():
    assert decide(record_of({"a": 9.0}, version=1), released({"b": 0.5}, version=2)) is None


def test_a_choice_by_hand_stays_until_a_newer_version_comes():
    record = record_of({"a": 1.0, "b": 9.0})
    pinned = release(record, record.variants[0], None, "chosen by hand", pinned=True)
    assert decide(record, pinned) is None
    assert decide(record_of({"a": 1.0}, version=2), pinned).pushed.version == 2


def test_a_version_that_was_served_before_does_not_undo_a_rollback():
    """A late verification of version 2 must not bring it back after a person has left it."""
    second = record_of({"a": 1.0}, version=2)
    current = decide(second, released({"a": 1.0}, version=1))
    second.first_released_at.GetCurrentTime()
    back = rolled_back(current)
    assert back.pushed.version == 1
    second.variants.add().compiled.variant = "late"
    second.variants[-1].verification.speedup = 9.0
    second.variants[-1].verification.accepted = True
    assert decide(second, back) is None
    assert decide(record_of({"a": 1.0}, version=3), back).pushed.version == 3


@given(st.integers(1, 3 * MAX_HISTORY))
def test_history_is_bounded_newest_first_and_one_level_deep(number):
    current = None
    for turn in range(number):
        current = decide(record_of({f"v{turn}": 2.0 + turn}), current)
    revisions = [r.revision for r in current.history]
    assert current.revision == number
    assert revisions == list(range(number - 1, 0, -1))[:MAX_HISTORY]
    assert not any(r.history for r in current.history)


@given(st.integers(1, MAX_HISTORY))
def test_rolling_back_walks_to_the_first_release_and_ends_there(number):
    current = None
    for turn in range(number):
        current = decide(record_of({f"v{turn}": float(2 + turn)}, version=turn + 1), current)
    for turn in reversed(range(number - 1)):
        before = current
        current = rolled_back(before)
        assert current.compiled.variant == f"v{turn}"
        assert current.revision == before.revision + 1
        assert current.pinned
        assert str(before.revision) in current.reason
    assert rolled_back(current) is None


def test_a_planned_target_replaces_the_pushed_model_that_stood_in():
    record = record_of({"pushed.onnxruntime-fp32": 1.0})
    record.pushed.plan.targets.append("openvino-fp32")
    stand_in = decide(record, None)
    assert stand_in.compiled.variant == "pushed.onnxruntime-fp32"
    for name in ("clean.openvino-fp32", "clean.kernels-fp32"):
        variant = record.variants.add()
        variant.compiled.variant = name
        variant.compiled.engine, variant.compiled.precision = name.split(".")[1].split("-")
        variant.verification.accepted = True
        variant.verification.speedup = 0.5 if "openvino" in name else 3.0
    record.variants[0].compiled.engine, record.variants[0].compiled.precision = (
        "onnxruntime",
        "fp32",
    )
    assert decide(record, stand_in).compiled.variant == "clean.openvino-fp32"
    record.pushed.plan.limits.min_speedup = 0.9
    assert decide(record, stand_in) is None


def test_a_release_says_how_requests_are_treated():
    record = record_of({"a": 1.0})
    record.variants[0].verification.serving.deferred.append("nonfinite")
    assert list(decide(record, None).serving.deferred) == ["nonfinite"]


def test_the_pareto_front_holds_what_nothing_beats_in_everything():
    record = model_pb2.ModelVersion()
    for name, speedup, size, r2, accepted in (
        ("exact", 1.0, 100, 1.0, True),
        ("small", 1.5, 25, 0.99, True),
        ("fast", 2.0, 100, 0.999, True),
        ("beaten", 1.2, 100, 0.99, True),
        ("refused", 9.0, 1, 1.0, False),
    ):
        variant = record.variants.add()
        variant.compiled.variant = name
        variant.compiled.artifact.size_bytes = size
        variant.verification.speedup = speedup
        variant.verification.fidelity.r2 = r2
        variant.verification.accepted = accepted
    assert pareto_front(record) == {"exact", "small", "fast"}

"""Folding events into a record: order and repetition must not matter."""

import random

import pytest
from adlik_gateway.catalog.fold import FOLDED, fold, settled, version_of
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from hypothesis import given
from hypothesis import strategies as st

PUSHED = model_pb2.PushedModel(name="m", version=3)
TIMES = ("updated_at", "first_released_at", "first_deployed_at")


def finished(stage, subject="", outputs=()):
    done = model_pb2.FinishedStage(stage=stage, subject=subject, outputs=outputs)
    return events_pb2.StageFinished(pushed=PUSHED, finished=done)


def failed(stage, subject="", code="ENGINE_FAILED"):
    failure = model_pb2.Failure(stage=stage, subject=subject, error=model_pb2.Error(code=code))
    return events_pb2.StageFailed(pushed=PUSHED, failure=failure)


def variant_events(variant, *, accepted=True, digest="sha256:1", speedup=1.5):
    compiled = model_pb2.CompiledModel(variant=variant)
    compiled.artifact.digest = digest
    verification = model_pb2.Verification(accepted=accepted, speedup=speedup)
    release = model_pb2.Release(pushed=PUSHED, compiled=compiled, revision=1)
    release.released_at.GetCurrentTime()
    events = [
        events_pb2.ModelCompiled(pushed=PUSHED, compiled=compiled),
        events_pb2.ModelVerified(pushed=PUSHED, compiled=compiled, verification=verification),
        finished("verifier", variant),
    ]
    if accepted:
        events += [
            events_pb2.ModelReleased(release=release),
            events_pb2.ModelDeployed(pushed=PUSHED, variant=variant, replica="r", revision=1),
        ]
    return [*events, finished("release", variant)]


@st.composite
def pushes(draw):
    """Draws all events of a push that runs to its end, in the order they happen."""
    recipes = draw(st.lists(st.sampled_from(["clean", "int8", "prune"]), unique=True))
    events = [events_pb2.ModelPushed(pushed=PUSHED)]
    for recipe in recipes:
        optimized = model_pb2.OptimizedModel(recipe=recipe, precision="fp32")
        events.append(events_pb2.ModelOptimized(pushed=PUSHED, optimized=optimized))
    ends = st.sampled_from(["done", "failed"])
    optimizer_fails = not recipes and draw(st.booleans())
    events.append(failed("optimizer") if optimizer_fails else finished("optimizer", "", recipes))
    for recipe in ["", *recipes]:
        if draw(ends) == "failed":
            events.append(failed("compiler", recipe))
            continue
        variants = [f"{recipe or 'pushed'}.{t}" for t in draw(st.sets(st.sampled_from("abc")))]
        for variant in variants:
            if draw(ends) == "failed":
                events.append(failed("verifier", variant))
            else:
                accepted = draw(st.booleans())
                events += variant_events(variant, accepted=accepted)
                if accepted and draw(st.booleans()):
                    speedup = draw(st.sampled_from([1.4, 1.5, 1.6]))
                    tuned = {
                        "digest": "sha256:2",
                        "speedup": speedup,
                        "accepted": draw(st.booleans()),
                    }
                    events += variant_events(variant, **tuned)
        events.append(finished("compiler", recipe, variants))
    return events


def folded(events):
    record = model_pb2.ModelVersion(pushed=PUSHED)
    for event in events:
        assert fold(record, event) is record
    return record


def content(record):
    """Returns a record without its times and without the order of its lists."""

    def plain(message):
        lists = {
            field.name: sorted(map(plain, value)) if field.is_repeated else plain(value)
            for field, value in message.ListFields()
            if field.message_type is not None and field.name not in TIMES
        }
        scalars = {
            field.name: list(value) if field.is_repeated else value
            for field, value in message.ListFields()
            if field.message_type is None
        }
        present = [name for name in TIMES if name in message.DESCRIPTOR.fields_by_name]
        return repr((lists, scalars, [message.HasField(name) for name in present]))

    return plain(record)


@given(pushes(), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same_record(events, rng):
    mixed = events + rng.choices(events, k=rng.randint(0, len(events)))
    rng.shuffle(mixed)
    assert content(folded(mixed)) == content(folded(events))


@given(pushes())
def test_the_same_event_twice_in_a_row_changes_nothing_at_all(events):
    record = folded(events)
    before = record.SerializeToString(deterministic=True)
    for event in events:
        fold(record, event)
    assert record.SerializeToString(deterministic=True) == before


@given(pushes(), st.data())
def test_a_record_is_settled_when_every_stage_has_ended_and_not_before(events, data):
    assert settled(folded(events))
    # The end of a verification is told again where a variant was tuned.
    missing = data.draw(st.sampled_from([e for e in events if type(e).__name__[:5] == "Stage"]))
    assert not settled(folded([event for event in events if event != missing]))


@given(pushes())
def test_in_the_order_things_happen_a_push_settles_once(events):
    rng = random.Random(0)
    told = [settled(folded(events[: n + 1])) for n in range(len(events))]
    assert told == sorted(told), "what is settled stays settled"
    assert not settled(folded([]))
    assert not settled(folded(rng.sample(events, 1)))


def test_a_verification_that_overtakes_its_compilation_is_kept():
    compiled, verified, *_ = variant_events("v", accepted=False)
    record = folded([verified, compiled])
    (variant,) = record.variants
    assert variant.state == model_pb2.VARIANT_STATE_REJECTED
    assert variant.verification.speedup == 1.5


@pytest.mark.parametrize(
    ("speedup", "accepted", "stands"),
    [(1.6, True, "sha256:2"), (1.4, True, "sha256:1"), (9.0, False, "sha256:1")],
)
def test_of_a_variants_artifacts_the_better_stands(speedup, accepted, stands):
    tuned = {"digest": "sha256:2", "speedup": speedup, "accepted": accepted}
    for events in (
        [*variant_events("v"), *variant_events("v", **tuned)],
        [*variant_events("v", **tuned), *variant_events("v")],
    ):
        (variant,) = folded(events).variants
        assert variant.compiled.artifact.digest == stands
        assert variant.verification.speedup == (1.6 if stands == "sha256:2" else 1.5)
        assert variant.state == model_pb2.VARIANT_STATE_VERIFIED


def test_the_first_result_stands():
    again = failed("compiler", "clean", code="RESOURCE_LIMIT")
    record = folded([failed("compiler", "clean"), again])
    assert [f.error.code for f in record.failures] == ["ENGINE_FAILED"]


def test_every_folded_event_says_which_version_it_is_about():
    for event_type in FOLDED:
        event = event_type()
        pushed = getattr(event, "release", event).pushed
        pushed.name, pushed.version = "m", 3
        assert version_of(event) == ("m", 3)
    everything = set(events_pb2.DESCRIPTOR.message_types_by_name)
    assert everything - {t.DESCRIPTOR.name for t in FOLDED} == {"ModelDeleted"}

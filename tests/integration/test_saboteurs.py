"""The judge itself, on the short form of its test bench: `make bench-proof ARGS=--short`."""

import os

import pytest

from benchmarks.proof import MAX_REFUSED, MIN_CAUGHT, Tally, bench, misjudged
from benchmarks.proof_cases.corpus import SHORT

SEED = 0


@pytest.fixture(scope="module")
def tally() -> Tally:
    return bench(SHORT, short=True, seed=SEED, jobs=len(os.sched_getaffinity(0)))


def test_every_model_is_tried(tally):
    assert set(tally.models) == {case.name for case in SHORT}
    assert not tally.crashed
    assert len(tally.sabotaged) > 150
    assert len(tally.right) > 40


def test_what_is_wrong_is_not_released(tally):
    assert tally.caught >= MIN_CAUGHT, "\n".join(misjudged(tally))


def test_what_is_right_is_not_refused(tally):
    assert tally.refused <= MAX_REFUSED, "\n".join(misjudged(tally))


def test_what_serving_can_tell_apart_is_guarded(tally):
    assert not tally.unguarded


def test_rows_that_depend_on_each_other_are_not_batched(tally):
    assert not tally.wrongly_batched

"""Special requests are told apart, answered by the pushed model or refused, and hurt nobody."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from adlik_common.errors import EngineFailed, InvalidTensor
from adlik_serving.batcher import Batcher, Limits, Work
from adlik_serving.guard import EMPTY, NONFINITE, WIDE, Guard
from adlik_serving.metrics import VariantMetrics
from doubling import Doubler

BIG = 2**40


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.ones((2, 3), np.float32), ""),
        (np.array([[1, np.nan]], np.float32), NONFINITE),
        (np.array([[1, np.inf]], np.float16), NONFINITE),
        (np.array([[np.inf, -np.inf]], np.float64), NONFINITE),
        (np.full((1, 9), 3e38, np.float32), ""),  # the sum overflows, no element does
        (np.array([1, BIG]), WIDE),
        (np.array([-BIG, 1]), WIDE),
        (np.array([2**63], np.uint64), WIDE),
        (np.array([2**31 - 1, -(2**31)]), ""),
        (np.array([2**31], np.uint32), ""),
        (np.zeros((0, 3), np.float32), EMPTY),
        (np.array(["a", ""], np.object_), ""),
        (np.array(1.5, np.float32), ""),
    ],
)
def test_kinds_are_told_apart_where_they_are_watched(array, kind):
    inputs = {"other": np.ones(2, np.float32), "x": array}
    assert Guard([NONFINITE, WIDE, EMPTY], [], Doubler).kind_of(inputs) == kind
    assert Guard([], [], Doubler).kind_of(inputs) == ""


def test_the_pushed_model_is_loaded_once_when_it_is_needed_and_given_back():
    opened = []

    def open_pushed():
        opened.append(Doubler())
        return opened[-1]

    guard = Guard([NONFINITE], [EMPTY], open_pushed)
    assert guard.is_needed
    assert not opened
    assert guard.model_for(NONFINITE) is guard.model_for(NONFINITE)
    assert len(opened) == 1
    with pytest.raises(InvalidTensor) as refused:
        guard.model_for(EMPTY)
    assert refused.value.cure
    guard.close()
    assert opened[0].closed


class Dropper(Doubler):
    """An engine that drops NaN."""

    def run(self, inputs, outputs=()):
        return {"y": np.nan_to_num(super().run(inputs, outputs)["y"])}


async def answers_of(batcher, *inputs):
    waiting = []
    for x in inputs:
        answer = asyncio.get_running_loop().create_future()
        batcher.submit(Work({"x": x}, ("y",), answer.set_result, lambda: False))
        waiting.append(answer)
    return [await answer for answer in waiting]


def guarded(model, guard, run_ns=10_000_000):
    return Batcher(model, Limits(), VariantMetrics("m", "v"), run_ns, guard=guard)


@pytest.mark.parametrize("run_ns", [1_000, 10_000_000])
async def test_a_special_request_among_others_is_answered_by_the_pushed_model_alone(run_ns):
    variant, pushed = Dropper(), Doubler()
    batcher = guarded(variant, Guard([NONFINITE], [], lambda: pushed), run_ns)
    plain, odd = np.ones((1, 2), np.float32), np.array([[1, np.nan]], np.float32)
    first, second, third = await answers_of(batcher, plain, odd, 2 * plain)
    assert first.results["y"].tolist() == [[2, 2]]
    assert np.isnan(second.results["y"][0, 1])
    assert third.results["y"].tolist() == [[4, 4]]
    assert [len(run) for run in pushed.runs] == [1]
    assert not any(np.isnan(run).any() for run in variant.runs)


async def test_what_nobody_answers_is_refused_and_its_neighbours_are_answered():
    variant = Doubler()
    batcher = guarded(variant, Guard([], [EMPTY], Doubler))
    empty, plain = np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32)
    refused, answered = await answers_of(batcher, empty, plain)
    assert refused.error.code == "INVALID_TENSOR"
    assert answered.results["y"].tolist() == [[2, 2]]
    await batcher.drain()


async def test_a_pushed_model_that_does_not_load_fails_its_request_only():
    def broken():
        raise EngineFailed("gone")

    batcher = guarded(Doubler(), Guard([NONFINITE], [], broken))
    odd, plain = np.array([[np.nan]], np.float32), np.ones((1, 1), np.float32)
    failed, answered = await answers_of(batcher, odd, plain)
    assert failed.error.message == "gone"
    assert answered.results["y"].tolist() == [[2]]

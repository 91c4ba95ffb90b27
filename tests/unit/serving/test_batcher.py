"""The batcher: what runs together, what never does, and that neighbours can't hurt each other."""

import asyncio
import threading

import numpy as np
import pytest
from adlik_common.errors import AdlikError, EngineFailed
from adlik_serving.batcher import Batcher, Limits, Work
from adlik_serving.metrics import VariantMetrics
from doubling import Doubler
from hypothesis import given, settings
from hypothesis import strategies as st

INLINE_NS, THREAD_NS = 1_000, 10_000_000


class Caller:
    """One request, its answer as a future, and whether it has lost interest."""

    def __init__(self, batcher, value, rows=1, columns=1, **fields):
        self.answer = asyncio.get_running_loop().create_future()
        self.cancelled = False
        self.input = np.full((rows, columns), value, np.float32)
        self.work = Work(
            {"x": self.input}, ("y",), self.answer.set_result, lambda: self.cancelled, **fields
        )
        batcher.submit(self.work)

    async def result(self):
        work = await self.answer
        if work.error is not None:
            raise work.error
        return work.results["y"]


def batcher_of(model, run_ns=THREAD_NS, **limits):
    return Batcher(model, Limits(**limits), VariantMetrics("m", "v"), run_ns)


async def held_up(model, batcher):
    """Occupies the model, so that what is submitted next has to queue."""
    model.go.clear()
    first = Caller(batcher, -1)
    while not model.threads:
        await asyncio.sleep(0.001)
    return first


async def test_a_request_alone_passes_its_memory_straight_through():
    model = Doubler()
    batcher = batcher_of(model)
    caller = Caller(batcher, 3)
    assert (await caller.result()).tolist() == [[6]]
    assert model.runs[0] is caller.input
    assert caller.work.batch_rows == 1
    assert caller.work.infer_ns > 0


@pytest.mark.parametrize("run_ns", [INLINE_NS, THREAD_NS])
async def test_requests_of_one_turn_of_the_loop_run_together(run_ns):
    model = Doubler()
    batcher = batcher_of(model, run_ns)
    callers = [Caller(batcher, value, rows=value) for value in (1, 2, 3)]
    results = [await caller.result() for caller in callers]
    assert [len(result) for result in results] == [1, 2, 3]
    assert [result[0, 0] for result in results] == [2, 4, 6]
    assert len(model.runs) == 1
    assert {caller.work.batch_rows for caller in callers} == {6}


async def test_a_tiny_model_runs_on_the_loop_and_another_apart():
    for run_ns, here in ((INLINE_NS, True), (THREAD_NS, False)):
        model = Doubler()
        await Caller(batcher_of(model, run_ns), 1).result()
        assert (model.threads == {threading.get_ident()}) is here


async def test_what_arrives_during_a_run_forms_the_next_batches():
    model = Doubler()
    batcher = batcher_of(model, max_rows=4)
    first = await held_up(model, batcher)
    callers = [Caller(batcher, value) for value in range(6)]
    await asyncio.sleep(0)
    model.go.set()
    await first.result()
    assert [(await caller.result()).item() for caller in callers] == [0, 2, 4, 6, 8, 10]
    assert [len(run) for run in model.runs] == [1, 4, 2]


async def test_other_shapes_run_in_batches_of_their_own():
    model = Doubler()
    batcher = batcher_of(model)
    callers = [Caller(batcher, value, columns=1 + value % 2) for value in range(6)]
    for value, caller in enumerate(callers):
        assert (await caller.result()).tolist() == [[2 * value] * (1 + value % 2)]
    assert [run.shape for run in model.runs] == [(3, 1), (3, 2)]


async def test_a_model_without_batches_runs_requests_one_by_one():
    model = Doubler()
    batcher = batcher_of(model, max_rows=0)
    callers = [Caller(batcher, value, rows=2) for value in range(3)]
    assert [(await caller.result())[1, 0] for caller in callers] == [0, 2, 4]
    assert [len(run) for run in model.runs] == [2, 2, 2]


async def test_a_request_larger_than_a_batch_runs_alone():
    model = Doubler()
    batcher = batcher_of(model, max_rows=4)
    callers = [Caller(batcher, 1), Caller(batcher, 2, rows=9), Caller(batcher, 3)]
    assert [len(await caller.result()) for caller in callers] == [1, 9, 1]
    assert [len(run) for run in model.runs] == [2, 9]


async def test_the_cancelled_are_not_run_and_their_neighbours_are():
    model = Doubler()
    batcher = batcher_of(model)
    first = await held_up(model, batcher)
    left, gone, right = (Caller(batcher, value) for value in (1, 2, 3))
    gone.cancelled = True
    model.go.set()
    await first.result()
    assert (await left.result()).item() == 2
    assert (await right.result()).item() == 6
    assert model.runs[1].tolist() == [[1], [3]]
    with pytest.raises(AdlikError) as raised:
        await gone.result()
    assert raised.value.code == "CANCELLED"


async def test_only_the_guilty_request_of_a_failing_batch_fails():
    model = Doubler()
    model.poison = 2
    batcher = batcher_of(model)
    good, bad, other = (Caller(batcher, value) for value in (1, 2, 3))
    assert (await good.result()).item() == 2
    assert (await other.result()).item() == 6
    with pytest.raises(EngineFailed, match="poisoned"):
        await bad.result()


async def test_an_engine_that_gives_other_rows_than_it_got_is_asked_one_by_one():
    class Summing(Doubler):
        def run(self, inputs, outputs=()):
            return {"y": inputs["x"].sum(axis=0, keepdims=True)}

    callers = [Caller(batcher, value) for batcher in [batcher_of(Summing())] for value in (1, 2)]
    assert [(await caller.result()).item() for caller in callers] == [1, 2]


async def test_what_is_no_adlik_error_is_answered_as_internal():
    class Broken(Doubler):
        def run(self, inputs, outputs=()):
            raise ZeroDivisionError("oops")

    with pytest.raises(AdlikError, match="oops") as raised:
        await Caller(batcher_of(Broken()), 1).result()
    assert raised.value.code == "INTERNAL"


async def test_a_deadline_that_passes_in_the_queue_is_answered_so():
    model = Doubler()
    batcher = batcher_of(model)
    first = await held_up(model, batcher)
    late = Caller(batcher, 1, deadline_ns=1)
    patient = Caller(batcher, 2)
    model.go.set()
    await first.result()
    with pytest.raises(AdlikError) as raised:
        await late.result()
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert (await patient.result()).item() == 4


@pytest.mark.parametrize("limit", [{"max_queued": 2}, {"max_queued_bytes": 8}])
async def test_a_full_queue_refuses(limit):
    model = Doubler()
    batcher = batcher_of(model, **limit)
    first = await held_up(model, batcher)
    waiting = [Caller(batcher, value) for value in (1, 2)]
    with pytest.raises(AdlikError) as raised:
        Caller(batcher, 3)
    assert raised.value.code == "OVERLOADED"
    model.go.set()
    await first.result()
    assert [(await caller.result()).item() for caller in waiting] == [2, 4]
    assert (await Caller(batcher, 3).result()).item() == 6


async def test_inputs_of_different_rows_and_of_none_run_alone_and_the_model_judges_them():
    model = Doubler()
    batcher = batcher_of(model)
    first = await held_up(model, batcher)
    odd = {"x": np.ones((1, 2), np.float32), "z": np.ones((3, 2), np.float32)}
    answers = []
    for inputs in (odd, {"x": np.ones((0, 2), np.float32)}, {"x": np.ones((1, 2), np.float32)}):
        answer = asyncio.get_running_loop().create_future()
        batcher.submit(Work(inputs, ("y",), answer.set_result, lambda: False))
        answers.append(answer)
    model.go.set()
    await first.result()
    assert [(await a).results["y"].shape for a in answers] == [(1, 2), (0, 2), (1, 2)]
    assert [run.shape for run in model.runs[1:]] == [(1, 2), (0, 2), (1, 2)]


async def test_a_delay_waits_for_others_but_not_once_the_batch_is_full():
    model = Doubler()
    batcher = batcher_of(model, max_rows=2, delay_ns=3600 * 10**9)
    one = Caller(batcher, 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not model.runs
    two = Caller(batcher, 2)
    assert [(await caller.result()).item() for caller in (one, two)] == [2, 4]

    short = batcher_of(model, delay_ns=1_000_000)
    assert (await Caller(short, 4).result()).item() == 8


async def test_draining_waits_for_every_accepted_request():
    model = Doubler()
    batcher = batcher_of(model)
    first = await held_up(model, batcher)
    second = Caller(batcher, 1)
    drained = asyncio.create_task(batcher.drain())
    await asyncio.sleep(0.01)
    assert not drained.done()
    model.go.set()
    await drained
    assert first.answer.done()
    assert second.answer.done()
    batcher.close()
    with pytest.raises(AdlikError) as raised:
        Caller(batcher, 1)
    assert raised.value.retryable


sizes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2), st.booleans()), max_size=12)


@settings(deadline=None)
@given(sizes, st.integers(0, 6), st.sampled_from([INLINE_NS, THREAD_NS]))
def test_every_caller_gets_its_own_rows_whatever_runs_beside_it(requests, max_rows, run_ns):
    async def go():
        model = Doubler()
        batcher = batcher_of(model, run_ns, max_rows=max_rows)
        callers = [
            Caller(batcher, index, rows, columns)
            for index, (rows, columns, _) in enumerate(requests)
        ]
        for caller, (_, _, cancelled) in zip(callers, requests, strict=True):
            caller.cancelled = cancelled
        await asyncio.wait_for(batcher.drain(), 10)
        for caller, (_, _, cancelled) in zip(callers, requests, strict=True):
            if cancelled:
                assert caller.work.error.code == "CANCELLED"
            else:
                assert np.array_equal(await caller.result(), caller.input * 2)
        alone = max_rows or 1
        assert all(len(run) <= max(alone, 5) for run in model.runs)
        batcher.close()

    asyncio.run(go())

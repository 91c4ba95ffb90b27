"""Dynamic batching: while a model runs, requests queue up; the next run takes all that fit.

No request waits for others unless a delay is configured. A batch is one concatenation and one run;
a request that runs alone passes its memory straight through. A model's pipeline puts its own steps
in the place of these. Neighbours never hurt each other: the
cancelled leave before the run, and a batch that fails is run again one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol

import numpy as np
from adlik_common.errors import (
    AdlikError,
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    Internal,
    Overloaded,
    Unavailable,
)
from adlik_runtimes.engine import LoadedModel

from adlik_serving.guard import Guard
from adlik_serving.metrics import VariantMetrics
from adlik_serving.oip.request import Array
from adlik_serving.pace import Pace


@dataclass(slots=True, eq=False)
class Work:
    """One request on its way through a batcher, and what became of it.

    Attributes:
        inputs: Every input of the model.
        outputs: Names of the wanted outputs.
        done: Called on the event loop once the rest is filled in.
        is_cancelled: Whether the caller has gone.
        deadline_ns: `perf_counter_ns` after which the caller no longer waits; 0: never.
        arrived_ns: `perf_counter_ns` at which it was submitted.
        results: The wanted outputs, views of the batch's.
        error: Why there are none.
        queue_ns: Time until its run began.
        input_ns: Time to join the batch, and to prepare what a pipeline prepares.
        infer_ns: Time of the run.
        output_ns: Time to part the batch, and to make a pipeline's answers.
        batch_rows: Rows of the batch it was run in.
    """

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    done: Callable[[Work], None]
    is_cancelled: Callable[[], bool]
    deadline_ns: int = 0
    arrived_ns: int = 0
    rows: int = 1
    size: int = 0
    key: Hashable = None
    results: dict[str, Array] = field(default_factory=dict)
    error: AdlikError | None = None
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    batch_rows: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How far batches and the queue may grow.

    Attributes:
        max_rows: Rows in one run; 0: the model takes no batch, so requests run one by one.
        delay_ns: Time that the first request of a batch waits for others.
        max_queued: Requests that may wait.
        max_queued_bytes: Tensor bytes that may wait.
    """

    max_rows: int = 32
    delay_ns: int = 0
    max_queued: int = 1024
    max_queued_bytes: int = 1 << 30


class Steps(Protocol):
    """What stands between requests and a model: `Rows`, or a pipeline of the model's plan."""

    def measure(self, work: Work) -> None:
        """Fills in a request's rows and what it must share with others to run with them.

        Raises:
            InvalidTensor: The request can't be run.
        """

    def wanted(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the model's outputs that wanted outputs are made of."""

    def join(self, batch: Sequence[Work]) -> Mapping[str, Array]:
        """Returns the model's inputs for a batch."""

    def part(self, batch: Sequence[Work], outputs: Mapping[str, Array]) -> None:
        """Gives each request of a batch its results."""


class Rows:
    """Requests are rows of the model's own inputs, and get their rows of its outputs.

    Args:
        batched: Whether requests may be run together.
    """

    def __init__(self, *, batched: bool = True) -> None:
        self._batched = batched

    def measure(self, work: Work) -> None:
        """Counts the rows; what has none, or inputs of different numbers, shares no run."""
        if not self._batched:
            return
        arrays = work.inputs.values()
        rows = next(iter(arrays)).shape[0]
        if rows and all(array.shape[0] == rows for array in arrays):
            work.rows = rows
            work.key = (work.outputs, *(array.shape[1:] for array in arrays))
        else:
            work.key = object()  # the model itself says whether it takes that

    def wanted(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the outputs themselves."""
        return outputs

    def join(self, batch: Sequence[Work]) -> Mapping[str, Array]:
        """Returns the requests' rows one below the other; of a single request its own memory."""
        inputs = batch[0].inputs
        if len(batch) == 1:
            return inputs
        return {name: np.concatenate([work.inputs[name] for work in batch]) for name in inputs}

    def part(self, batch: Sequence[Work], outputs: Mapping[str, Array]) -> None:
        """Gives each request its rows of the outputs, as views."""
        if len(batch) == 1:
            batch[0].results = dict(outputs)
            return
        rows = sum(work.rows for work in batch)
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise EngineFailed(
                    f"Output '{name}' has shape {list(array.shape)} for a batch of {rows} rows."
                )
        start = 0
        for work in batch:
            stop = start + work.rows
            work.results = {name: array[start:stop] for name, array in outputs.items()}
            start = stop


class Batcher:
    """Runs one loaded model for many callers; used from one event loop.

    Args:
        model: What is run, by one thread at a time.
        limits: How far batches and the queue may grow.
        metrics: Where runs are counted.
        run_ns: How long a run took in the warm-up.
        steps: What stands between requests and the model; by default nothing.
        guard: Tells requests apart that another model answers; by default there are none.
    """

    def __init__(
        self,
        model: LoadedModel,
        limits: Limits,
        metrics: VariantMetrics,
        run_ns: float,
        *,
        steps: Steps | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._guard = guard if guard is not None and guard.is_needed else None
        self._steps = steps or Rows(batched=limits.max_rows > 0)
        self.pace = Pace(run_ns)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Work] = deque()
        self._queued_bytes = self._queued_rows = 0
        self._running = self._scheduled = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="infer")

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Tensor bytes that wait."""
        return self._queued_bytes

    def submit(self, work: Work) -> None:
        """Queues a request; its `done` is called later, never from within this call.

        Raises:
            Overloaded: The queue is full.
            InvalidTensor: A picture is too large.
            Unavailable: The batcher is closed.
        """
        if self._closed:
            raise Unavailable("The model has just been unloaded.", cure="Try again.")
        self._steps.measure(work)
        work.size = sum(array.nbytes for array in work.inputs.values())
        limits, waiting = self._limits, len(self._queue)
        too_large = waiting and self._queued_bytes + work.size > limits.max_queued_bytes
        if waiting >= limits.max_queued or too_large:
            raise Overloaded(
                f"{waiting} requests ({self._queued_bytes} bytes) wait already.",
                cure="Try again a little later, send less at once or add serving replicas.",
            )
        work.arrived_ns = perf_counter_ns()
        self._queue.append(work)
        self._queued_bytes += work.size
        self._queued_rows += work.rows
        self._idle.clear()
        self._schedule()

    def _schedule(self) -> None:
        """Has the queue looked at later in this turn of the loop, with all that comes in it."""
        if self._running or self._scheduled:
            return
        delay_ns = self._limits.delay_ns
        if delay_ns and self._queued_rows < self._limits.max_rows:
            left_ns = delay_ns - (perf_counter_ns() - self._queue[0].arrived_ns)
            if left_ns > 0:
                if self._timer is None:
                    self._timer = self._loop.call_later(left_ns / 1e9, self._pump)
                return
        self._scheduled = True
        self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Runs the next batch: here where that is cheaper than the way to the thread and back."""
        self._scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running:
            return
        batch = self._take()
        if not batch:
            self._settle()
            return
        self._running = True
        if self.pace.inline:
            self._execute(batch)
            self._finish(batch)
        else:
            self._worker.submit(self._execute_apart, batch)

    def _take(self) -> list[Work]:
        """Returns the requests of the next run, and ends those that nobody waits for any more."""
        batch: list[Work] = []
        skipped: list[Work] = []
        rows, max_rows = 0, self._limits.max_rows or 1
        now = perf_counter_ns()
        while self._queue and rows < max_rows:
            work = self._queue.popleft()
            if batch and (work.key != batch[0].key or rows + work.rows > max_rows):
                skipped.append(work)
                continue
            self._queued_bytes -= work.size
            self._queued_rows -= work.rows
            if not self._ended(work, now):
                batch.append(work)
                rows += work.rows
        self._queue.extendleft(reversed(skipped))
        return batch

    def _ended(self, work: Work, now: int) -> bool:
        if work.is_cancelled():
            work.error = Cancelled("The caller went away before the run.")
        elif work.deadline_ns and now > work.deadline_ns:
            waited = (now - work.arrived_ns) / 1e6
            work.error = DeadlineExceeded(
                f"The request's time ran out after {waited:.1f} ms in the queue.",
                cure="Allow more time or add serving replicas.",
            )
        else:
            return False
        work.queue_ns = now - work.arrived_ns
        work.done(work)
        return True

    def _execute_apart(self, batch: list[Work]) -> None:
        self._execute(batch)
        self._loop.call_soon_threadsafe(self._finish, batch)

    def _execute(self, batch: list[Work]) -> None:
        """Runs a batch and fills in its works: results, or for each the error of its own run."""
        started = perf_counter_ns()
        for work in batch:
            work.queue_ns = started - work.arrived_ns
        if self._guard is not None:
            batch = self._without_special(batch, self._guard, started)
            if not batch:
                return
        self._execute_with(self._model, batch, started)

    def _without_special(self, batch: list[Work], guard: Guard, started: int) -> list[Work]:
        """Answers the special requests of a batch one by one, and returns the others."""
        others = []
        for work in batch:
            kind = guard.kind_of(work.inputs)
            if not kind:
                others.append(work)
                continue
            try:
                model = guard.model_for(kind)
            except AdlikError as error:
                work.error = error
                continue
            self._execute_with(model, [work], started)
        return others

    def _execute_with(self, model: LoadedModel, batch: list[Work], started: int) -> None:
        try:
            self._run(model, batch, started)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises, callers get an answer
            if len(batch) > 1:
                for work in batch:
                    self._execute_with(model, [work], perf_counter_ns())
            elif isinstance(error, AdlikError):
                batch[0].error = error
            else:
                batch[0].error = Internal(f"{type(error).__name__}: {error}")

    def _run(self, model: LoadedModel, batch: list[Work], started: int) -> None:
        inputs = self._steps.join(batch)
        joined = perf_counter_ns()
        outputs = model.run(inputs, self._steps.wanted(batch[0].outputs))
        ran = perf_counter_ns()
        self._steps.part(batch, outputs)
        parted = perf_counter_ns()
        rows = sum(work.rows for work in batch)
        for work in batch:
            work.batch_rows = rows
            work.input_ns, work.infer_ns = joined - started, ran - joined
            work.output_ns = parted - ran

    def _finish(self, batch: list[Work]) -> None:
        """Answers a batch and goes on with the queue."""
        self._running = False
        first = batch[0]
        if first.infer_ns:
            self.pace.ran(first.input_ns + first.infer_ns + first.output_ns)
            self._metrics.batch_rows.observe(first.batch_rows)
            self._metrics.execution_seconds.observe(first.infer_ns / 1e9)
        for work in batch:
            self._metrics.queue_seconds.observe(work.queue_ns / 1e9)
            work.done(work)
        self._settle()

    def _settle(self) -> None:
        if self._queue:
            self._schedule()
        else:
            self._idle.set()

    async def drain(self) -> None:
        """Waits until every request that was accepted has been answered."""
        await self._idle.wait()

    def close(self) -> None:
        """Ends the thread; to be called once drained."""
        self._closed = True
        self._worker.shutdown(wait=False)

"""Sends each inference to a replica, and to another where one is lost, full or out of date."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from adlik_common.errors import (
    AdlikError,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    Unavailable,
    from_proto,
)
from adlik_common.link import LinkLost, RemoteError, Reply
from adlik_proto.adlik.link.v1.link_pb2 import ErrorHead, InferRequestHead, InferResponseHead

from adlik_gateway import metrics
from adlik_gateway.catalog.unserved import NotServedYet
from adlik_gateway.inference.calls import Answer, Call, size
from adlik_gateway.inference.recording import Record, Recorder
from adlik_gateway.inference.replicas import ReplicaTable, ServingReplica

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trip:
    """One inference's way: what was tried, and until when it may go on.

    Attributes:
        deadline: Event loop time at which the caller stops waiting.
        traceparent: Trace context that the replica continues.
        excluded: Replicas that are not asked again until the table changes.
        lost: Replicas whose connection ended while they had the request. One that is dead but
            still in the table is asked again when the table changes, and counts once.
        problem: Why the latest replica refused; None where it was lost.
        give_up: Event loop time until which it waits for a replica; 0: it never had to.
    """

    deadline: float
    traceparent: str
    excluded: set[ServingReplica] = field(default_factory=set)
    lost: set[ServingReplica] = field(default_factory=set)
    problem: AdlikError | None = None
    give_up: float = 0.0


class Router:
    """The data plane's one verb.

    Args:
        table: Which replica holds what.
        recorder: Keeps spans, metrics and statistics.
        attempts: Replicas that one inference may be lost on. A request that kills its replica
            must not be allowed to kill all of them.
        wait_seconds: Time to wait for a replica while none has the model.
        timeout_seconds: Longest that an inference may take.
    """

    def __init__(
        self,
        table: ReplicaTable,
        recorder: Recorder,
        *,
        attempts: int,
        wait_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._table, self._recorder = table, recorder
        self._attempts, self._wait, self._timeout = attempts, wait_seconds, timeout_seconds

    async def infer(self, call: Call) -> Answer:
        """Returns a replica's answer; cancelling the caller's task cancels the work.

        Raises:
            NotFound: No such model or version is released.
            Unavailable: No replica could be asked.
            DeadlineExceeded: The time was over.
            AdlikError: Whatever the replica answers.
        """
        record = self._recorder.begin(call)
        try:
            replica, reply = await self._in_time(call, record)
            head = InferResponseHead.FromString(reply.head)
        except BaseException as error:
            record.failed(error)
            raise
        record.succeeded(replica, head, size(reply.body))
        return Answer(head, reply.body, record.traceparent)

    async def _in_time(self, call: Call, record: Record) -> tuple[str, Reply]:
        seconds = self._timeout if call.timeout is None else min(call.timeout, self._timeout)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                return await self._travel(call, _Trip(deadline, record.traceparent))
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"No answer came within {seconds:.3g} s.", cure="Allow more time."
            ) from error

    async def _travel(self, call: Call, trip: _Trip) -> tuple[str, Reply]:
        """Asks replicas until one answers or the trip has to end."""
        while True:
            replica = await self._pick(call, trip)
            doubtful = self._table.doubts(replica)
            try:
                return replica.id, await self._ask(replica, call, trip)
            except LinkLost as error:
                if not doubtful:
                    log.warning("replica %s is lost: %s", replica.id, error)
                self._table.lost(replica)
                self._was_lost(replica, error, trip, doubtful=doubtful)
            except RemoteError as error:
                self._was_refused(replica, _remote_error(error), trip)
            metrics.retries(trip.problem.code if trip.problem else Unavailable.code).inc()

    def _was_lost(
        self, replica: ServingReplica, error: LinkLost, trip: _Trip, *, doubtful: bool
    ) -> None:
        """Takes a lost connection into account; raises where the trip ends with it."""
        trip.problem = None
        if doubtful or replica in trip.lost:  # dead before, so this asking did not kill it
            trip.excluded.add(replica)
            return
        trip.lost.add(replica)
        if len(trip.lost) >= self._attempts:
            raise Unavailable(
                f"{len(trip.lost)} replicas went away while they had this request.",
                cure="Look at the serving replicas' logs: the request itself may be the cause.",
            ) from error

    def _was_refused(self, replica: ServingReplica, error: AdlikError, trip: _Trip) -> None:
        """Takes a replica's error into account; raises where another would answer the same."""
        full_again = isinstance(error, Overloaded) and isinstance(trip.problem, Overloaded)
        # A replica that does not know the model has unloaded it since the table was read.
        if full_again or not isinstance(error, Overloaded | Unavailable | NotFound):
            raise error
        trip.problem = error
        trip.excluded.add(replica)

    async def _pick(self, call: Call, trip: _Trip) -> ServingReplica:
        """Picks a replica; where there is none, waits a while for the table to change."""
        while True:
            try:
                return self._table.pick(call.model, call.version, trip.excluded)
            except NotServedYet:
                raise  # that takes longer than anybody should be kept waiting
            except Unavailable:
                loop = asyncio.get_running_loop()
                trip.give_up = trip.give_up or loop.time() + self._wait
                patience = trip.give_up - loop.time()
                final = isinstance(trip.problem, Overloaded) or patience <= 0
                if final or not await self._table.changed(patience):
                    if trip.problem is None:
                        raise
                    raise trip.problem from None
                trip.excluded.clear()

    async def _ask(self, replica: ServingReplica, call: Call, trip: _Trip) -> Reply:
        remaining = trip.deadline - asyncio.get_running_loop().time()
        head = InferRequestHead(
            model=call.model,
            version=call.version,
            encoding=call.encoding,
            json_length=call.json_length,
            timeout_ms=max(1, int(remaining * 1000)),
            traceparent=trip.traceparent,
        )
        try:
            return await replica.link.request(head.SerializeToString(), *call.body)
        finally:
            self._table.done(replica)


def _remote_error(error: RemoteError) -> AdlikError:
    return from_proto(ErrorHead.FromString(error.head).error)

"""Cumulated counts and times per model version, as the protocol's statistics extension has them."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from adlik_proto.adlik.link.v1.link_pb2 import InferResponseHead
from adlik_proto.inference import open_inference_pb2 as oip


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def message(self) -> oip.StatisticDuration:
        return oip.StatisticDuration(count=self.count, ns=self.ns)


@dataclass(slots=True)
class _Computed:
    """Time in the three steps of computing."""

    input: _Duration = field(default_factory=_Duration)
    infer: _Duration = field(default_factory=_Duration)
    output: _Duration = field(default_factory=_Duration)

    def add(self, head: InferResponseHead) -> None:
        self.input.add(head.input_ns)
        self.infer.add(head.infer_ns)
        self.output.add(head.output_ns)


@dataclass(slots=True)
class _Tally:
    """What happened to one version of a model."""

    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    computed: _Computed = field(default_factory=_Computed)
    by_batch: dict[int, _Computed] = field(default_factory=dict)
    executions: float = 0.0
    rows: int = 0
    last_ms: int = 0

    def add(self, head: InferResponseHead, ns: int) -> None:
        self.success.add(ns)
        self.queue.add(head.queue_ns)
        self.computed.add(head)
        batch = max(1, head.batch_size)
        computed = self.by_batch.get(batch)
        if computed is None:
            computed = self.by_batch[batch] = _Computed()
        computed.add(head)
        # Every request of a batch reports the whole batch, so each stands for its share of it.
        rows = max(1, head.rows)
        self.rows += rows
        self.executions += rows / batch
        self.last_ms = time.time_ns() // 1_000_000

    def message(self, model: str, version: int) -> oip.ModelStatistics:
        computed = self.computed
        return oip.ModelStatistics(
            name=model,
            version=str(version),
            last_inference=self.last_ms,
            inference_count=self.rows,
            execution_count=round(self.executions),
            inference_stats=oip.InferStatistics(
                success=self.success.message(),
                fail=self.fail.message(),
                queue=self.queue.message(),
                compute_input=computed.input.message(),
                compute_infer=computed.infer.message(),
                compute_output=computed.output.message(),
            ),
            batch_stats=[
                oip.InferBatchStatistics(
                    batch_size=batch,
                    compute_input=computed.input.message(),
                    compute_infer=computed.infer.message(),
                    compute_output=computed.output.message(),
                )
                for batch, computed in sorted(self.by_batch.items())
            ],
        )


class Statistics:
    """Counts since this gateway started; every gateway counts for itself."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int], _Tally] = {}

    def succeeded(self, head: InferResponseHead, ns: int) -> None:
        """Adds an answered inference that took `ns` nanoseconds."""
        self._tally(head.model, head.version).add(head, ns)

    def failed(self, model: str, version: int, ns: int) -> None:
        """Adds an inference that ended in an error after `ns` nanoseconds."""
        self._tally(model, version).fail.add(ns)

    def keep(self, model: str, versions: Collection[int]) -> None:
        """Forgets a model's versions but these."""
        for name, version in list(self._tallies):
            if name == model and version not in versions:
                del self._tallies[name, version]

    def of(self, model: str, version: int) -> oip.ModelStatistics:
        """Returns one version's statistics, zeros where nothing was asked yet."""
        tally = self._tallies.get((model, version)) or _Tally()
        return tally.message(model, version)

    def _tally(self, model: str, version: int) -> _Tally:
        tally = self._tallies.get((model, version))
        if tally is None:
            tally = self._tallies[model, version] = _Tally()
        return tally

"""Handles ModelPushed: runs the plan's recipes and publishes a ModelOptimized for each."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from adlik_common import spans, telemetry
from adlik_common.bus import Delivery
from adlik_common.errors import AdlikError
from adlik_common.model_files import materialise
from adlik_common.sandbox import Limits, run_isolated
from adlik_common.sandbox_warm import Nursery
from adlik_common.service import Context
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from opentelemetry import trace

from adlik_optimizer.recipes import CLEAN, INT8, RECIPES
from adlik_optimizer.settings import OptimizerSettings

MEDIA_TYPE = "application/x-onnx"
# Below serving and compiling: the first answer must not wait for this.
NICENESS = 10
WARM_MODULES = ("adlik_optimizer.recipes",)
"""What every recipe imports; what quantizing needs besides is large, and seldom used."""


class Optimizer:
    """The durable consumer `optimizer`.

    Attributes:
        nursery: Makes its children.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.nursery = Nursery(WARM_MODULES)
        settings: OptimizerSettings = context.settings
        self._limits = Limits(
            seconds=settings.optimize_seconds,
            memory_bytes=settings.optimize_memory_bytes,
            niceness=NICENESS,
        )

    async def run(self) -> None:
        """Handles pushes until the service drains."""
        await self._context.bus.consume("optimizer", {events_pb2.ModelPushed: self.optimize})

    async def optimize(self, event: events_pb2.ModelPushed, delivery: Delivery) -> list[str]:
        """Runs the recipes one after another; one that fails does not stop the others.

        Returns:
            The recipes that made a model.
        """
        pushed = event.pushed
        wanted = [name for name in RECIPES if name in (pushed.plan.recipes or RECIPES)]
        made: list[str] = []
        with tempfile.TemporaryDirectory(prefix="adlik-optimize-") as directory:
            workdir = Path(directory)
            model, samples = await self._fetch(pushed, workdir)
            # int8 starts from the clean graph, whether or not that is wanted for itself.
            for recipe in RECIPES if INT8 in wanted else wanted:
                out = workdir / f"{recipe}.onnx"
                try:
                    optimized = await self._run(pushed, recipe, model, samples, out)
                except AdlikError as error:
                    if error.retryable and not delivery.last:
                        raise  # the event is tried again
                    await self._context.bus.fail(pushed, "optimizer", recipe, error)
                    if recipe == CLEAN:
                        break
                    continue
                if recipe == CLEAN:
                    model = out
                if recipe in wanted:
                    await self._context.bus.publish(
                        events_pb2.ModelOptimized(pushed=pushed, optimized=optimized)
                    )
                    made.append(recipe)
        return made

    async def _fetch(
        self, pushed: model_pb2.PushedModel, workdir: Path
    ) -> tuple[Path, Path | None]:
        """Returns the model's file, with its external files beside it, and the samples'."""
        store = self._context.artifacts
        model = await materialise(store, pushed.source, workdir / "source")
        samples = None
        if pushed.source.HasField("samples"):
            samples = await store.fetch(pushed.source.samples)
        return model, samples

    async def _run(
        self,
        pushed: model_pb2.PushedModel,
        recipe: str,
        model: Path,
        samples: Path | None,
        out: Path,
    ) -> model_pb2.OptimizedModel:
        attributes: dict[str, str | int] = {
            spans.MODEL: pushed.name,
            spans.VERSION: pushed.version,
            spans.RECIPE: recipe,
        }
        with telemetry.tracer().start_as_current_span(
            spans.OPTIMIZE, attributes=attributes
        ) as span:
            arguments: dict[str, object] = {
                "model": str(model),
                "out": str(out),
                "samples": str(samples) if samples else None,
            }
            if recipe == INT8 and pushed.plan.limits.HasField("min_expected_accuracy"):
                arguments["min_accuracy"] = pushed.plan.limits.min_expected_accuracy
            started = time.time_ns()
            try:
                report = await run_isolated(
                    f"adlik_optimizer.recipes:{recipe}",
                    arguments,
                    workdir=out.parent,
                    limits=self._limits,
                    nursery=self.nursery,
                )
            except AdlikError as error:
                telemetry.record_error(span, error)
                raise
            _record_passes(report["passes"], started)
            artifact = await self._context.artifacts.put_file(out, MEDIA_TYPE)
            span.set_attribute(spans.SIZE_BYTES, artifact.size_bytes)
            return model_pb2.OptimizedModel(
                recipe=recipe,
                artifact=artifact,
                format="onnx",
                precision=RECIPES[recipe],
                passes=[model_pb2.PassReport(**done) for done in report["passes"]],
            )


def _record_passes(passes: list[dict[str, Any]], started: int) -> None:
    """Adds a span for each pass that ran in the child, one behind the other."""
    for report in passes:
        ended = started + int(report["seconds"] * 1e9)
        span = telemetry.tracer().start_span(
            spans.OPTIMIZE_PASS,
            context=trace.set_span_in_context(trace.get_current_span()),
            start_time=started,
            attributes={spans.PASS: report["name"], spans.MODIFIED: report["modified"]},
        )
        span.end(ended)
        started = ended

"""Reads and checks a push's plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adlik_common.errors import InvalidPlan
from adlik_common.tensors import TensorSpec
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf import json_format

MAX_JSON_BYTES = 64 * 1024
_RANGES = {
    "max_accuracy_drop": (0.0, 100.0),
    "min_speedup": (0.0, 1e6),
    "min_r2": (0.0, 1.0),
    "min_expected_accuracy": (0.0, 1.0),
    "min_sure_agreement": (0.0, 1.0),
    "min_objects_kept": (0.0, 1.0),
    "max_abs_error": (0.0, 1e8),
}
_RETIRED = {
    "min_cosine": "use min_r2: the share of each output's variance that is kept",
    "min_top1_agreement": "use min_expected_accuracy, and min_sure_agreement for sure answers",
}
_BATCHING = ("", "auto", "off")
MAX_SIZE = 2**20


def parse_plan(text: bytes) -> model_pb2.Plan:
    """Returns the plan of a JSON text; raises `InvalidPlan` for unknown fields and wrong types."""
    if len(text) > MAX_JSON_BYTES:
        raise InvalidPlan(f"The plan has more than {MAX_JSON_BYTES} bytes.")
    if not text.lstrip().startswith(b"{"):  # the parser takes an empty list, too
        raise InvalidPlan("The plan is no JSON object.")
    try:
        return json_format.Parse(text, model_pb2.Plan())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise InvalidPlan(f"The plan can't be read: {said}.") from error


def check_plan(plan: model_pb2.Plan, replicas: Iterable[control_pb2.Replica]) -> None:
    """Raises `InvalidPlan` where a plan asks for what no running service offers."""
    _check_limits("", plan.limits)
    for output, limits in plan.limits.outputs.items():
        _check_limits(f" of output '{output}'", limits)
    for axis, size in plan.sizes.items():
        if not 1 <= size <= MAX_SIZE:
            raise InvalidPlan(
                f"The size of axis '{axis}' is {size}.", cure=f"Use a number from 1 to {MAX_SIZE}."
            )
    if plan.batching not in _BATCHING:
        raise InvalidPlan(
            f"There is no batching '{plan.batching}'.", cure='Choose "auto" or "off".'
        )
    offers: dict[str, dict[str, str]] = {"optimizer": {}, "compiler": {}}
    for replica in replicas:
        if replica.service in offers:
            known = offers[replica.service]
            for name, why_not in replica.capabilities.items():
                # What one replica can do is available, whatever the others lack.
                known[name] = why_not and known.get(name, why_not)
    _check_names("recipe", plan.recipes, offers["optimizer"])
    _check_names("target", plan.targets, offers["compiler"])


def check_names(
    plan: model_pb2.Plan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Raises `InvalidPlan` where a plan names an output or an axis that the model does not have."""
    known = {spec.name for spec in outputs}
    if unknown := sorted(set(plan.limits.outputs) - known):
        raise InvalidPlan(
            f"The plan has limits for {unknown}, which the model does not give.",
            cure=f"Choose among {sorted(known)}.",
        )
    axes = {axis for spec in inputs for axis in spec.axes if axis}
    if unknown := sorted(set(plan.sizes) - axes):
        raise InvalidPlan(
            f"The plan has sizes for {unknown}, which are no open axes of the model's inputs.",
            cure=f"Choose among {sorted(axes)}." if axes else "The model names no open axes.",
        )


def _check_limits(whose: str, limits: model_pb2.Limits | model_pb2.OutputLimits) -> None:
    for field, value in limits.ListFields():
        if field.name == "outputs":
            continue
        if field.name in _RETIRED:
            raise InvalidPlan(
                f"There is no limit {field.name} any more: {_RETIRED[field.name]}.",
                cure="See docs/plans.md for what each output is judged by.",
            )
        low, high = _RANGES[field.name]
        if not low <= value <= high:
            raise InvalidPlan(
                f"{field.name}{whose} is {value}.", cure=f"Use a number from {low:g} to {high:g}."
            )


def _check_names(kind: str, names: Sequence[str], offers: dict[str, str]) -> None:
    if not offers:  # nobody is there to ask; the worker will say so when it is
        return
    for name in names:
        if name not in offers:
            raise InvalidPlan(
                f"There is no {kind} '{name}'.", cure=f"Choose among {sorted(offers)}."
            )
        if offers[name]:
            raise InvalidPlan(
                f"The {kind} '{name}' is not available: {offers[name]}",
                cure=f"Choose among {sorted(n for n, why in offers.items() if not why)}.",
            )

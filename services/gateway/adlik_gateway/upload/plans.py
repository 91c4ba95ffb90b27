"""Reads and checks a push's plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adlik_common.errors import InvalidPlan
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf import json_format

MAX_JSON_BYTES = 64 * 1024
_RANGES = {
    "min_cosine": (0.0, 1.0),
    "min_top1_agreement": (0.0, 1.0),
    "max_accuracy_drop": (0.0, 100.0),
    "min_speedup": (0.0, 1e6),
}


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
    for field, value in plan.limits.ListFields():
        low, high = _RANGES[field.name]
        if not low <= value <= high:
            raise InvalidPlan(
                f"{field.name} is {value}.", cure=f"Use a number from {low:g} to {high:g}."
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

"""Says why what was pushed is not served: not yet, not any more, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from adlik_common.errors import AdlikError, NotFound, Unavailable
from adlik_proto.adlik.model.v1 import model_pb2

from adlik_gateway.catalog.fold import settled


class NotServedYet(Unavailable):
    """What was pushed is still on its way: it may be asked for a little later."""


def why_unserved(
    versions: Mapping[int, model_pb2.ModelVersion],
    release: model_pb2.Release | None,
    version: int = 0,
) -> AdlikError | None:
    """Returns why a version of a model, 0 for any, is not served; None where it was not pushed.

    Args:
        versions: What was pushed under the model's name, by number.
        release: What is served of it.
        version: The version that is asked for.
    """
    coming = [number for number, record in versions.items() if not settled(record)]
    number = version or max(coming or versions, default=0)
    record = versions.get(number)
    if record is None:
        return None
    name = record.pushed.name
    what = f"Version {number} of model '{name}'"
    accepted = any(v.verification.accepted for v in record.variants)
    served = release.pushed.version if release is not None else 0
    if number in coming or (accepted and not served):
        return NotServedYet(
            f"{what} is not served yet: {_waits_for(record)}.",
            cure=f"Try again in a moment; `adlik watch {name}` shows how far it is.",
        )
    if not accepted:
        reason = next(iter(_refusals(record)), "nothing came of it")
        return NotFound(
            f"{what} was pushed and is not served: {reason}",
            cure=f"See `adlik show {name}` for what became of each variant.",
        )
    return NotFound(
        f"{what} is not served {'any more' if number < served else 'now'}; version {served} is.",
        cure="Leave the version out to ask for what is released.",
    )


def _waits_for(record: model_pb2.ModelVersion) -> str:
    """Returns the next thing that has to happen to a version."""
    if not record.variants:
        return "it is being compiled"
    unverified = sum(not variant.HasField("verification") for variant in record.variants)
    if unverified:
        return f"{unverified} of {len(record.variants)} variants are being verified"
    if any(variant.verification.accepted for variant in record.variants):
        return "its release is being decided"
    return "further variants are being made"


def _refusals(record: model_pb2.ModelVersion) -> list[str]:
    """Returns what the pushed model, its variants and its stages were refused for."""
    variants = [
        f"variant {variant.compiled.variant} was rejected. "
        + " ".join(variant.verification.reasons)
        for variant in record.variants
    ]
    return [*variants, *(failure.error.message for failure in record.failures)]

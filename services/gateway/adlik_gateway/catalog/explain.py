"""Says of each variant whether it is served, and why or why not."""

from __future__ import annotations

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_gateway.catalog.fold import settled
from adlik_gateway.catalog.releases import artifact_of, pareto_front


def explained(
    record: model_pb2.ModelVersion, release: model_pb2.Release | None
) -> model_pb2.ModelVersion:
    """Returns a copy of a record with each variant's state and note, and `settled`, filled in."""
    copy = model_pb2.ModelVersion()
    copy.CopyFrom(record)
    copy.settled = settled(record)
    served = ""
    if release is not None and release.pushed.version == record.pushed.version:
        served = release.compiled.variant
    front = pareto_front(record)
    for variant in copy.variants:
        if variant.compiled.variant == served:
            assert release is not None
            variant.state = model_pb2.VARIANT_STATE_RELEASED
            variant.note = f"released: {release.reason}"
            if artifact_of(variant.compiled) != artifact_of(release.compiled):
                faster = variant.verification.speedup
                variant.note += f"; tuned since to {faster:.2f}x, not enough to replace it"
        else:
            variant.note = _why_not(variant, release, served, front)
    return copy


def _why_not(
    variant: model_pb2.Variant, release: model_pb2.Release | None, served: str, front: set[str]
) -> str:
    if not variant.HasField("verification"):
        return "waits for verification"
    if not variant.verification.accepted:
        return "rejected: " + " ".join(variant.verification.reasons)
    if release is None:
        return "passed; about to be released"
    if not served:
        return f"passed; version {release.pushed.version} is served"
    if release.pinned:
        return f"passed; {served} was chosen by hand"
    speedup = variant.verification.speedup
    why = f"passed, not the fastest: {speedup:.2f}x against {release.speedup:.2f}x of {served}"
    if variant.compiled.variant in front:
        why += "; on the Pareto front of speed, size and fidelity"
    return why

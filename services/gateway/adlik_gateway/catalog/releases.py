"""Decides which variant is served: the fastest that passed, of the newest version."""

from __future__ import annotations

from adlik_proto.adlik.model.v1 import model_pb2

# A variant must be this much faster than the one served to replace it: measurements are noisy.
MIN_GAIN = 1.02
DEFAULT_MIN_SPEEDUP = 1.0
MAX_HISTORY = 10


def best_variant(record: model_pb2.ModelVersion) -> model_pb2.Variant | None:
    """Returns a version's fastest accepted variant, None while nothing passed.

    Of the targets that the plan names, if it names some: the pushed model, which is always made,
    answers only while none of those has passed.
    """
    accepted = [v for v in record.variants if v.verification.accepted]
    wanted = [v for v in accepted if _is_wanted(v.compiled, record.pushed.plan)]
    return max(wanted or accepted, key=lambda v: v.verification.speedup, default=None)


def _is_wanted(compiled: model_pb2.CompiledModel, plan: model_pb2.Plan) -> bool:
    return not plan.targets or f"{compiled.engine}-{compiled.precision}" in plan.targets


def pareto_front(record: model_pb2.ModelVersion) -> set[str]:
    """Returns the accepted variants that no other one beats in speed, size and fidelity at once."""
    merits = {
        variant.compiled.variant: (
            variant.verification.speedup,
            -variant.compiled.artifact.size_bytes,
            variant.verification.fidelity.r2,
        )
        for variant in record.variants
        if variant.verification.accepted
    }
    return {
        name
        for name, own in merits.items()
        if not any(
            other != own and all(o >= mine for o, mine in zip(other, own, strict=True))
            for other in merits.values()
        )
    }


def decide(
    record: model_pb2.ModelVersion, current: model_pb2.Release | None
) -> model_pb2.Release | None:
    """Returns the release that should replace the current one, None to leave it.

    A newer version replaces an older one as soon as one of its variants has passed. Within a
    version a variant replaces another when it is clearly faster and reaches the plan's speed-up.
    A variant that a person chose stays until a newer version comes, one that was never served.
    """
    best = best_variant(record)
    if best is None:
        return None
    if current is not None and _left_by_hand(record, current):
        return None
    if current is None or current.pushed.version < record.pushed.version:
        return release(record, best, current, "first variant of this version that passed")
    newer = current.pushed.version > record.pushed.version
    if newer or not _replaces(best, current, record.pushed.plan):
        return None
    reason = (
        f"{best.verification.speedup:.2f}x the pushed model's speed; "
        f"the one before had {current.speedup:.2f}x"
    )
    return release(record, best, current, reason)


def _left_by_hand(record: model_pb2.ModelVersion, current: model_pb2.Release) -> bool:
    """Whether a person chose what is served, after or instead of this version."""
    seen = record.HasField("first_released_at")
    return current.pinned and (seen or record.pushed.version <= current.pushed.version)


def _replaces(variant: model_pb2.Variant, current: model_pb2.Release, plan: model_pb2.Plan) -> bool:
    """Whether it is not what is served, bytes and all, clearly faster, and as fast as planned.

    A target that the plan names replaces the pushed model, which only stood in, also where it is
    slower.
    """
    limits = plan.limits
    if artifact_of(variant.compiled) == artifact_of(current.compiled):
        return False
    if _is_wanted(variant.compiled, plan) and not _is_wanted(current.compiled, plan):
        return variant.verification.speedup >= limits.min_speedup
    needed = limits.min_speedup if limits.HasField("min_speedup") else DEFAULT_MIN_SPEEDUP
    return variant.verification.speedup >= max(needed, current.speedup * MIN_GAIN)


def artifact_of(compiled: model_pb2.CompiledModel) -> tuple[str, str]:
    """Returns what tells compiled models of a version apart: a variant's bytes change by tuning."""
    return compiled.variant, compiled.artifact.digest


def release(
    record: model_pb2.ModelVersion,
    variant: model_pb2.Variant,
    current: model_pb2.Release | None,
    reason: str,
    *,
    pinned: bool = False,
) -> model_pb2.Release:
    """Returns a release of a variant that follows the current one and remembers it."""
    new = model_pb2.Release(
        pushed=record.pushed,
        compiled=variant.compiled,
        revision=1,
        speedup=variant.verification.speedup,
        reason=reason,
        pinned=pinned,
        serving=variant.verification.serving,
    )
    new.released_at.GetCurrentTime()
    if current is not None:
        new.revision = current.revision + 1
        new.history.extend([without_history(current), *current.history][:MAX_HISTORY])
    return new


def without_history(release_: model_pb2.Release) -> model_pb2.Release:
    """Returns a copy that does not remember its predecessors."""
    copy = model_pb2.Release()
    copy.CopyFrom(release_)
    del copy.history[:]
    return copy


def rolled_back(current: model_pb2.Release) -> model_pb2.Release | None:
    """Returns the release that serves again what was served before, None where nothing was."""
    if not current.history:
        return None
    new = without_history(current.history[0])
    new.revision = current.revision + 1
    new.reason = f"rolled back from revision {current.revision}"
    new.pinned = True
    new.released_at.GetCurrentTime()
    new.history.extend(current.history[1:])
    return new

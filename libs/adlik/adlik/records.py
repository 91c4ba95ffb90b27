"""What the mesh tells of models, variants, replicas and traces, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from adlik.plans import Plan


class VariantState(StrEnum):
    """How far a variant has come; values are the wire's names."""

    UNSPECIFIED = "VARIANT_STATE_UNSPECIFIED"
    OPTIMIZED = "VARIANT_STATE_OPTIMIZED"
    COMPILED = "VARIANT_STATE_COMPILED"
    REJECTED = "VARIANT_STATE_REJECTED"
    VERIFIED = "VARIANT_STATE_VERIFIED"
    RELEASED = "VARIANT_STATE_RELEASED"
    FAILED = "VARIANT_STATE_FAILED"

    @classmethod
    def _missing_(cls, _value: object) -> VariantState:
        return cls.UNSPECIFIED  # a state that a newer server knows


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Bytes in the artifact store, named by their digest ("sha256:<hex>")."""

    digest: str = ""
    size_bytes: int = 0
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, datatype, shape (-1: known only at run time) and names of its axes."""

    name: str = ""
    datatype: str = ""
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file that the model file refers to by a relative name."""

    name: str = ""
    artifact: ArtifactRef = ArtifactRef()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What was uploaded."""

    format: str = ""
    artifact: ArtifactRef = ArtifactRef()
    external_files: tuple[ExternalFile, ...] = ()
    samples: ArtifactRef | None = None


@dataclass(frozen=True, slots=True)
class PushedModel:
    """A version of a model as it was pushed."""

    name: str = ""
    version: int = 0
    source: ModelSource = ModelSource()
    signature: Signature = Signature()
    plan: Plan = field(default_factory=Plan)
    pushed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """An error inside a record: a stage that failed, a replica that can't load."""

    code: str = ""
    message: str = ""
    cure: str = ""
    retryable: bool = False
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PassReport:
    """One pass of a recipe and what it did to the graph."""

    name: str = ""
    modified: bool = False
    summary: str = ""
    max_abs_error: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizedModel:
    """A portable model made by one recipe."""

    recipe: str = ""
    artifact: ArtifactRef = ArtifactRef()
    format: str = ""
    precision: str = ""
    passes: tuple[PassReport, ...] = ()


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A model compiled for one engine at one precision."""

    variant: str = ""
    recipe: str = ""
    engine: str = ""
    precision: str = ""
    format: str = ""
    artifact: ArtifactRef = ArtifactRef()
    path: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one inference, in milliseconds, over `runs` runs."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """How near one output is to the pushed model's; docs/proof.md says what the figures mean."""

    name: str = ""
    kind: str = ""
    r2: float = 0.0
    snr_db: float = 0.0
    cosine: float = 0.0
    max_abs_error: float = 0.0
    max_spreads: float = 0.0
    worst: str = ""
    expected_accuracy: float | None = None
    expected_accuracy_low: float = 0.0
    expected_accuracy_high: float = 0.0
    sure_agreement: float | None = None
    agreement: float | None = None
    objects_kept: float | None = None
    exact_share: float | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near a variant's outputs are to the pushed model's; the worst of all outputs."""

    max_abs_error: float = 0.0
    cosine: float = 0.0
    top1_agreement: float | None = None
    r2: float = 0.0
    expected_accuracy: float | None = None
    outputs: tuple[OutputFidelity, ...] = ()
    noise_used: float = 0.0


@dataclass(frozen=True, slots=True)
class Serving:
    """How requests of a variant are treated, as its proof has shown."""

    independent_rows: bool = False
    dependence: str = ""
    deferred: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured of a variant beside the pushed model, and the verdict."""

    samples: int = 0
    samples_source: str = ""
    fidelity: Fidelity = Fidelity()
    accuracy: float | None = None
    reference_accuracy: float | None = None
    latency: Latency = Latency()
    reference_latency: Latency = Latency()
    speedup: float = 0.0
    memory_bytes: int = 0
    accepted: bool = False
    reasons: tuple[str, ...] = ()
    machine: str = ""
    serving: Serving = Serving()


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of a version, with its verification once there is one."""

    compiled: CompiledModel = CompiledModel()
    verification: Verification | None = None
    state: VariantState = VariantState.UNSPECIFIED
    note: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that ended in an error and will not be tried again."""

    stage: str = ""
    subject: str = ""
    error: Error = Error()
    failed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Everything known of one version; `settled` once every stage has finished or failed."""

    pushed: PushedModel = PushedModel()
    optimized: tuple[OptimizedModel, ...] = ()
    variants: tuple[Variant, ...] = ()
    failures: tuple[Failure, ...] = ()
    trace_id: str = ""
    first_released_at: datetime | None = None
    first_deployed_at: datetime | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """What is served under a model's name; `revision` counts up with each change."""

    pushed: PushedModel = PushedModel()
    compiled: CompiledModel = CompiledModel()
    revision: int = 0
    speedup: float = 0.0
    reason: str = ""
    released_at: datetime | None = None
    pinned: bool = False
    history: tuple[Release, ...] = ()
    traceparent: str = ""
    serving: Serving = Serving()


@dataclass(frozen=True, slots=True)
class Model:
    """A name, its versions (newest first) and what is served."""

    name: str = ""
    versions: tuple[ModelVersion, ...] = ()
    release: Release | None = None
    ready_replicas: tuple[str, ...] = ()

    def version(self, number: int = 0) -> ModelVersion | None:
        """Returns a version by number, the newest for 0; None where there is no such version."""
        return next((v for v in self.versions if number in (0, v.pushed.version)), None)


@dataclass(frozen=True, slots=True)
class Pushed:
    """The answer to a push; `created` is False where the same bytes and plan were pushed before."""

    pushed: PushedModel = PushedModel()
    created: bool = False
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One message of a watch: what happened ("Snapshot" at the start) and the model after it."""

    event: str = ""
    model: Model = Model()
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Consumer:
    """The queue of one kind of job."""

    name: str = ""
    waiting: int = 0
    running: int = 0
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a stage gave up on."""

    consumer: str = ""
    event: str = ""
    model: str = ""
    version: int = 0
    error: Error = Error()
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Work that waits, runs or was given up."""

    consumers: tuple[Consumer, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that a serving replica has loaded."""

    name: str = ""
    version: int = 0
    variant: str = ""
    revision: int = 0
    engine: str = ""
    memory_bytes: int = 0
    signature: Signature = Signature()
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """One running service process; `engines` says per engine why it can't run ("" where it can)."""

    id: str = ""
    service: str = ""
    host: str = ""
    pid: int = 0
    started_at: datetime | None = None
    link: str = ""
    loaded: tuple[LoadedModel, ...] = ()
    failed: Mapping[str, Error] = field(default_factory=dict)
    draining: bool = False
    engines: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work inside a trace; times are nanoseconds since the epoch."""

    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    service: str = ""
    start_unix_nano: int = 0
    end_unix_nano: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one push or one inference, by start time."""

    trace_id: str = ""
    spans: tuple[Span, ...] = ()

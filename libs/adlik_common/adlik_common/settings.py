"""Configuration that every service has, from ADLIK_* environment variables.

The defaults work on a laptop. A service adds its own fields by subclassing. OpenTelemetry is
configured by its own OTEL_* variables.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30

CpuLevel = Literal["", "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"]
"""What a processor may be capped at, in rising order; "" for not at all."""


class ServiceSettings(BaseSettings):
    """Settings that all services share."""

    model_config = SettingsConfigDict(env_prefix="ADLIK_", frozen=True, extra="ignore")

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, comma-separated.")
    nats_replicas: int = Field(
        1, ge=1, le=5, description="Copies that JetStream keeps of streams, buckets and objects."
    )
    artifacts_url: str = Field(
        "nats://artifacts",
        description="Artifact store: file:///dir, nats://bucket, s3://, gs:// or az:// URL.",
    )
    cache_dir: Path = Field(
        Path.home() / ".cache" / "adlik", description="Local copies of artifacts, by digest."
    )
    cache_max_bytes: int = Field(
        20 * GIB, ge=0, description="Size above which the least recently used copies are removed."
    )
    runtime_dir: Path = Field(
        Path(tempfile.gettempdir()) / "adlik", description="Unix sockets; keep the path short."
    )
    max_artifact_bytes: int = Field(
        4 * GIB, gt=0, description="Largest single artifact that is stored or read."
    )
    health_host: str = Field("127.0.0.1", description="Address of /healthz, /readyz, /metrics.")
    health_port: int = Field(0, ge=0, le=65535, description="Port of the same; 0: any free one.")
    heartbeat_seconds: float = Field(
        2.0, gt=0, description="Time between entries in the replica table; three missed: gone."
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="Time that work in hand gets to finish after SIGTERM."
    )
    events_max_bytes: int = Field(1 * GIB, gt=0, description="Size of the event stream.")
    traces_max_bytes: int = Field(
        64 * MIB, gt=0, description="Size of the stream of recent traces that the mesh keeps."
    )
    max_attempts: int = Field(
        5, ge=1, description="Deliveries of one event before it is given up as a dead letter."
    )
    otlp_endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Collector to export traces to as well; OpenTelemetry's own variable.",
    )
    cpu_level: CpuLevel = Field(
        "", description="Highest instruction set that is used; empty: all that the processor has."
    )
    log_level: str = Field("INFO", description="Python logging level.")

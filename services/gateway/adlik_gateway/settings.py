"""Configuration of the gateway, from ADLIK_* environment variables."""

from __future__ import annotations

from adlik_common.settings import GIB, MIB, ServiceSettings
from pydantic import Field


class GatewaySettings(ServiceSettings):
    """Settings of the front door."""

    http_host: str = Field("127.0.0.1", description="Address of the HTTP API.")
    http_port: int = Field(8080, ge=0, le=65535, description="Port of the same; 0: any free one.")
    grpc_host: str = Field("127.0.0.1", description="Address of the gRPC API.")
    grpc_port: int = Field(8081, ge=0, le=65535, description="Port of the same; 0: any free one.")
    max_upload_bytes: int = Field(2 * GIB, gt=0, description="Largest pushed model.")
    max_samples_bytes: int = Field(512 * MIB, gt=0, description="Largest pushed sample archive.")
    max_request_bytes: int = Field(
        256 * MIB,
        gt=0,
        le=GIB - MIB,
        description="Largest inference request, after decompression.",
    )
    infer_timeout_seconds: float = Field(
        300.0,
        gt=0,
        description="Longest that an inference may take where its caller sets no limit.",
    )
    infer_attempts: int = Field(
        3, ge=1, description="Replicas that one inference may be lost on before it is given up."
    )
    replica_wait_seconds: float = Field(
        10.0,
        ge=0,
        description="Time that an inference waits for a replica while none has its model.",
    )
    trace_inferences_per_second: float = Field(
        5.0,
        ge=0,
        description="Inferences traced of those whose caller says nothing about tracing.",
    )

"""Configuration of the serving service."""

from __future__ import annotations

import os

from adlik_common.settings import GIB, ServiceSettings
from pydantic import Field


class ServingSettings(ServiceSettings):
    """Settings of a serving replica."""

    link_host: str = Field(
        "",
        description="Address to listen on for inference (0.0.0.0: all); empty: a Unix socket in "
        "the runtime directory.",
    )
    link_port: int = Field(0, ge=0, le=65535, description="Port of the same; 0: any free one.")
    link_advertise: str = Field(
        "", description="Host that gateways reach this replica by, where it is not link_host."
    )
    engine_threads: int = Field(
        0, ge=0, description="Threads of an engine; 0: the cores divided by local_servers."
    )
    local_servers: int = Field(
        1, ge=1, description="Serving replicas that share this machine's cores."
    )
    max_batch_size: int = Field(
        32, ge=0, description="Rows that are run together; 0: requests are run one by one."
    )
    batch_delay_ms: float = Field(
        0.0, ge=0, description="Time that a request waits for others to be run with."
    )
    queue_requests: int = Field(1024, ge=1, description="Requests that may wait, per model.")
    queue_bytes: int = Field(1 * GIB, ge=1, description="Tensor bytes that may wait, per model.")
    max_request_bytes: int = Field(1 * GIB, ge=1, description="Largest inference request.")
    parallel_loads: int = Field(2, ge=1, description="Models that are loaded at the same time.")
    load_seconds: float = Field(
        300.0, gt=0, description="Time after which loading a model is given up."
    )
    ready_seconds: float = Field(
        15.0, ge=0, description="Time that a starting replica waits for its models."
    )

    def threads(self) -> int:
        """Returns how many threads an engine gets."""
        cores = len(os.sched_getaffinity(0))
        return self.engine_threads or max(1, cores // self.local_servers)

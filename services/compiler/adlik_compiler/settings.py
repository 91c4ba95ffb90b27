"""Configuration of the compiler service."""

from __future__ import annotations

import os

from adlik_common.sandbox import Limits
from adlik_common.settings import GIB, ServiceSettings
from pydantic import Field


class CompilerSettings(ServiceSettings):
    """Settings of a compiler."""

    engine_threads: int = Field(
        0,
        ge=0,
        description="Threads of an engine while a variant is measured; 0: all cores. Set it as "
        "for serving, so that the figures hold there.",
    )
    compile_seconds: float = Field(600.0, gt=0, description="Longest time of one conversion.")
    verify_seconds: float = Field(300.0, gt=0, description="Longest time of one verification.")
    isolated_memory_bytes: int = Field(
        8 * GIB, gt=0, description="Most memory that a conversion or a verification may take."
    )
    verify_samples: int = Field(
        128, ge=1, description="Most samples that a variant is compared on."
    )
    verify_compare_seconds: float = Field(
        10.0, gt=0, description="Time after which no more samples are compared."
    )
    verify_latency_seconds: float = Field(
        0.5, gt=0, description="About how long latency is measured."
    )

    idle_seconds: float = Field(
        30.0,
        ge=0,
        description="Time without work after which released models for Adlik's own kernels are "
        "tuned; 0: never.",
    )
    tune_seconds: float = Field(60.0, gt=0, description="About how long one bundle is tuned.")
    tune_min_gain: float = Field(
        1.02, ge=0, description="Speed-up of the whole model from which a tuned bundle is offered."
    )

    def threads(self) -> int:
        """Returns how many threads an engine gets."""
        return self.engine_threads or len(os.sched_getaffinity(0))

    def compile_limits(self) -> Limits:
        """Returns what one conversion may take; it yields to serving."""
        return Limits(seconds=self.compile_seconds, memory_bytes=self.isolated_memory_bytes)

    def verify_limits(self) -> Limits:
        """Returns what one verification may take; it runs at the priority serving has."""
        return Limits(
            seconds=self.verify_seconds, memory_bytes=self.isolated_memory_bytes, niceness=0
        )

    def tune_limits(self) -> Limits:
        """Returns what tuning one bundle may take: only what nobody else wants."""
        return Limits(
            seconds=self.tune_seconds + self.compile_seconds,
            memory_bytes=self.isolated_memory_bytes,
            niceness=19,
        )

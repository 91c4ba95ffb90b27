"""Configuration of the optimizer, from ADLIK_* environment variables."""

from __future__ import annotations

from adlik_common.settings import GIB, ServiceSettings
from pydantic import Field


class OptimizerSettings(ServiceSettings):
    """Settings of the optimizer."""

    optimize_seconds: float = Field(
        1800.0, gt=0, description="Longest that one recipe may take on one model."
    )
    optimize_memory_bytes: int = Field(
        8 * GIB, gt=0, description="Most memory that one recipe may take."
    )

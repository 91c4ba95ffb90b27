"""The data plane: inferences in over HTTP and gRPC, out over the link to a serving replica."""

from __future__ import annotations

from adlik_gateway.inference.plane import DataPlane, build

__all__ = ["DataPlane", "build"]

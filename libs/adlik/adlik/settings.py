"""The only place of the client that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

# The client installs without adlik_common, whose settings class would otherwise read this.
_ENVIRONMENT: Mapping[str, str] = os.environ  # noqa: TID251

DEFAULT_URL = "http://127.0.0.1:8080"
"""Where `adlik up` listens unless told otherwise."""


def default_url() -> str:
    """Returns the gateway's address from ADLIK_URL, else that of a local `adlik up`."""
    return _ENVIRONMENT.get("ADLIK_URL") or DEFAULT_URL


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment with `additions`, for a program that it starts."""
    return {**_ENVIRONMENT, **additions}

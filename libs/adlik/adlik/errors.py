"""What can go wrong, as a caller sees it: an answer that says no, or no answer at all.

AdlikError            the mesh (or this machine) refused, with a code, a cause and a cure
└── ConnectionFailed  nothing answered at the URL
"""

from __future__ import annotations

from collections.abc import Mapping


class AdlikError(Exception):
    """A refusal in words, the same over HTTP, gRPC and in the mesh.

    Attributes:
        code: Stable name for programs, e.g. "INVALID_TENSOR".
        message: What was wrong and what was expected.
        cure: What the reader can do about it.
        retryable: Whether the same request may succeed a little later.
        details: Facts for programs, by name.
    """

    def __init__(
        self,
        code: str,
        message: str,
        cure: str = "",
        *,
        retryable: bool = False,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, cure)
        self.code = code
        self.message = message
        self.cure = cure
        self.retryable = retryable
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.cure}".rstrip()


class ConnectionFailed(AdlikError):
    """Nothing answered, or the answer broke off and did not come back in time."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            "CONNECTION_FAILED",
            f"No answer from {url}: {reason}.",
            "Start a mesh with `adlik up`, or give its address with --url or ADLIK_URL.",
            retryable=True,
        )

"""The decision, taken once per inference, whether it is traced."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})")
_SAMPLED = 1


class TraceSampler:
    """Follows the caller's decision; where there is none, picks a few a second.

    Args:
        per_second: Traces begun a second, at most and in the long run; as many may be saved up.
        clock: Seconds, never going back.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._burst = max(1.0, per_second) if per_second > 0 else 0.0
        self._tokens, self._filled_at = self._burst, clock()

    def traced(self, traceparent: str) -> bool:
        """Returns whether a request with this W3C traceparent ("": none) is traced."""
        if traceparent and (match := _TRACEPARENT.fullmatch(traceparent)):
            return bool(int(match[1], 16) & _SAMPLED)
        if self._tokens < 1.0:
            now = self._clock()
            saved = self._tokens + (now - self._filled_at) * self._per_second
            self._tokens, self._filled_at = min(self._burst, saved), now
            if self._tokens < 1.0:
                return False
        self._tokens -= 1.0
        return True

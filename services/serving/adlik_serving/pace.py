"""Whether a model is run on the event loop itself or handed to its thread, by measured run time."""

from __future__ import annotations

INLINE_BELOW_NS = 200_000
THREAD_ABOVE_NS = 400_000
_WEIGHT = 1 / 8


class Pace:
    """Follows the mean run time of a model, and chooses with hysteresis.

    Handing a run to a thread and back costs some 50 to 100 µs, more than a tiny model's run. A
    single slow run lifts the mean at once, so that a model that sometimes takes long does not hold
    up the event loop twice.

    Args:
        run_ns: A first measurement, from the warm-up, in nanoseconds.

    Attributes:
        mean_ns: Exponentially weighted mean of the run times, in nanoseconds.
        inline: Run on the event loop.
    """

    __slots__ = ("inline", "mean_ns")

    def __init__(self, run_ns: float) -> None:
        self.mean_ns = run_ns
        self.inline = run_ns < INLINE_BELOW_NS

    def ran(self, run_ns: int) -> None:
        """Takes the time of one run, in nanoseconds."""
        self.mean_ns += (run_ns - self.mean_ns) * _WEIGHT
        if self.inline:
            self.inline = self.mean_ns <= THREAD_ABOVE_NS
        else:
            self.inline = self.mean_ns < INLINE_BELOW_NS

"""Whether a model is run on the event loop itself or handed to its thread, by measured run time."""

from __future__ import annotations

INLINE_BELOW_NS = 200_000
THREAD_ABOVE_NS = 400_000
LOOK_BACK_RUNS = 16
_WEIGHT = 1 / 8


class Pace:
    """Follows the run times of a model, and chooses with hysteresis.

    Handing a run to a thread and back costs some 50 to 100 µs, more than a tiny model's run. A
    single slow run lifts the mean at once, so that a model that sometimes takes long does not hold
    up the event loop twice. On the thread a run's time has the wait for the interpreter in it,
    milliseconds while the loop is busy: there the fastest of the latest runs counts, or a tiny
    model that was disturbed once would never come back.

    Args:
        run_ns: A first measurement, from the warm-up, in nanoseconds.

    Attributes:
        mean_ns: Exponentially weighted mean of the run times on the loop, in nanoseconds.
        inline: Run on the event loop.
    """

    __slots__ = ("_fastest_ns", "_runs", "inline", "mean_ns")

    def __init__(self, run_ns: float) -> None:
        self.mean_ns = run_ns
        self.inline = run_ns < INLINE_BELOW_NS
        self._runs, self._fastest_ns = 0, float("inf")

    def ran(self, run_ns: int) -> None:
        """Takes the time of one run, in nanoseconds."""
        if self.inline:
            self.mean_ns += (run_ns - self.mean_ns) * _WEIGHT
            self.inline = self.mean_ns <= THREAD_ABOVE_NS
            return
        self._runs += 1
        self._fastest_ns = min(self._fastest_ns, run_ns)
        if self._runs < LOOK_BACK_RUNS:
            return
        if self._fastest_ns < INLINE_BELOW_NS:
            self.mean_ns, self.inline = self._fastest_ns, True
        self._runs, self._fastest_ns = 0, float("inf")

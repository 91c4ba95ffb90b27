"""The one tree of errors of the kernel library; it stands alone, so it has its own.

KernelError
├── InvalidOperand     an array whose shape, dtype, layout or memory an operator cannot take
├── InvalidSchedule    a schedule outside the space of its workload and machine
├── BuildFailed        code that LLVM rejects or dies of, code for another machine, an unsafe cache
├── MeasureFailed      a trial whose child crashed, hung or computed a wrong result
└── InvalidRecord      a line of the tuning database that does not follow its format
"""

from __future__ import annotations


class KernelError(Exception):
    """Something that the caller of a kernel should hear about in words.

    Args:
        message: What was wrong and what was expected.
        cure: What the reader can do about it.
    """

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".rstrip()


class InvalidOperand(KernelError, ValueError):
    """An array whose shape, dtype, layout or memory an operator cannot take."""


class InvalidSchedule(KernelError, ValueError):
    """A schedule outside the space of its workload and machine."""


class BuildFailed(KernelError):
    """Code that LLVM rejects or dies of, that is for another machine, or from an unsafe cache."""


class MeasureFailed(KernelError):
    """A trial whose child process crashed, hung or computed a wrong result."""


class InvalidRecord(KernelError, ValueError):
    """A line of the tuning database that does not follow its format."""

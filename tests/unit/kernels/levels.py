"""Instruction levels that tests run at: each above the machine's own is counted as not run."""

import pytest
from adlik_kernels.machine.target import LEVELS as ALL
from adlik_kernels.machine.target import host


def needs(level, *values):
    """A set of parameters that only machines of a level can run."""
    return pytest.param(*values, marks=pytest.mark.needs_level(level))


AVAILABLE = ALL[: ALL.index(host().level) + 1]
"""Levels that this machine can be masked to."""

LEVELS = [needs(level, level) for level in ALL]
"""Every level, as parameters of tests that are masked to them."""

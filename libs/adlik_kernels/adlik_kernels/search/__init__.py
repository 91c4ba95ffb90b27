"""Agents that look for a good schedule: they are asked for one, then told how fast it was."""

from __future__ import annotations

from adlik_kernels.search.annealing import Annealing
from adlik_kernels.search.evolution import Evolution
from adlik_kernels.search.learned import Learned
from adlik_kernels.search.plain import Grid, Random
from adlik_kernels.search.policy import Policy
from adlik_kernels.search.tuner import Agent, Trial, TuneResult, tune

__all__ = [
    "Agent",
    "Annealing",
    "Evolution",
    "Grid",
    "Learned",
    "Policy",
    "Random",
    "Trial",
    "TuneResult",
    "tune",
]

"""How operators without schedules reach their kernels: compiled once, then called and shared."""

from __future__ import annotations

import functools
import struct

import numpy as np

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.templates.layouts import Blocked, Layout, Transpose, layout_module
from adlik_kernels.templates.pooling import Pool, pool_module
from adlik_kernels.templates.quantized import Quantized, quantized_module
from adlik_kernels.templates.small import Map, Softmax, small_module

WORTH_SHARING = 200_000
"""Numbers above which a call is shared among threads."""

_NAMES = {np.dtype(name): name for name in ("float32", "uint8", "int8")}

Workload = Layout | Blocked | Transpose | Pool | Quantized | Map | Softmax


def name_of(array: object) -> str:
    """Returns the name of an array's element type, or "" for what is no array.

    `str(dtype)` takes some microseconds.

    Args:
        array: What the caller gave.
    """
    if not isinstance(array, np.ndarray):
        return ""
    return _NAMES.get(array.dtype) or str(array.dtype)


def run(workload: Workload, words: tuple[int, ...], numbers: int) -> None:
    """Runs an operator's kernel for this machine, which its first call compiles.

    Args:
        workload: What is computed.
        words: Its arguments, by the places that its template names.
        numbers: Numbers that are read or written, to decide whether to share the call.
    """
    pool = shared(configuration.threads())
    arguments = struct.pack(f"{len(words)}q", *words)
    chunks = pool.chunks if numbers >= WORTH_SHARING else 1
    pool.run(kernel_of(workload, configuration.target()).address, arguments, chunks)


@functools.lru_cache(maxsize=4096)
def kernel_of(workload: Workload, target: Target) -> Loaded:
    """Returns an operator's kernel, compiling it if no cache has it.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    name = type(workload).__name__.lower()

    def module() -> object:
        if isinstance(workload, Layout | Blocked | Transpose):
            return layout_module(workload, target.lanes)
        if isinstance(workload, Pool):
            return pool_module(workload, target.lanes)
        if isinstance(workload, Map | Softmax):
            return small_module(workload, target.lanes)
        return quantized_module(workload, target)

    return load(name, workload, module, target)

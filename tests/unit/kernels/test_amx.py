"""AMX kernels: run on emulated tiles, and compiled for a processor that has them."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels import Quantization, configuration, prepare_dense_int8
from adlik_kernels.codegen.tiles import EMULATED
from adlik_kernels.machine.target import host
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = {"emulated": replace(host(), level="amx", features=host().features | {EMULATED})}
if host().level == "amx":
    TARGETS["instructions"] = host()


@contextmanager
def on(mode):
    """Makes kernels for emulated tiles, or for this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "target", lambda: TARGETS[mode])
        yield


modes = pytest.mark.parametrize("mode", TARGETS)


@modes
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 90),
    depth=st.integers(1, 300),
    exact=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_int8_sums_are_exact(mode, rows, columns, depth, exact, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    w = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    with on(mode):
        layer = prepare_dense_int8(w, Quantization(1.0, 0, 1.0), rows=(rows,) if exact else ())
        got = layer(x)
    np.testing.assert_array_equal(got, x.astype(np.int64) @ w.astype(np.int64))

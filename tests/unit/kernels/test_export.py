"""A plan as a shared library: a C program runs it and says what Python says."""

import shutil
import subprocess

import numpy as np
import pytest
from adlik_kernels import BuildFailed, export_plan, load_plan

from .levels import LEVELS

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "tiny.h"
int main(void) {
  static float input[TINY_INPUT], output[TINY_OUTPUT];
  if (fread(input, sizeof(float), TINY_INPUT, stdin) != TINY_INPUT) return 2;
  void *arena = aligned_alloc(64, TINY_ARENA);
  tiny_prepare(arena);
  for (int again = 0; again < 2; again++)
    if (tiny_run(arena, input, output)) return 3;
  free(arena);
  fwrite(output, sizeof(float), TINY_OUTPUT, stdout);
  return 0;
}
"""


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_a_c_program_runs_a_plan(level, tmp_path, residual_network):
    plan = load_plan(residual_network.save(tmp_path / "model.onnx"))
    export_plan(plan, tmp_path / "out", "tiny", batch=2)
    x = np.random.default_rng(0).standard_normal((2, 3, 23, 19)).astype(np.float32)
    (tmp_path / "main.c").write_text(PROGRAM)
    include, library = f"-I{tmp_path / 'out'}", f"-L{tmp_path / 'out'}"
    rpath, program = f"-Wl,-rpath,{tmp_path / 'out'}", tmp_path / "main"
    sources = [tmp_path / "main.c", "-Wall", "-Werror", include, library]
    subprocess.run(["cc", *sources, rpath, "-ltiny", "-o", program], check=True)
    done = subprocess.run([program], input=x.tobytes(), capture_output=True, check=True)
    got = np.frombuffer(done.stdout, np.float32).reshape(2, 5)
    np.testing.assert_array_equal(got, plan(x))


@pytest.mark.parametrize("name", ["", "9lives", "a-b", "A", "x;y"])
def test_names_that_c_does_not_know_are_refused(name, tmp_path, residual_network):
    plan = load_plan(residual_network.save(tmp_path / "model.onnx"))
    with pytest.raises(BuildFailed, match="names in C"):
        export_plan(plan, tmp_path, name)


def test_a_missing_compiler_is_said(tmp_path, monkeypatch, residual_network):
    plan = load_plan(residual_network.save(tmp_path / "model.onnx"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BuildFailed, match="no C compiler"):
        export_plan(plan, tmp_path, "tiny")

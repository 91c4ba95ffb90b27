"""LLVM runs in a child: what ends it is an error in words, and the next kernel compiles."""

import os
import signal
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels import BuildFailed, configuration, load_plan, prepare_dense
from adlik_kernels.codegen import build
from adlik_kernels.codegen.compiler import Compiler
from adlik_kernels.codegen.emit import I32, VOID, Emitter, kernel_function, vector
from adlik_kernels.machine.target import host
from llvmlite import ir

from .machines import MACHINES


def module(name="", kind=None):
    """A kernel that does nothing, or calls something that takes and gives a value."""
    made = ir.Module("made")
    e = Emitter(kernel_function(made, "kernel"))
    if name:
        e.intrinsic(name, kind, [ir.Constant(kind, ir.Undefined)] * 2)
    e.builder.ret_void()
    return made


IMPOSSIBLE = """
declare <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32>, <16 x i32>)
define void @kernel(i64 %a, i64 %b, ptr %c) {
  %x = load <16 x i32>, ptr %c
  %y = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %x, <16 x i32> %x)
  store <32 x i16> %y, ptr %c
  ret void
}
"""
"""AVX-512 for a processor without: LLVM's fatal error, were it asked."""


@pytest.fixture
def compiler():
    made = Compiler()
    yield made
    made.close()


def test_a_fatal_error_of_llvm_is_an_error_here_and_the_next_kernel_compiles(compiler):
    with pytest.raises(BuildFailed, match=r"LLVM ended its process with SIGABRT.*LLVM ERROR"):
        compiler.compile(IMPOSSIBLE, MACHINES["avx2"])
    assert compiler.compile(IMPOSSIBLE, MACHINES["avx512"]).startswith(b"\x7fELF")
    assert compiler.compile(str(module()), MACHINES["avx2"]).startswith(b"\x7fELF")


def test_instructions_that_a_target_lacks_are_refused_before_llvm_sees_them(monkeypatch):
    monkeypatch.setattr(build, "_compiler", None)
    for compiled in (build.compile_module, build.machine_code):
        with pytest.raises(BuildFailed, match=r"packssdw.512, which needs avx512bw"):
            compiled(IMPOSSIBLE, MACHINES["avx2"])
    for name in ("llvm.x86.avx512.vpdpbusd.256", "llvm.x86.sse9.dream"):
        with pytest.raises(BuildFailed, match=r"avx512vl, avx512vnni|Nobody has said"):
            build.compile_module(str(module(name, vector(I32, 8))), MACHINES["avx2"])


def test_a_function_that_nobody_defines_is_found_before_the_code_is_loaded():
    """LLVM would link it to address 0, and calling it end the process."""
    made = module()
    e = Emitter(ir.Function(made, ir.FunctionType(VOID, []), "other"))
    e.intrinsic("adlik_nobody_defines_this", VOID, [])
    e.builder.ret_void()
    with pytest.raises(BuildFailed, match="adlik_nobody_defines_this"):
        build.load("unlinked", "unlinked", lambda: made, host())


def test_functions_of_the_c_library_are_known_from_the_first_kernel_on(compiler):
    made = module()
    e = Emitter(ir.Function(made, ir.FunctionType(VOID, []), "other"))
    for name in ("pthread_self", "memcpy", "sched_getcpu", "expf"):
        e.intrinsic(name, VOID, [])
    e.builder.ret_void()
    assert compiler.compile(str(made), host()).startswith(b"\x7fELF")


def test_a_kernel_without_its_functions_is_refused():
    with pytest.raises(BuildFailed, match="does not define all of kernel, run"):
        build.load("short", "short", module, host(), ("kernel", "run"))


@pytest.mark.parametrize("name", MACHINES)
def test_code_for_another_machine_is_compiled_and_not_run(name, monkeypatch):
    target = MACHINES[name]
    made = build.load("foreign", name, module, target)
    assert made.code.startswith(b"\x7fELF")
    if target.features <= host().features:
        assert made.address
        return
    monkeypatch.setattr(configuration, "target", lambda: target)
    for use in (lambda: made.address, lambda: prepare_dense(np.ones((7, 9), np.float32))):
        with pytest.raises(BuildFailed, match="this machine has no"):
            use()


@pytest.mark.parametrize("name", MACHINES)
def test_a_whole_plan_is_compiled_for_every_machine(name, monkeypatch, tmp_path, residual_network):
    """All kernels of a network, through LLVM's instruction selection, whatever this machine is."""
    monkeypatch.setattr(configuration, "target", lambda: MACHINES[name])
    plan = load_plan(residual_network.save(tmp_path / "model.onnx"))
    kernels = [step.kernel for step in plan.steps({"batch": 1})]
    assert len(kernels) > 5
    assert all(kernel.code.startswith(b"\x7fELF") for kernel in kernels)
    x = np.zeros((1, 3, 23, 19), np.float32)
    if MACHINES[name].features <= host().features:
        assert plan(x).shape == (1, 5)
        return
    with pytest.raises(BuildFailed, match="this machine has no"):
        plan(x)


CHILDREN = {
    "exits": ("raise SystemExit(3)", "the code 3"),
    "crashes": ("import os; os.abort()", "SIGABRT"),
    "speaks": ("import sys; sys.exit('no disk is left')", "no disk is left"),
    "hangs": ("import time; time.sleep(60)", "took more than 1 s"),
}


@pytest.mark.parametrize("fault", CHILDREN)
def test_a_child_that_fails_costs_a_kernel_and_no_more(fault):
    program, words = CHILDREN[fault]
    compiler = Compiler(patience=1.0, program=(sys.executable, "-c", program))
    for _ in range(2):
        with pytest.raises(BuildFailed, match=words):
            compiler.compile(IMPOSSIBLE * 500, host())  # more than a pipe holds
    compiler.close()


def test_a_program_that_is_not_there_is_said():
    with pytest.raises(BuildFailed, match="No process can be started"):
        Compiler(program=("/no/such/program",)).compile("", host())


def test_a_child_that_went_for_want_of_work_is_started_again(compiler):
    text, target = str(module()), host()
    first = compiler.compile(text, target)
    child = compiler._child
    os.kill(child.pid, signal.SIGSTOP)
    child.stdin.close()  # as if it had ended: its next look at the requests finds none
    os.kill(child.pid, signal.SIGCONT)
    child.wait()
    assert child.returncode == 0
    assert compiler.compile(text, target) == first


def test_threads_share_a_child(compiler):
    texts = [str(module()).replace("made", f"made{n}") for n in range(8)]
    found = {}

    def work(n):
        found[n] = compiler.compile(texts[n], host(), assembly=True)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))
    assert all(b"kernel" in code for code in found.values())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_compiles_in_a_child_of_its_own(compiler):
    text = str(module())
    first = compiler.compile(text, host())
    forked = os.fork()
    if not forked:
        compiler.forget()
        os._exit(0 if compiler.compile(text, host()) == first else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert compiler.compile(text, host()) == first


def test_a_target_that_claims_what_it_has_not_is_found_out(monkeypatch):
    """A level says how wide vectors are; instructions are chosen by features alone."""
    plain = replace(host(), level="amx")
    made = prepare_dense(np.ones((7, 9), np.float32))(np.ones((2, 7), np.float32))
    monkeypatch.setattr(configuration, "target", lambda: plain)
    wide = prepare_dense(np.ones((7, 9), np.float32))(np.ones((2, 7), np.float32))
    np.testing.assert_array_equal(made, wide)

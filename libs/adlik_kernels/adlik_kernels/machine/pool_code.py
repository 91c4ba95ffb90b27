"""The native code of a pool of threads: how a job is shared, waited for and slept between.

    run    one kernel, its chunks shared
    plan   kernels one after the other
    work   what a worker spends its life in
    stop   ends the workers

`pool` says what all this is for.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I32, I64, KERNEL_TYPE, POINTER, VOID, Emitter, Value

# Offsets into the state of a pool, in bytes; each word that several threads write has cache lines
# of its own.
GENERATION, GATE, TEAM, KERNEL, CHUNKS, ARGUMENTS, BUSY, SLEEPERS, STOP = (
    *(0, 128, 256),
    *(384, 392, 400),
    *(512, 640, 768),
)
AVOIDED, PLACED, THREADS, ALLOWED, MASK, SHARES = 896, 1024, 1032, 2048, 2176, 2304
SHARE_BYTES = 128
"""Of each thread: the next chunk of its share, and behind it the end of the share."""

CPU_WORDS, MOST_PLACED = 16, 100
"""Words of a set of cores, and workers whose cores are chosen."""

_OPEN = 1 << 62
_SPINS = 500
"""Looks at the generation before the worker begins to offer its core between looks."""

_LOOKS = 3000
"""Looks at the generation before the worker sleeps: about a millisecond on an idle machine.

A worker that sleeps at once is woken on its caller's core and never leaves it; one that stays
runnable is given a core of its own.
"""

_PATIENCE = 20000

_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE = 128, 129
_EVERY = 0x7FFFFFFF

SYSCALLS = {
    "x86_64": {"futex": 202, "yield": 24, "place": 203},
    "aarch64": {"futex": 98, "yield": 124, "place": 122},
}
"""Numbers of system calls, by the kind of processor."""


def pool_module() -> Any:
    """Returns the LLVM module with `run`, `plan`, `work` and `stop`."""
    module = ir.Module("pool")
    run = ir.Function(module, ir.FunctionType(VOID, [I64, I64, POINTER, I64]), "run")
    _write_run(Emitter(run))
    plan = ir.Function(module, ir.FunctionType(VOID, [I64, POINTER, I64]), "plan")
    _write_plan(Emitter(plan), run)
    work = ir.Function(module, ir.FunctionType(VOID, [I64, I64]), "work")
    _write_work(Emitter(work))
    stop = ir.Function(module, ir.FunctionType(VOID, [I64]), "stop")
    _write_stop(Emitter(stop))
    return module


def _write_run(e: Emitter) -> None:
    state, kernel, arguments, chunks = e.function.args
    b, state = e.builder, e.builder.inttoptr(state, POINTER)
    with e.when(e.less(chunks, 2)):
        _call(e, kernel, e.word(0), e.word(1), arguments)
        b.ret_void()
    taken = b.extract_value(
        b.cmpxchg(e.at(state, BUSY), e.word(0), e.word(1), "acq_rel", "acquire"), 1
    )
    with b.if_else(taken) as (then, otherwise):
        with then:
            _leave_my_core(e, state)
            e.store(kernel, e.at(state, KERNEL), 8)
            e.store(chunks, e.at(state, CHUNKS), 8)
            e.store(arguments, e.at(state, ARGUMENTS), 8)
            team = e.load(e.at(state, TEAM), I64, 8)
            first = e.variable(I64, e.word(0))
            with e.loop(0, team) as number:
                share, end = _share(e, state, number), e.div(e.mul(chunks, e.add(number, 1)), team)
                e.store(b.load(first), share, 8)  # the gate publishes it
                e.store(end, e.at(share, 8), 8)
                b.store(end, first)
            _set(e, state, GATE, _OPEN)
            b.atomic_rmw("add", e.at(state, GENERATION), e.word(1), "seq_cst")
            with e.when(e.less(0, _get(e, state, SLEEPERS))):
                _futex(e, state, _FUTEX_WAKE_PRIVATE, e.sub(chunks, 1))
            _take_chunks(e, state, e.word(0), (kernel, chunks, arguments))
            b.atomic_rmw("and", e.at(state, GATE), e.word(~_OPEN), "acq_rel")
            _await_empty_gate(e, state)
            _set(e, state, BUSY, 0)
        with otherwise, e.loop(0, chunks) as chunk:
            _call(e, kernel, chunk, chunks, arguments)
    b.ret_void()


def _leave_my_core(e: Emitter, state: Value) -> None:
    """Moves the workers off the caller's core whenever the caller has come to another one.

    The system wakes a worker on the core of the thread that wakes it, where it would wait for that
    very thread to stop.
    """
    b = e.builder
    placed = e.load(e.at(state, PLACED), I64, 8)
    with e.when(e.less(0, placed)):
        core = b.sext(e.intrinsic("sched_getcpu", I32, []), I64)
        avoided = e.load(e.at(state, AVOIDED), I64, 8)
        with e.when(b.icmp_signed("!=", core, avoided)):
            e.store(core, e.at(state, AVOIDED), 8)
            with e.loop(0, CPU_WORDS) as word:
                every = e.load(e.at(state, e.add(e.mul(word, 8), ALLOWED)), I64, 8)
                e.store(every, e.at(state, e.add(e.mul(word, 8), MASK)), 8)
            mine = e.at(state, e.add(e.mul(e.div(core, 64), 8), MASK))
            bit = b.shl(e.word(1), e.rem(core, 64))
            e.store(b.and_(e.load(mine, I64, 8), b.not_(bit)), mine, 8)
            with e.loop(0, placed) as number:
                thread = e.load(e.at(state, e.add(e.mul(number, 8), THREADS)), I64, 8)
                size = e.word(8 * CPU_WORDS)
                _syscall(e, "place", [thread, size, e.at(state, MASK)])


def _write_plan(e: Emitter, run: Any) -> None:
    state, operations, count = e.function.args
    with e.loop(0, count) as index:
        operation = e.at(operations, e.mul(index, 24))
        kernel, chunks = (e.load(e.at(operation, offset), I64, 8) for offset in (0, 16))
        arguments = e.load(e.at(operation, 8), POINTER, 8)
        e.builder.call(run, [state, kernel, arguments, chunks])
    e.builder.ret_void()


def _write_work(e: Emitter) -> None:
    """Sleep until the generation moves, enter the gate if it is open, take chunks, leave."""
    b, number = e.builder, e.function.args[1]
    state = b.inttoptr(e.function.args[0], POINTER)
    seen = e.variable(I64, _get(e, state, GENERATION))
    again = e.function.append_basic_block("again")
    b.branch(again)
    b.position_at_end(again)
    with e.when(b.icmp_signed("!=", _get(e, state, STOP), e.word(0))):
        b.ret_void()
    generation = _spin(e, state, b.load(seen))
    with e.when(b.icmp_signed("==", generation, b.load(seen))):
        b.atomic_rmw("add", e.at(state, SLEEPERS), e.word(1), "seq_cst")
        _futex(e, state, _FUTEX_WAIT_PRIVATE, generation)
        b.atomic_rmw("sub", e.at(state, SLEEPERS), e.word(1), "seq_cst")
        b.branch(again)
    b.store(generation, seen)
    enter = e.function.append_basic_block("enter")
    b.branch(enter)
    b.position_at_end(enter)
    gate = _get(e, state, GATE)
    with e.when(e.less(gate, _OPEN)):
        b.branch(again)
    entered = b.cmpxchg(e.at(state, GATE), gate, e.add(gate, 1), "acq_rel", "acquire")
    inside = e.function.append_basic_block("inside")
    b.cbranch(b.extract_value(entered, 1), inside, enter)
    b.position_at_end(inside)
    kernel, chunks = (e.load(e.at(state, offset), I64, 8) for offset in (KERNEL, CHUNKS))
    arguments = e.load(e.at(state, ARGUMENTS), POINTER, 8)
    _take_chunks(e, state, number, (kernel, chunks, arguments))
    b.atomic_rmw("sub", e.at(state, GATE), e.word(1), "acq_rel")
    b.branch(again)


def _write_stop(e: Emitter) -> None:
    state = e.builder.inttoptr(e.function.args[0], POINTER)
    _set(e, state, STOP, 1)
    e.builder.atomic_rmw("add", e.at(state, GENERATION), e.word(1), "seq_cst")
    _futex(e, state, _FUTEX_WAKE_PRIVATE, e.word(_EVERY))
    e.builder.ret_void()


def _take_chunks(e: Emitter, state: Value, number: Value, job: tuple[Value, Value, Value]) -> None:
    """Calls a kernel for what is left of a thread's own share of chunks, then of the others'."""
    kernel, chunks, arguments = job
    b, team = e.builder, e.load(e.at(state, TEAM), I64, 8)
    with e.loop(0, team) as turn:
        whose = e.add(number, turn)
        whose = b.select(e.less(whose, team), whose, e.sub(whose, team))
        share = _share(e, state, whose)
        end = e.load(e.at(share, 8), I64, 8)
        head, more, body, done = (
            e.function.append_basic_block(name) for name in ("take", "more", "chunk", "taken")
        )
        b.branch(head)
        b.position_at_end(head)
        left = e.less(b.load_atomic(share, "acquire", 8, typ=I64), end)
        b.cbranch(left, more, done)
        b.position_at_end(more)
        chunk = b.atomic_rmw("add", share, e.word(1), "acq_rel")
        b.cbranch(e.less(chunk, end), body, done)
        b.position_at_end(body)
        _call(e, kernel, chunk, chunks, arguments)
        b.branch(head)
        b.position_at_end(done)


def _share(e: Emitter, state: Value, number: Value) -> Value:
    return e.at(state, e.add(e.mul(number, SHARE_BYTES), SHARES))


def _spin(e: Emitter, state: Value, seen: Value) -> Value:
    """Looks at the generation until it moves or patience ends; returns the last one seen."""
    b = e.builder
    start, head, done = b.block, *(e.function.append_basic_block(n) for n in ("spin", "spun"))
    b.branch(head)
    b.position_at_end(head)
    left = b.phi(I64)
    left.add_incoming(e.word(_LOOKS), start)
    _pause(e)
    with e.when(e.less(left, _LOOKS - _SPINS)):
        _syscall(e, "yield", [])
    generation = _get(e, state, GENERATION)
    fewer = e.sub(left, 1)
    left.add_incoming(fewer, b.block)
    waiting = b.and_(b.icmp_signed("==", generation, seen), e.less(0, fewer))
    b.cbranch(waiting, head, done)
    b.position_at_end(done)
    return generation


def _await_empty_gate(e: Emitter, state: Value) -> None:
    """Waits for the workers inside; gives the core away if that takes long."""
    b = e.builder
    start, head, done = b.block, *(e.function.append_basic_block(n) for n in ("wait", "waited"))
    b.branch(head)
    b.position_at_end(head)
    turns = b.phi(I64)
    turns.add_incoming(e.word(0), start)
    _pause(e)
    gate = _get(e, state, GATE)
    with e.when(e.less(_PATIENCE, turns)):
        _syscall(e, "yield", [])
    turns.add_incoming(e.add(turns, 1), b.block)
    b.cbranch(b.icmp_signed("!=", gate, e.word(0)), head, done)
    b.position_at_end(done)


def _call(e: Emitter, kernel: Value, chunk: Value, chunks: Value, arguments: Value) -> None:
    function = e.builder.inttoptr(kernel, KERNEL_TYPE.as_pointer())
    e.builder.call(function, [chunk, chunks, arguments])


def _get(e: Emitter, state: Value, offset: int) -> Value:
    return e.builder.load_atomic(e.at(state, offset), "acquire", 8, typ=I64)


def _set(e: Emitter, state: Value, offset: int, value: int) -> None:
    e.builder.atomic_rmw("xchg", e.at(state, offset), e.word(value), "acq_rel")


def _pause(e: Emitter) -> None:
    if platform.machine() == "x86_64":
        e.intrinsic("llvm.x86.sse2.pause", VOID, [])


def _futex(e: Emitter, state: Value, action: int, value: Value) -> None:
    nothing = e.word(0)
    address = e.at(state, GENERATION)
    _syscall(e, "futex", [address, e.word(action), value, nothing, nothing, nothing])


def _syscall(e: Emitter, name: str, arguments: Sequence[Value]) -> None:
    number = SYSCALLS.get(platform.machine(), SYSCALLS["x86_64"])[name]
    found = e.module.globals.get("syscall")
    if found is None:
        found = ir.Function(e.module, ir.FunctionType(I64, [I64], var_arg=True), "syscall")
    e.builder.call(found, [e.word(number), *arguments])

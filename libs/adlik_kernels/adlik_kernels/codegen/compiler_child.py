"""The child that runs LLVM: a fatal error of LLVM's ends this process and no other.

It is started as a file, imports nothing of the package, and answers one request after the other:
see `compiler` for the parent. What it emits it also links, as a rehearsal: what cannot be linked
would otherwise end the process that loads the code.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any, BinaryIO

import llvmlite.binding as llvm

IDLE_SECONDS = 60.0
"""Time without requests after which the child ends, and gives its memory back."""


def emitted(request: dict[str, Any], text: str) -> bytes:
    """Returns the object file, or the assembly, of a module.

    Args:
        request: `cpu`, `features` (names of those that may be used), `optimize` and `assembly`.
        text: LLVM assembly.

    Raises:
        RuntimeError: LLVM rejects the text, or it calls a function that is nowhere.
    """
    module = llvm.parse_assembly(text)
    module.verify()
    _check_calls(module)
    machine = _machine(request["cpu"], frozenset(request["features"]))
    if request["optimize"]:
        _optimize(module, machine)
    if request["assembly"]:
        return str(machine.emit_assembly(module)).encode()
    code: bytes = machine.emit_object(module)
    _rehearse(code)
    return code


def _check_calls(module: Any) -> None:
    """LLVM would link what nobody defines to address 0."""
    called = (function.name for function in module.functions if function.is_declaration)
    for name in called:
        if not name.startswith("llvm.") and not llvm.address_of_symbol(name):
            raise RuntimeError(f"nobody defines the function {name}")


def _machine(cpu: str, features: frozenset[str]) -> Any:
    known = llvm.get_host_cpu_features()
    marked = ",".join(f"{'+' if name in features else '-'}{name}" for name in known)
    return llvm.Target.from_default_triple().create_target_machine(
        # 256-bit preference would split the 512-bit vectors that the templates write.
        cpu=cpu,
        features=f"{marked},-prefer-256-bit",
        opt=3,
        reloc="pic",
    )


def _optimize(module: Any, machine: Any) -> None:
    """Loops are written out and vectors chosen by the templates: LLVM shall not do so again."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)


def _engine() -> Any:
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _rehearse(code: bytes) -> None:
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers requests until there are no more, or none for a while."""
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        text = requests.read(request["size"]).decode()
        try:
            reply, content = {"error": ""}, emitted(request, text)
        except RuntimeError as error:  # llvmlite's one class for what LLVM rejects
            reply, content = {"error": str(error) or "no reason was given"}, b""
        replies.write(json.dumps({**reply, "size": len(content)}).encode() + b"\n" + content)
        replies.flush()


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what LLVM prints is not a reply
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    _engine()  # the first one makes the C library's functions known to `address_of_symbol`
    _serve(sys.stdin.buffer, replies)
    os._exit(0)  # the loaded rehearsals need no farewell


if __name__ == "__main__":
    _main()

"""From an LLVM module to an address: compile, keep the object file, load it; never compile twice.

LLVM emits code in a child process (`compiler`), for it ends its process where it cannot.

Object files are code: the cache must be a folder that only its owner can write to, or nothing is
loaded from it.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from adlik_kernels.codegen.compiler import Compiler
from adlik_kernels.codegen.instructions import check_instructions
from adlik_kernels.codegen.tiles import EMULATED
from adlik_kernels.configuration import configured
from adlik_kernels.errors import BuildFailed
from adlik_kernels.machine.target import Target, host

_GENERATORS = ("codegen", "templates", "operators", "machine", "schedules", "workload.py")
"""Folders and modules that write code or decide how it looks."""

_DIGEST = hashlib.sha256().digest_size
"""Bytes of the digest behind each kept object: loading a damaged one would end the process."""

_lock = threading.Lock()
_loaded: dict[str, Loaded] = {}
_compiler = Compiler()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Code in memory, or for another machine.

    Attributes:
        addresses: Addresses of its public functions, by name; none where this machine lacks what
            the code needs.
        symbol: Name of its `kernel` in the object file, which no other object has.
        code: The object file.
        engine: What keeps the code in memory; held for the life of the process.
        missing: Features that the code may use and this machine lacks.
    """

    addresses: dict[str, int]
    symbol: str
    code: bytes
    engine: Any
    missing: tuple[str, ...] = ()

    @property
    def address(self) -> int:
        """Address of its `kernel`.

        Raises:
            BuildFailed: The code is for another machine: it can be exported, not run.
        """
        if self.missing:
            raise BuildFailed(
                f"{self.symbol} cannot run here: this machine has no {', '.join(self.missing)}.",
                cure="Run it on a machine that has, or compile it for this one.",
            )
        return self.addresses["kernel"]


def load(
    name: str,
    facts: object,
    module: Callable[[], Any],
    target: Target,
    functions: tuple[str, ...] = ("kernel",),
) -> Loaded:
    """Returns loaded code, from memory, from the cache on disk, or compiled now.

    Code for a machine that has more than this one is compiled, for export, and not loaded.

    Args:
        name: A readable beginning of the object file's name.
        facts: Whatever decides how the code looks; it must have a `repr` that says so.
        module: Writes the LLVM module; called only when there is nothing in the cache.
        target: The machine.
        functions: The module's public functions.

    Raises:
        BuildFailed: LLVM rejects the module, or the cache folder can be written by others.
    """
    key = cache_key(name, facts, target)
    with _lock:
        found = _loaded.get(key)
        if found is None:
            code = object_code(key, module, target)
            if missing := missing_features(target):
                found = Loaded({}, symbol(key), code, None, missing)
            else:
                found = _link(key, code, functions)
            _loaded[key] = found
    return found


def missing_features(target: Target) -> tuple[str, ...]:
    """Returns what code for a target may use and this machine lacks; such code is never run."""
    return tuple(sorted(target.features - host().features - {EMULATED}))


def object_code(key: str, module: Callable[[], Any], target: Target) -> bytes:
    """Returns the object file of a module, from the cache on disk or compiled now."""
    folder = private_folder(configured().cache / "objects")
    path = folder / f"{key}.o"
    kept = path.read_bytes() if path.exists() else b""
    code, digest = kept[:-_DIGEST], kept[-_DIGEST:]
    if digest != hashlib.sha256(code).digest():
        _compiler.start()
        text = str(module()).replace('@"kernel"', f'@"{symbol(key)}"')
        code = compile_module(text, target)
        write_atomically(path, code + hashlib.sha256(code).digest())
    return code


def cache_key(name: str, facts: object, target: Target) -> str:
    """Returns the name under which code is kept: it changes with anything that changes the code."""
    told = json.dumps(
        [
            repr(facts),
            target.cpu,
            sorted(target.features),
            target.level,
            list(llvm.llvm_version_info),
            _generator_digest(),
        ]
    )
    return f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def compile_module(text: str, target: Target) -> bytes:
    """Compiles LLVM assembly to an object file, in a child process.

    Raises:
        BuildFailed: The text names instructions that the target lacks; or LLVM rejects it, or ends
            its process.
    """
    check_instructions(text, target)
    return _compiler.compile(text, target)


def machine_code(text: str, target: Target, *, optimize: bool = True) -> str:
    """Compiles LLVM assembly to the machine's own, for people to read.

    Args:
        text: LLVM assembly.
        target: The machine it is for.
        optimize: Whether LLVM may rewrite the module first, as it does for object files.

    Raises:
        BuildFailed: As for `compile_module`.
    """
    check_instructions(text, target)
    return _compiler.compile(text, target, assembly=True, optimize=optimize).decode()


def private_folder(path: Path) -> Path:
    """Makes a folder that only its owner can write to, or checks that it is one.

    Raises:
        BuildFailed: Somebody else owns the folder or can write to it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BuildFailed(
            f"{path} can be written by others: code from it is not safe to load.",
            cure="Make the folder your own alone, or configure another cache.",
        )
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that other processes see all of it or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_bytes(content)
    draft.replace(path)


def symbol(key: str) -> str:
    """Returns the name of the function `kernel` of a cached object."""
    return "adlik_" + "".join(letter if letter.isalnum() else "_" for letter in key)


def _link(key: str, code: bytes, functions: tuple[str, ...]) -> Loaded:
    _initialize()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    names = {name: symbol(key) if name == "kernel" else name for name in functions}
    addresses = {name: engine.get_function_address(found) for name, found in names.items()}
    if not all(addresses.values()):
        raise BuildFailed(
            f"{key} does not define all of {', '.join(functions)}.",
            cure="This is a fault of the template.",
        )
    return Loaded(addresses, symbol(key), code, engine)


@functools.cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _generator_digest() -> str:
    """Digest of the modules that write code: a change in one makes every cached object stale."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in _GENERATORS:
        place = package / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


atexit.register(_compiler.close)
os.register_at_fork(after_in_child=_compiler.forget)

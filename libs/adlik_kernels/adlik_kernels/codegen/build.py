"""From an LLVM module to an address: compile, keep the object file, load it; never compile twice.

Object files are code: the cache must be a folder that only its owner can write to, or nothing is
loaded from it.
"""

from __future__ import annotations

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

from adlik_kernels.configuration import configured
from adlik_kernels.errors import BuildFailed
from adlik_kernels.machine.target import Target

_GENERATORS = ("codegen", "templates", "operators", "machine", "schedules", "workload.py")
"""Folders and modules that write code or decide how it looks."""

_DIGEST = hashlib.sha256().digest_size
"""Bytes of the digest behind each kept object: loading a damaged one would end the process."""

_lock = threading.Lock()
_loaded: dict[str, Loaded] = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Code in memory.

    Attributes:
        addresses: Addresses of its public functions, by name.
        symbol: Name of its `kernel` in the object file, which no other object has.
        code: The object file.
        engine: What keeps the code in memory; held for the life of the process.
    """

    addresses: dict[str, int]
    symbol: str
    code: bytes
    engine: Any

    @property
    def address(self) -> int:
        """Address of its `kernel`."""
        return self.addresses["kernel"]


def load(
    name: str,
    facts: object,
    module: Callable[[], Any],
    target: Target,
    functions: tuple[str, ...] = ("kernel",),
) -> Loaded:
    """Returns loaded code, from memory, from the cache on disk, or compiled now.

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
            found = _link(key, object_code(key, module, target), functions)
            _loaded[key] = found
    return found


def object_code(key: str, module: Callable[[], Any], target: Target) -> bytes:
    """Returns the object file of a module, from the cache on disk or compiled now."""
    folder = private_folder(configured().cache / "objects")
    path = folder / f"{key}.o"
    kept = path.read_bytes() if path.exists() else b""
    code, digest = kept[:-_DIGEST], kept[-_DIGEST:]
    if digest != hashlib.sha256(code).digest():
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
    """Compiles LLVM assembly to an object file.

    Raises:
        BuildFailed: LLVM rejects the text.
    """
    module, machine = _optimized(text, target)
    code: bytes = machine.emit_object(module)
    return code


def machine_code(text: str, target: Target) -> str:
    """Compiles LLVM assembly to the machine's own, for people to read.

    Raises:
        BuildFailed: LLVM rejects the text.
    """
    module, machine = _optimized(text, target)
    return str(machine.emit_assembly(module))


def _optimized(text: str, target: Target) -> tuple[Any, Any]:
    """Loops are written out and vectors chosen by the templates: LLVM shall not do so again."""
    _initialize()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise BuildFailed(
            f"LLVM rejects a generated kernel: {error}", cure="This is a fault of the template."
        ) from error
    machine = _machine(target)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module, machine


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
    return Loaded(addresses, symbol(key), code, engine)


def _machine(target: Target) -> Any:
    known = llvm.get_host_cpu_features()
    features = ",".join(f"{'+' if name in target.features else '-'}{name}" for name in known)
    return llvm.Target.from_default_triple().create_target_machine(
        # 256-bit preference would split the 512-bit vectors that the templates write.
        cpu=target.cpu,
        features=f"{features},-prefer-256-bit",
        opt=3,
        reloc="pic",
    )


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

"""The tiles of AMX: eight registers of 16 rows of 64 bytes, what each holds, how they are spelled.

Intel, "Architecture Instruction Set Extensions Programming Reference", chapter 3. The numbers of
tiles are part of the instructions, and how many rows and bytes of each count is set by a
configuration of 64 bytes, which one instruction loads and which is valid until the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I8, VOID, Emitter, Value
from adlik_kernels.machine.target import Target

TILES = 8
"""Tile registers of a thread."""

TILE_ROWS, TILE_BYTES = 16, 64
"""Rows of a tile, and bytes of a row, at most."""

STEP = 16
"""32-bit words along k that one instruction multiplies: a whole row of a tile of x."""

EMULATED = "amx-emulated"
"""A feature that no processor has: tests give it to a target to run AMX kernels without AMX."""

PRODUCTS = {"int8": "tdpbusd", "bf16": "tdpbf16ps"}
"""The instruction that multiplies tiles, by element type."""


def uses_tiles(dtype: str, target: Target) -> bool:
    """Returns whether products of an element type are computed with AMX on a machine.

    Args:
        dtype: One of `isa.DTYPES`, or any other.
        target: The machine, possibly masked.
    """
    if target.level != "amx" or dtype not in PRODUCTS:
        return False
    return EMULATED in target.features or {"amx-tile", f"amx-{dtype}"} <= target.features


@dataclass(frozen=True, slots=True)
class TileLayout:
    """What the tile registers hold while a block of the result is computed.

    A block of more than 16 rows is cut into parts of one height. Where it does not divide evenly
    the last part overlaps the one before, and the shared rows are computed twice: all parts then
    have one configuration.

    Attributes:
        rows: Rows of the block.
        vectors: Vectors of 16 columns.
        tail: 32-bit words along k behind the last whole 16.
    """

    rows: int
    vectors: int
    tail: int = 0

    @property
    def parts(self) -> int:
        """Tiles of rows."""
        return -(-self.rows // TILE_ROWS)

    @property
    def height(self) -> int:
        """Rows of each part."""
        return -(-self.rows // self.parts)

    @property
    def starts(self) -> list[int]:
        """The first row of each part."""
        return [min(part * self.height, self.rows - self.height) for part in range(self.parts)]

    @property
    def tiles(self) -> int:
        """Tile registers that the block needs at least: sums, x and w, and tails of x and w."""
        return self.parts * self.vectors + (4 if self.tail else 2)

    @property
    def held(self) -> tuple[int, int]:
        """Parts of x and vectors of w that are held at the same time."""
        free = TILES - self.parts * self.vectors - (2 if self.tail else 0)
        of_x = min(self.parts, free - 1)
        return of_x, min(self.vectors, free - of_x)

    def sums(self, part: int, vector: int) -> int:
        """The register of the sums of a part and a vector."""
        return part * self.vectors + vector

    def of_x(self, part: int) -> int:
        """The register of a part of x."""
        return self.parts * self.vectors + part % self.held[0]

    def of_w(self, vector: int) -> int:
        """The register of a vector of w."""
        return self.parts * self.vectors + self.held[0] + vector % self.held[1]

    @property
    def tail_of_x(self) -> int:
        """The register of the last words of x."""
        return self.parts * self.vectors + sum(self.held)

    @property
    def tail_of_w(self) -> int:
        """The register of the last words of w."""
        return self.tail_of_x + 1

    def configuration(self, height: int) -> bytes:
        """Returns the 64 bytes that `ldtilecfg` reads, for parts of a height.

        Args:
            height: Rows of a part, 1 to 16; a tail of rows has fewer than the block.
        """
        x, w = self.held
        shapes = [(height, TILE_BYTES)] * (self.parts * self.vectors + x)
        shapes += [(TILE_ROWS, TILE_BYTES)] * w
        if self.tail:
            shapes += [(height, 4 * self.tail), (self.tail, TILE_BYTES)]
        block = bytearray(64)
        block[0] = 1  # the only palette there is
        for number, (rows, row_bytes) in enumerate(shapes):
            block[16 + 2 * number] = row_bytes
            block[48 + number] = rows
        return bytes(block)


def number(tile: int) -> Any:
    """Returns the number of a tile as instructions have it."""
    return ir.Constant(I8, tile)


def instruct(e: Emitter, name: str, arguments: list[Value], *, emulated: bool) -> None:
    """Writes one AMX instruction, or a call of its emulation.

    Args:
        e: Where to write.
        name: LLVM's name of the instruction, such as "tileloadd64".
        arguments: Its operands, numbers of tiles first.
        emulated: Whether `tile_emulation` stands in for the instruction.
    """
    if emulated:
        e.builder.call(e.module.globals[f"emulated_{name}"], arguments)
    else:
        e.intrinsic(f"llvm.x86.{name}", VOID, arguments)


def configure(e: Emitter, layout: TileLayout, height: int, *, emulated: bool) -> None:
    """Writes the instruction that configures all tiles for parts of a height; it clears them."""
    name = f"tiles_{height}"
    found = e.module.globals.get(name)
    if found is None:
        content = bytearray(layout.configuration(height))
        kind = ir.ArrayType(I8, len(content))
        found = ir.GlobalVariable(e.module, kind, name)
        found.linkage, found.global_constant, found.align = "internal", True, 64
        found.initializer = ir.Constant(kind, content)
    pointer = e.at(found, 0)
    instruct(e, "ldtilecfg", [pointer], emulated=emulated)

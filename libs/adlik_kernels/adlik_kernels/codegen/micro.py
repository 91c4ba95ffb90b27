"""The choice of a kernel's micro-kernels: on vector registers, or on the tiles of AMX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from adlik_kernels.codegen.amx import AmxTiles
from adlik_kernels.codegen.emit import Emitter
from adlik_kernels.codegen.isa import Dot, dot_of
from adlik_kernels.codegen.levels import packs
from adlik_kernels.codegen.tile import Tile
from adlik_kernels.codegen.tiles import EMULATED, STEP, TILES, TileLayout, uses_tiles
from adlik_kernels.codegen.ukernel import write_tile
from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.machine.target import Target
from adlik_kernels.workload import Fused


class MicroKernels(Protocol):
    """The micro-kernels of one kernel, and what they need around them."""

    @property
    def overlap(self) -> bool:
        """Whether the last of a row's tiles should overlap its neighbour, not have fewer rows."""

    def begin(self, e: Emitter) -> None:
        """Writes what comes before the first micro-kernel of a chunk."""

    def end(self, e: Emitter) -> None:
        """Writes what comes behind the last one."""

    def write(self, module: Any, tile: Tile) -> Any:
        """Writes a micro-kernel as a private function of a module and returns the function."""


@dataclass(frozen=True, slots=True)
class VectorTiles:
    """Micro-kernels whose sums stay in vector registers: `ukernel.write_tile`."""

    workload: Fused
    dot: Dot
    lanes: int
    packs: bool

    @property
    def overlap(self) -> bool:
        """Fewer rows cost less."""
        return False

    def begin(self, e: Emitter) -> None:
        """Nothing: vector registers are there."""

    def end(self, e: Emitter) -> None:
        """Nothing."""

    def write(self, module: Any, tile: Tile) -> Any:
        """Writes a micro-kernel as a private function of a module and returns the function."""
        return write_tile(module, tile, self.workload, self.dot, self.lanes, packs=self.packs)


def micro_kernels(
    workload: Fused, block: tuple[int, int], words: int, target: Target
) -> MicroKernels:
    """Returns the micro-kernels of a kernel: on tiles for int8 and bf16 where there is AMX.

    Args:
        workload: The product they are part of.
        block: Rows and vectors of the largest block of the result.
        words: 32-bit words along k that lie one behind the other.
        target: The machine.

    Raises:
        InvalidSchedule: The block needs more tiles than there are.
    """
    dot = dot_of(workload.dtype, target)
    if not uses_tiles(workload.dtype, target):
        return VectorTiles(workload, dot, target.lanes, packs(target))
    layout = TileLayout(*block, tail=words % STEP)
    if layout.tiles > TILES:
        raise InvalidSchedule(f"A block of {block} needs {layout.tiles} of {TILES} tiles.")
    return AmxTiles(workload, dot, layout, EMULATED in target.features, packs(target))

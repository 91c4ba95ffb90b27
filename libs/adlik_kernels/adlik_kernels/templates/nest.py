"""The loops around tiles that products and convolutions share: panels, blocks of rows, chunks."""

from __future__ import annotations

from collections.abc import Callable

from adlik_kernels.codegen.emit import Emitter, Value
from adlik_kernels.schedules.schedule import Schedule


def walk(
    e: Emitter, schedule: Schedule, blocks: Value, panels: int, body: Callable[[Value, Value], None]
) -> None:
    """Writes the loops over the panels and blocks of rows that belong to this chunk.

    Args:
        e: Writes a kernel, whose arguments say which chunk it is of how many.
        schedule: What chunks share, and which loop is the outer one.
        blocks: Blocks of rows.
        panels: Panels of columns.
        body: Writes what is done for a panel and a block.
    """
    if schedule.parallel == "blocks":
        with e.loop(*own_share(e, e.mul(blocks, panels))) as index:
            if schedule.order == "columns":
                body(e.div(index, blocks), e.rem(index, blocks))
            else:
                body(e.rem(index, panels), e.div(index, panels))
        return
    by_rows = schedule.parallel == "rows"
    row_range = own_share(e, blocks) if by_rows else (e.word(0), blocks)
    panel_range = (0, panels) if by_rows else own_share(e, e.word(panels))
    if schedule.order == "columns":
        with e.loop(*panel_range) as panel, e.loop(*row_range) as block:
            body(panel, block)
    else:
        with e.loop(*row_range) as block, e.loop(*panel_range) as panel:
            body(panel, block)


def own_share(e: Emitter, total: Value) -> tuple[Value, Value]:
    """Returns the first of `total` pieces of work that belongs to this chunk, and the one behind.

    Args:
        e: Writes a kernel.
        total: Pieces of work.
    """
    chunk, chunks, _ = e.function.args
    return e.div(e.mul(total, chunk), chunks), e.div(e.mul(total, e.add(chunk, 1)), chunks)


def each_panel(
    e: Emitter, number: Value, panels: int, widths: tuple[int, int], body: Callable[[int], None]
) -> None:
    """Writes what is done for a panel twice: for whole ones, and for the last, narrower one.

    Args:
        e: Writes a kernel.
        number: Number of the panel.
        panels: How many there are.
        widths: Columns of whole panels, and of the last.
        body: Writes what is done, given the columns.
    """
    whole, last = widths
    if last == whole or panels == 1:
        body(last)
        return
    with e.builder.if_else(e.less(number, panels - 1)) as (then, otherwise):
        with then:
            body(whole)
        with otherwise:
            body(last)

"""Pictures of figures as SVG, written by hand: no library is needed to draw or to look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#000000")
"""Paul Tol's bright scheme, which colour-blind readers can tell apart."""

WIDTH, HEIGHT, MARGIN = 420, 280, 46
"""Points of one panel, and the room for its labels."""

Curve = Sequence[tuple[float, float, float, float]]
"""Points (x, y, least y, most y) of one line and the band around it."""


def curves(panels: dict[str, dict[str, Curve]], x_label: str, lowest: float) -> str:
    """Draws a panel for each subject, with a line and its spread for each contender.

    Args:
        panels: Curves by contender, by subject.
        x_label: What x is.
        lowest: The bottom of y; the top is 1.
    """
    drawn = []
    for place, (name, found) in enumerate(panels.items()):
        panel = _curve_panel(name, found, x_label, lowest)
        drawn.append(f'<g transform="translate({place * WIDTH},0)">{panel}</g>')
    names = list(next(iter(panels.values())))
    legend = _legend(names, HEIGHT)
    return _page(WIDTH * len(panels), HEIGHT + 24, "".join(drawn) + legend)


def _curve_panel(title: str, found: dict[str, Curve], x_label: str, lowest: float) -> str:
    right = max(point[0] for curve in found.values() for point in curve)
    x = _scale(0.0, right, MARGIN, WIDTH - 10)
    y = _scale(lowest, 1.0, HEIGHT - MARGIN, 24)
    parts = [_text(WIDTH / 2, 14, title, "middle"), _text(WIDTH / 2, HEIGHT - 8, x_label, "middle")]
    for step in range(6):
        level = lowest + (1 - lowest) * step / 5
        parts.append(_rule(MARGIN, y(level), WIDTH - 10, y(level)))
        parts.append(_text(MARGIN - 4, y(level) + 4, f"{level:.2f}", "end"))
        across = right * step / 5
        parts.append(_text(x(across), HEIGHT - MARGIN + 14, f"{across:.0f}", "middle"))
    for colour, curve in zip(COLOURS, found.values(), strict=False):
        kept = [tuple(max(value, lowest) for value in point[1:]) for point in curve]
        places = [x(point[0]) for point in curve]
        upper = [f"{p:.1f},{y(k[2]):.1f}" for p, k in zip(places, kept, strict=True)]
        lower = [f"{p:.1f},{y(k[1]):.1f}" for p, k in zip(places, kept, strict=True)]
        line = [f"{p:.1f},{y(k[0]):.1f}" for p, k in zip(places, kept, strict=True)]
        band = " ".join(upper + lower[::-1])
        parts.append(f'<polygon points="{band}" fill="{colour}" opacity="0.12"/>')
        points = " ".join(line)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return "".join(parts)


def ratios(groups: dict[str, Sequence[tuple[str, float, float]]]) -> str:
    """Draws a row for each case: its ratio to the best peer on a log scale, its part of the peak.

    Args:
        groups: (case, ratio, part of the peak or NaN), by group.
    """
    rows = sum(len(cases) + 1 for cases in groups.values())
    height, label, middle = 16 * rows + 60, 190, 560
    found = [ratio for cases in groups.values() for _, ratio, _ in cases if ratio > 0]
    reach = max([2.0, *found, *(1 / ratio for ratio in found)])
    x = _scale(-math.log2(reach), math.log2(reach), label, middle)
    share = _scale(0.0, 1.0, middle + 40, middle + 240)
    parts = [_text(x(0), 14, "times the best peer (log scale)", "middle")]
    parts.append(_text(share(0.5), 14, "part of the peak", "middle"))
    for power in range(math.ceil(-math.log2(reach)), math.floor(math.log2(reach)) + 1):
        parts.append(_rule(x(power), 36, x(power), height - 20))
        parts.append(_text(x(power), 30, f"{2.0**power:g}", "middle"))
    for part in (0.0, 0.5, 1.0):
        parts.append(_rule(share(part), 36, share(part), height - 20))
        parts.append(_text(share(part), 30, f"{part:.0%}", "middle"))
    line = 44
    for place, (group, cases) in enumerate(groups.items()):
        parts.append(f'<g font-weight="bold">{_text(4, line + 8, group, "start")}</g>')
        line += 16
        for case, ratio, part in cases:
            parts += _ratio_row((case, ratio, part), line, COLOURS[place % 6], (x, share))
            line += 16
    return _page(middle + 260, height, "".join(parts))


def _ratio_row(
    row: tuple[str, float, float], line: int, colour: str, scales: tuple[Scale, Scale]
) -> list[str]:
    (case, ratio, part), (x, share) = row, scales
    parts = [_text(186, line + 8, case, "end")]
    if ratio > 0:
        ends = sorted((x(0), x(math.log2(ratio))))
        parts.append(_box(ends[0], line, ends[1] - ends[0], colour))
        parts.append(_text(ends[1] + 4, line + 8, f"{ratio:.2f}", "start"))
    if part == part:  # it is NaN where a case has no peak
        parts.append(_box(share(0), line, share(min(part, 1.1)) - share(0), colour))
    return parts


Scale = Callable[[float], float]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _legend(names: Sequence[str], top: float) -> str:
    parts = []
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        left = MARGIN + 150 * place
        parts.append(f'<rect x="{left}" y="{top}" width="14" height="8" fill="{colour}"/>')
        parts.append(_text(left + 20, top + 8, name, "start"))
    return "".join(parts)


def _box(left: float, top: float, width: float, colour: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="10" fill="{colour}"/>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(width: float, height: float, inner: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{inner}</svg>\n"
    )

"""Parts that the charts of a report are put together from: scales, ticks, markers, and SVG elements as text.

Nothing here has a colour. Elements carry classes, and the report's style sheet gives each its colour on a light page,
on a dark one and on paper; series differ in the shape of their marker and the dashes of their line too. A picture is
`WIDTH` units wide, so that its letters can still be read where a phone shows it 330 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.escaping import html_text

WIDTH = 400.0
LETTER = 7.3  # mean width of a letter, in the widest of the common sans-serif faces at a phone's 13 units
SERIES = 8  # colours, shapes and dashes before they come again

Anchor = Literal["start", "middle", "end"]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Scale:
    """From values `low` ... `high` to places `start` ... `end`; logarithmic if `log`, for which `low` is over 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """At most about `most` round values in the range: even steps, or, if `log`, some of each power of ten."""
        if not self.log:
            return round_steps(self.low, self.high, most)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values: list[float] = []
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            values = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
            values = [value for value in values if self.low <= value <= self.high]
            if len(values) <= most:
                break
        return values


def round_steps(low: float, high: float, most: int) -> list[float]:
    """Multiples of the smallest step of 1, 2 or 5 times a power of ten of which at most `most` lie in the range."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        first, last = math.ceil(low / (factor * step) - 1e-9), math.floor(high / (factor * step) + 1e-9)
        if last - first < most:
            break
    decimals = max(0, -math.floor(math.log10(factor * step) + 1e-9))
    return [round(count * factor * step, decimals) for count in range(first, last + 1)]


def time_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """A scale that holds times over 0 with some air: logarithmic where the longest is many times the shortest."""
    known = list(values)
    low, high = min(known), max(known)
    if high > 6 * low > 0:
        return Scale(low / 1.25, high * 1.25, start, end, log=True)
    air = 0.12 * (high - low) or 0.1 * high or 1.0
    return Scale(max(0.0, low - air), high + air, start, end)


def picture(name: str, title: str, description: str, height: float, parts: Iterable[str]) -> str:
    """An `<svg>`. Its ids begin with `name`, which is unique in the page."""
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{html_text(title)}</title><desc id="{name}-desc">{html_text(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: Anchor = "start", turned: bool = False) -> str:
    """`content` with its base line at (x, y), upwards if `turned`."""
    place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} text-anchor="{anchor}"{_classes(kind)}>{html_text(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """From (x1, y1) to (x2, y2)."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"{_classes(kind)}/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """From each point to the next."""
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{places}"{_classes(kind)}/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    """`tip` shows where a pointer rests on it."""
    closing = f"><title>{html_text(tip)}</title></rect>" if tip else "/>"
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{_classes(kind)}{closing}'


def marker(series: int, x: float, y: float, tip: str = "", size: float = 5.0) -> str:
    """The shape of a series: circle, square, triangle, diamond, cross, triangle down, saltire, hourglass."""
    long, thin = 1.25 * size, 0.4 * size
    cross = [(-long, -thin), (-thin, -thin), (-thin, -long), (thin, -long), (thin, -thin), (long, -thin)]
    cross += [(-dx, -dy) for dx, dy in cross]
    shapes: dict[int, list[tuple[float, float]]] = {
        1: [(-0.9 * size, -0.9 * size), (0.9 * size, -0.9 * size), (0.9 * size, 0.9 * size), (-0.9 * size, 0.9 * size)],
        2: [(0, -long), (long, size), (-long, size)],
        3: [(0, -1.4 * size), (long, 0), (0, 1.4 * size), (-long, 0)],
        4: cross,
        5: [(0, long), (long, -size), (-long, -size)],
        6: [((dx - dy) * 0.71, (dx + dy) * 0.71) for dx, dy in cross],
        7: [(-size, -long), (size, -long), (-size, long), (size, long)],
    }
    shape, kind = series % SERIES, f'class="mark s{series % SERIES}"'
    title = f"<title>{html_text(tip)}</title>" if tip else ""
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {kind}>{title}</circle>'
    places = "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in shapes[shape])
    return f'<path d="M{places}Z" {kind}>{title}</path>'


def whisker(x: float, low: float, high: float, kind: str, across: bool = False) -> str:
    """An interval with a bar at each end, at `x` from `low` to `high`; `across`: at height `x`, from left to right."""
    ends = [line(x - 3, end, x + 3, end, kind) for end in (low, high)]
    if across:
        ends = [line(end, x - 3, end, x + 3, kind) for end in (low, high)]
        return line(low, x, high, x, kind) + "".join(ends)
    return line(x, low, x, high, kind) + "".join(ends)


def labels(points: Sequence[tuple[float, float, str]], taken: Sequence[Box], frame: Box) -> list[str]:
    """The names of `points (x, y, name)`, each beside its point where it covers neither another nor what is `taken`.

    A name for which there is no such place is left out: the legend has it.
    """
    covered = [*taken, *((x - 6, y - 6, x + 6, y + 6) for x, y, _ in points)]
    drawn = []
    for x, y, name in points:
        width = LETTER * len(name)
        for left, base in (
            *((x + 9, y + 4), (x - 9 - width, y + 4)),
            *((x + 7, y - 8), (x - 7 - width, y - 8), (x + 7, y + 17), (x - 7 - width, y + 17)),
            *((x - width / 2, y - 11), (x - width / 2, y + 20)),
        ):
            box = (left, base - 10, left + width, base + 3)
            inside = box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in covered):
                covered.append(box)
                drawn.append(text(left, base, name, "label"))
                break
    return drawn


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _classes(kind: str) -> str:
    return f' class="{kind}"' if kind else ""

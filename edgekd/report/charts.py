"""The charts of a report: each a function from results to an `<svg>`, or to "" where there is nothing to draw.

Every chart says in its `<desc>` what it shows; the figures themselves are in the table that the report puts behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from zlib import crc32

from edgekd.report.results import Layer, Point, Profile, Subject
from edgekd.report.svg import (
    LETTER,
    SERIES,
    WIDTH,
    Box,
    Scale,
    labels,
    line,
    marker,
    path,
    picture,
    rectangle,
    shortened,
    text,
    time_scale,
    whisker,
)
from edgekd.report.tables import milliseconds
from edgekd.scoring.scores import Scores

LEFT, RIGHT, TOP = 44.0, WIDTH - 6, 22.0
MOST_COUNTED = 12  # classes with counts in the cells of a confusion matrix
MOST_NAMED = 25  # classes with names beside it
HEAT = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8)
"""The shades of a confusion matrix: shade n is for shares over `HEAT[n - 1]`, shade 0 for none."""


def pareto(profile: Profile) -> str:
    """Accuracy over the median time of a clip, both with intervals; a line joins the best trades of one machine."""
    scored = [(place, one) for place, one in enumerate(profile.subjects) if one.scores]
    if not scored:
        return ""
    height = 300.0
    bottom = height - 46
    edges = [edge for _, one in scored for edge in (one.latency.p50_ms, *one.latency.p50_interval_ms)]
    fastest = min((one for _, one in scored), key=lambda one: one.latency.p50_ms)
    beside = 14 + LETTER * min(len(fastest.name), 10)  # its name stands left of it
    across = time_scale(edges, LEFT + beside, RIGHT - 14)
    shares = [share for _, one in scored if one.scores for share in one.scores.accuracy_interval]
    air = max(0.02, 0.08 * (max(shares) - min(shares)))
    up = Scale(max(0.0, min(shares) - air), min(1.0, max(shares) + air), bottom, TOP)

    parts = [*_share_axis(up), text(0, 12, "accuracy", "axis")]
    parts += _time_axis(across, TOP, bottom)
    taken: list[Box] = []
    marks, points = [], []
    for place, one in scored:
        assert one.scores is not None
        x, y = across(one.latency.p50_ms), up(one.scores.accuracy)
        ends = [up(share) for share in one.scores.accuracy_interval]
        parts.append(whisker(x, ends[0], ends[1], f"whisker s{place % SERIES}"))
        sides = [across(ms) for ms in one.latency.p50_interval_ms]
        parts.append(whisker(y, sides[0], sides[1], f"whisker s{place % SERIES}", across=True))
        taken += [(x - 4, ends[1], x + 4, ends[0]), (sides[0], y - 3, sides[1], y + 3)]
        low, high = one.scores.accuracy_interval
        tip = f"{one.name}: {one.scores.accuracy:.1%} ({low:.1%} to {high:.1%}), {_ms(one.latency.p50_ms)}"
        marks.append(marker(place, x, y, tip, 6))
        points.append((x, y, shortened(one.name, 20)))
    front = _front([one for _, one in scored])
    steps: list[tuple[float, float]] = []
    for one in front:
        assert one.scores is not None
        x, y = across(one.latency.p50_ms), up(one.scores.accuracy)
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    if len(front) > 1:
        parts.insert(0, path(steps, "front"))
        taken += [(x1, min(y1, y2) - 1, x2, max(y1, y2) + 1) for (x1, y1), (x2, y2) in pairwise(steps)]
    names = labels(points, taken, (LEFT, 0, WIDTH, bottom))
    said = "; ".join(
        f"{one.name} {one.scores.accuracy:.1%} at {_ms(one.latency.p50_ms)}" for _, one in scored if one.scores
    )
    told = f"Accuracy over median time of one clip, left and up is better. {said}."
    return picture("pareto", "Accuracy against latency", told, height, [*parts, *marks, *names])


def latency_distribution(profile: Profile) -> str:
    """A row a subject: its fastest and slowest clip, 1 % to 99 %, the middle half and the median."""
    row, top = 42.0, 6.0
    bottom = top + row * len(profile.subjects)
    edges = [ms for one in profile.subjects for ms in (one.latency.quantiles_ms[0], one.latency.quantiles_ms[100])]
    across = time_scale(edges, 0, WIDTH)
    parts = _time_axis(across, top, bottom)
    for place, one in enumerate(profile.subjects):
        kind, q = f"s{place % SERIES}", one.latency.quantiles_ms
        base = top + row * place
        middle = base + 29
        numbers = f"p50 {_ms(q[50])}, p99 {_ms(q[99])}"
        room = int(WIDTH / LETTER - len(numbers)) - 2
        parts += [
            text(0, base + 14, shortened(one.name, room), "label"),
            text(WIDTH, base + 14, numbers, "label", "end"),
            line(across(q[1]), middle, across(q[99]), middle, f"whisker {kind}"),
            rectangle(across(q[25]), middle - 7, max(across(q[75]) - across(q[25]), 1), 14, f"box {kind}"),
            line(across(q[50]), middle - 9, across(q[50]), middle + 9, f"median {kind}"),
            *(line(across(q[end]), middle - 4, across(q[end]), middle + 4, f"whisker {kind}") for end in (1, 99)),
            *(f'<circle cx="{across(q[end]):.1f}" cy="{middle:.1f}" r="2" class="fill {kind}"/>' for end in (0, 100)),
        ]
    said = "; ".join(
        f"{one.name}: half of the clips within {_ms(one.latency.p50_ms)}, 99 % within {_ms(one.latency.p99_ms)}"
        for one in profile.subjects
    )
    return picture("latency", "Latency distribution", f"{said}.", bottom + 44, parts)


def confusion(subject: Subject) -> str:
    """True classes downwards, predicted ones to the right; a cell's shade is its share of the clips of its row."""
    if subject.scores is None:
        return ""
    classes, cells = subject.scores.classes, subject.scores.confusion
    count = len(classes)
    named, counted = count <= MOST_NAMED, count <= MOST_COUNTED
    left = 98.0 if named else 34.0
    step = (RIGHT - left) / count
    top = 4.0
    bottom = top + step * count
    parts = [rectangle(left, top, step * count, step * count, "frame")]
    small = "" if step >= 13 else " small"
    for true, row in enumerate(cells):
        base = top + (true + 0.5) * step + 4
        if named:
            parts.append(text(left - 5, base, shortened(classes[true], 14), f"tick{small}", "end"))
            parts.append(
                text(
                    left + (true + 0.5) * step + 4,
                    bottom + 6,
                    shortened(classes[true], 14),
                    f"tick{small}",
                    "end",
                    True,
                )
            )
        elif true % 5 == 4:
            parts.append(text(left - 5, base, str(true + 1), "tick", "end"))
            parts.append(text(left + (true + 0.5) * step, bottom + 14, str(true + 1), "tick", "middle"))
        for predicted, clips in enumerate(row):
            if not clips:
                continue
            shade = sum(clips / sum(row) > edge for edge in HEAT)
            x = left + predicted * step
            tip = f"{classes[true]} taken for {classes[predicted]}: {clips} of {sum(row)}"
            parts.append(rectangle(x, top + true * step, step, step, f"h{shade}", tip))
            if counted:
                parts.append(text(x + step / 2, base, str(clips), f"on{shade}", "middle"))
    longest = max(len(shortened(name, 14)) for name in classes)
    height = bottom + (10 + LETTER * longest if named else 24)
    wrong = subject.scores.clips - sum(cells[place][place] for place in range(count))
    told = f"{wrong} of {subject.scores.clips} clips are off the diagonal, that is, taken for another class."
    return picture(f"confusion-{_key(subject)}", f"Confusion matrix of {subject.name}", told, height, parts)


def robustness_noise(profile: Profile) -> str:
    """Accuracy with noise added, the loudest signal on the left, and the clip as it is left of that."""
    curves = {
        place: one.robustness.noise
        for place, one in enumerate(profile.subjects)
        if one.robustness and one.robustness.noise
    }
    if not curves:
        return ""
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    clean = values[0] + (values[0] - values[-1]) / max(1, len(values) - 1) if len(values) > 1 else values[0] + 5
    across = Scale(clean, values[-1], LEFT + 20, RIGHT - 16)
    whole = {}
    for place, points in curves.items():
        scores = profile.subjects[place].scores
        whole[place] = (_whole(scores, clean), *points) if scores else points
    ticks = {clean: "as it is"} | {value: f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in values}
    return _curves("noise", "Accuracy with added noise", "signal-to-noise ratio, dB", profile, whole, across, ticks)


def robustness_length(profile: Profile) -> str:
    """Accuracy on shorter clips, the longest on the left."""
    curves = length_curves(profile)
    if not curves:
        return ""
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    low = values[-1] if len(values) > 1 else values[0] / 2
    across = Scale(values[0], low, LEFT + 20, RIGHT - 16, log=True)
    ticks = {value: f"{value:.3g}" for value in values}
    return _curves("length", "Accuracy on shorter clips", "length of the clip, s", profile, curves, across, ticks)


def length_curves(profile: Profile) -> dict[int, tuple[Point, ...]]:
    """Accuracy on shorter clips by the places of the subjects, the whole clip before them."""
    found = {}
    for place, one in enumerate(profile.subjects):
        points, seconds = one.robustness.length if one.robustness else (), profile.clip_seconds
        if points and one.scores and seconds and max(point.value for point in points) < seconds:
            points = (_whole(one.scores, seconds), *points)
        if points:
            found[place] = points
    return found


def layers(subject: Subject, top: int = 15) -> str:
    """The slowest layers as bars; the pattern of a bar tells the layer's precision."""
    if not subject.layers:
        return ""
    shown = sorted(subject.layers, key=lambda layer: -layer.ms)[:top]
    row = 32.0
    across = Scale(0, shown[0].ms or 1, 0, WIDTH)
    precisions = list(dict.fromkeys(layer.precision or "not told" for layer in shown))
    parts, x = [], 0.0
    for one in precisions:
        parts += [_bar(x, 4, 24, 10, one), text(x + 30, 13, one, "tick")]
        x += 30 + LETTER * len(one) + 16
    for place, layer in enumerate(shown):
        base = 26 + place * row
        figures = f"{_ms(layer.ms)}, {100 * layer.share:.0f} %"
        room = int(WIDTH / LETTER - len(figures)) - 2
        bar = _bar(0, base + 16, max(across(layer.ms), 1), 9, layer.precision or "not told", _layer_tip(layer))
        parts += [text(0, base + 11, shortened(layer.name, room), "label")]
        parts += [text(WIDTH, base + 11, figures, "label", "end"), bar]
    told = f"The slowest is {shown[0].name} with {_ms(shown[0].ms)}, {shown[0].share:.0%} of the time of all layers."
    title = f"Slowest layers of {subject.name}"
    return picture(f"layers-{_key(subject)}", title, told, 26 + row * len(shown) + 4, parts)


def _curves(
    name: str,
    title: str,
    unit: str,
    profile: Profile,
    curves: dict[int, tuple[Point, ...]],
    across: Scale,
    ticks: dict[float, str],
) -> str:
    """Lines of accuracy with intervals, one for each subject by its place; beside each other where they would hide."""
    height = 270.0
    bottom = height - 46
    up = Scale(0, 1, bottom, TOP)
    parts = [*_share_axis(up), text(0, 12, "accuracy", "axis")]
    end = -20.0
    for value, told in ticks.items():
        place = across(value)
        parts.append(line(place, bottom, place, bottom + 4, "grid"))
        if place - LETTER * len(told) / 2 > end + 4:
            parts.append(text(place, bottom + 17, told, "tick", "middle"))
            end = place + LETTER * len(told) / 2
    parts.append(text((LEFT + RIGHT) / 2, height - 8, unit, "axis", "middle"))
    marks = []
    said = []
    for order, (place, points) in enumerate(curves.items()):
        kind = f"s{place % SERIES}"
        aside = (order - (len(curves) - 1) / 2) * 4.5
        places = [(across(point.value) + aside, up(point.accuracy)) for point in points]
        parts.append(path(places, f"curve {kind}"))
        for (x, y), point in zip(places, points, strict=True):
            low, high = point.accuracy_interval
            parts.append(whisker(x, up(low), up(high), f"whisker faint {kind}"))
            tip = (
                f"{profile.subjects[place].name}, {ticks[point.value]}: {point.accuracy:.1%} ({low:.1%} to {high:.1%})"
            )
            marks.append(marker(place, x, y, tip, 4))
        said.append(f"{profile.subjects[place].name} from {points[0].accuracy:.0%} to {points[-1].accuracy:.0%}")
    return picture(name, title, f"From left to right: {'; '.join(said)}.", height, [*parts, *marks])


def _whole(scores: Scores, value: float) -> Point:
    """The clip as it is, at `value` of an axis."""
    return Point(value=value, accuracy=scores.accuracy, accuracy_interval=scores.accuracy_interval)


def _front(subjects: Sequence[Subject]) -> list[Subject]:
    """Of those timed here, the ones that none beats in both time and accuracy, the fastest first."""
    found: list[Subject] = []
    best = -1.0
    for one in sorted(subjects, key=lambda one: (one.latency.p50_ms, -(one.scores.accuracy if one.scores else 0))):
        if one.host is None and one.scores and one.scores.accuracy > best:
            found.append(one)
            best = one.scores.accuracy
    return found


def _share_axis(up: Scale) -> Iterator[str]:
    for share in up.ticks(6):
        yield line(LEFT, up(share), RIGHT, up(share), "grid")
        yield text(LEFT - 6, up(share) + 4, f"{100 * share:g} %", "tick", "end")


def _time_axis(across: Scale, top: float, bottom: float) -> list[str]:
    parts = [line(across(ms), top, across(ms), bottom, "grid") for ms in across.ticks()]
    parts += [text(across(ms), bottom + 16, f"{ms:g}", "tick", "middle") for ms in across.ticks()]
    scale = ", log scale" if across.log else ""
    return [
        *parts,
        text((across.start + across.end) / 2, bottom + 36, f"time of one clip, ms{scale}", "axis", "middle"),
    ]


def _bar(x: float, y: float, width: float, height: float, precision: str, tip: str = "") -> str:
    """A bar with the pattern of a precision: stripes for int8, dots for float16, plain for float32 and the rest.

    The stripes are lines: browsers print an SVG pattern as a picture, which makes pages of megabytes.
    """
    bar = rectangle(x, y, width, height, "bar", tip)
    if precision == "float16":
        return bar + line(x + 3, y + height / 2, x + width - 2, y + height / 2, "dots")
    if precision != "int8":
        return bar
    starts = [x + 6 * count for count in range(int(width / 6) + 1)]
    strokes = [(start, min(height, x + width - start)) for start in starts]
    return bar + "".join(line(start, y + height, start + run, y + height - run, "hatch") for start, run in strokes)


def _layer_tip(layer: Layer) -> str:
    macs = f", {layer.macs:,} MACs" if layer.macs else ""
    return f"{layer.name} ({layer.operator}): {layer.ms:.3g} ms{macs}"


def _ms(value: float) -> str:
    return f"{milliseconds(value)} ms"


def _key(subject: Subject) -> str:
    """A part of an id that is the subject's alone: a name may hold what an id may not."""
    return f"{crc32(subject.name.encode()):08x}"

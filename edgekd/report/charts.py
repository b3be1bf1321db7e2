"""The charts of a report: each a function from results to an `<svg>`, or to "" where there is nothing to draw.

Every chart says in its `<desc>` what it shows; the figures themselves are in the table that the report puts behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from zlib import crc32

from edgekd.escaping import shortened
from edgekd.number_formats import count, interval, number, percent, setting
from edgekd.report.figures import measure_of, titled
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
    text,
    time_scale,
    whisker,
)
from edgekd.scoring.intervals import Interval
from edgekd.scoring.scored import AnyScores
from edgekd.scoring.scores import Scores

LEFT, RIGHT, TOP = 44.0, WIDTH - 6, 22.0
MOST_COUNTED = 12  # classes with counts in the cells of a confusion matrix
MOST_NAMED = 25  # classes with names beside it
HEAT = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8)
"""The shades of a confusion matrix: shade n is for shares over `HEAT[n - 1]`, shade 0 for none."""


def pareto(profile: Profile) -> str:
    """Accuracy over the median time of a clip, both with intervals; a line joins the best trades of one machine."""
    scored = [
        (series, subject, subject.scores)
        for series, subject in enumerate(profile.subjects)
        if subject.scores is not None
    ]
    if not scored:
        return ""
    height = 300.0
    bottom = height - 46
    latencies = [subject.latency for _, subject, _ in scored]
    edges = [edge for latency in latencies for edge in (latency.p50_ms, *latency.p50_interval_ms)]
    fastest = min((subject for _, subject, _ in scored), key=lambda subject: subject.latency.p50_ms)
    beside = 14 + LETTER * min(len(fastest.name), 10)  # its name stands left of it
    across = time_scale(edges, LEFT + beside, RIGHT - 14)
    shares = [share for _, _, scores in scored for share in scores.measure_interval]
    air = max(0.02, 0.08 * (max(shares) - min(shares)))
    up = Scale(max(0.0, min(shares) - air), min(1.0, max(shares) + air), bottom, TOP)

    parts = [*_share_axis(up), text(0, 12, measure_of(profile).label, "axis")]
    parts += _time_axis(across, TOP, bottom)
    taken: list[Box] = []
    marks, points, sentences = [], [], []
    for series, subject, scores in scored:
        x, y = across(subject.latency.p50_ms), up(scores.measure)
        ends = [up(share) for share in scores.measure_interval]
        parts.append(whisker(x, ends[0], ends[1], f"whisker s{series % SERIES}"))
        sides = [across(ms) for ms in subject.latency.p50_interval_ms]
        parts.append(whisker(y, sides[0], sides[1], f"whisker s{series % SERIES}", across=True))
        taken += [(x - 4, ends[1], x + 4, ends[0]), (sides[0], y - 3, sides[1], y + 3)]
        accuracy = _accuracy(scores.measure, scores.measure_interval)
        marks.append(marker(series, x, y, f"{subject.name}: {accuracy}, {_ms(subject.latency.p50_ms)}", 6))
        points.append((x, y, shortened(subject.name, 20)))
        sentences.append(f"{subject.name} {percent(scores.measure)} at {_ms(subject.latency.p50_ms)}")
    front = _front([(subject.latency.p50_ms, scores.measure) for _, subject, scores in scored if subject.host is None])
    steps: list[tuple[float, float]] = []
    for ms, share in front:
        x, y = across(ms), up(share)
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    if len(front) > 1:
        parts.insert(0, path(steps, "front"))
        taken += [(x1, min(y1, y2) - 1, x2, max(y1, y2) + 1) for (x1, y1), (x2, y2) in pairwise(steps)]
    names = labels(points, taken, (LEFT, 0, WIDTH, bottom))
    description = f"{titled(profile)} over median time of one clip, left and up is better. {'; '.join(sentences)}."
    return picture("pareto", f"{titled(profile)} against latency", description, height, [*parts, *marks, *names])


def latency_distribution(profile: Profile) -> str:
    """A row a subject: its fastest and slowest clip, 1% to 99%, the middle half and the median."""
    row, top = 42.0, 6.0
    bottom = top + row * len(profile.subjects)
    quantiles = [subject.latency.quantiles_ms for subject in profile.subjects]
    across = time_scale([ms for q in quantiles for ms in (q[0], q[100])], 0, WIDTH)
    parts = _time_axis(across, top, bottom)
    for series, (subject, q) in enumerate(zip(profile.subjects, quantiles, strict=True)):
        kind = f"s{series % SERIES}"
        base = top + row * series
        middle = base + 29
        numbers = f"p50 {_ms(q[50])}, p99 {_ms(q[99])}"
        room = int(WIDTH / LETTER - len(numbers)) - 2
        parts += [
            text(0, base + 14, shortened(subject.name, room), "label"),
            text(WIDTH, base + 14, numbers, "label", "end"),
            line(across(q[1]), middle, across(q[99]), middle, f"whisker {kind}"),
            rectangle(across(q[25]), middle - 7, max(across(q[75]) - across(q[25]), 1), 14, f"box {kind}"),
            line(across(q[50]), middle - 9, across(q[50]), middle + 9, f"median {kind}"),
            *(line(across(q[end]), middle - 4, across(q[end]), middle + 4, f"whisker {kind}") for end in (1, 99)),
            *(f'<circle cx="{across(q[end]):.1f}" cy="{middle:.1f}" r="2" class="fill {kind}"/>' for end in (0, 100)),
        ]
    sentences = "; ".join(
        f"{subject.name}: half of the clips within {_ms(subject.latency.p50_ms)}, "
        f"99% within {_ms(subject.latency.p99_ms)}"
        for subject in profile.subjects
    )
    return picture("latency", "Latency distribution", f"{sentences}.", bottom + 44, parts)


def confusion(subject: Subject) -> str:
    """True classes downwards, predicted ones to the right; a cell's shade is its share of the clips of its row."""
    if not isinstance(subject.scores, Scores):
        return ""
    classes, cells = subject.scores.classes, subject.scores.confusion
    side = len(classes)
    named, counted = side <= MOST_NAMED, side <= MOST_COUNTED
    left = 98.0 if named else 34.0
    step = (RIGHT - left) / side
    top = 4.0
    bottom = top + step * side
    parts = [rectangle(left, top, step * side, step * side, "frame")]
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
    wrong = subject.scores.clips - sum(cells[index][index] for index in range(side))
    description = f"{wrong} of {subject.scores.clips} clips are off the diagonal, that is, taken for another class."
    return picture(f"confusion-{_key(subject)}", f"Confusion matrix of {subject.name}", description, height, parts)


def robustness_noise(profile: Profile) -> str:
    """Accuracy with noise added, the loudest signal on the left, and the clip as it is left of that."""
    curves = {
        series: subject.robustness.noise
        for series, subject in enumerate(profile.subjects)
        if subject.robustness and subject.robustness.noise
    }
    if not curves:
        return ""
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    clean = values[0] + (values[0] - values[-1]) / max(1, len(values) - 1) if len(values) > 1 else values[0] + 5
    across = Scale(clean, values[-1], LEFT + 20, RIGHT - 16)
    whole = {}
    for series, points in curves.items():
        scores = profile.subjects[series].scores
        whole[series] = (_whole(scores, clean), *points) if scores else points
    ticks = {clean: "as it is"} | {value: setting(value) for value in values}
    return _curves(
        "noise", f"{titled(profile)} with added noise", "signal-to-noise ratio, dB", profile, whole, across, ticks
    )


def robustness_length(profile: Profile) -> str:
    """Accuracy on shorter clips, the longest on the left."""
    curves = length_curves(profile)
    if not curves:
        return ""
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    low = values[-1] if len(values) > 1 else values[0] / 2
    across = Scale(values[0], low, LEFT + 20, RIGHT - 16, log=True)
    ticks = {value: setting(value) for value in values}
    return _curves(
        "length", f"{titled(profile)} on shorter clips", "length of the clip, s", profile, curves, across, ticks
    )


def length_curves(profile: Profile) -> dict[int, tuple[Point, ...]]:
    """Accuracy on shorter clips by the numbers of the subjects, the whole clip before them."""
    curves = {}
    for series, subject in enumerate(profile.subjects):
        points, seconds = subject.robustness.length if subject.robustness else (), profile.clip_seconds
        if points and subject.scores and seconds and max(point.value for point in points) < seconds:
            points = (_whole(subject.scores, seconds), *points)
        if points:
            curves[series] = points
    return curves


def layers(subject: Subject, top: int = 15) -> str:
    """The slowest layers as bars; the pattern of a bar tells the layer's precision."""
    if not subject.layers:
        return ""
    shown = sorted(subject.layers, key=lambda layer: -layer.ms)[:top]
    row = 32.0
    across = Scale(0, shown[0].ms or 1, 0, WIDTH)
    precisions = list(dict.fromkeys(layer.precision or "not told" for layer in shown))
    parts, x = [], 0.0
    for precision in precisions:
        parts += [_bar(x, 4, 24, 10, precision), text(x + 30, 13, precision, "tick")]
        x += 30 + LETTER * len(precision) + 16
    for line_number, layer in enumerate(shown):
        base = 26 + line_number * row
        figures = f"{_ms(layer.ms)}, {percent(layer.share)}"
        room = int(WIDTH / LETTER - len(figures)) - 2
        bar = _bar(0, base + 16, max(across(layer.ms), 1), 9, layer.precision or "not told", _layer_tip(layer))
        parts += [text(0, base + 11, shortened(layer.name, room), "label")]
        parts += [text(WIDTH, base + 11, figures, "label", "end"), bar]
    slowest = f"{_ms(shown[0].ms)}, {percent(shown[0].share)} of the time of all layers"
    description = f"The slowest is {shown[0].name} with {slowest}."
    title = f"Slowest layers of {subject.name}"
    return picture(f"layers-{_key(subject)}", title, description, 26 + row * len(shown) + 4, parts)


def _curves(
    name: str,
    title: str,
    unit: str,
    profile: Profile,
    curves: dict[int, tuple[Point, ...]],
    across: Scale,
    ticks: dict[float, str],
) -> str:
    """Lines of accuracy with intervals, by the numbers of the subjects; beside each other where they would hide."""
    height = 270.0
    bottom = height - 46
    up = Scale(0, 1, bottom, TOP)
    parts = [*_share_axis(up), text(0, 12, measure_of(profile).label, "axis")]
    end = -20.0
    for value, label in ticks.items():
        x = across(value)
        parts.append(line(x, bottom, x, bottom + 4, "grid"))
        if x - LETTER * len(label) / 2 > end + 4:
            parts.append(text(x, bottom + 17, label, "tick", "middle"))
            end = x + LETTER * len(label) / 2
    parts.append(text((LEFT + RIGHT) / 2, height - 8, unit, "axis", "middle"))
    marks, sentences = [], []
    for order, (series, points) in enumerate(curves.items()):
        name_of_subject = profile.subjects[series].name
        kind = f"s{series % SERIES}"
        aside = (order - (len(curves) - 1) / 2) * 4.5
        places = [(across(point.value) + aside, up(point.measure)) for point in points]
        parts.append(path(places, f"curve {kind}"))
        for (x, y), point in zip(places, points, strict=True):
            low, high = point.measure_interval
            parts.append(whisker(x, up(low), up(high), f"whisker faint {kind}"))
            accuracy = _accuracy(point.measure, point.measure_interval)
            marks.append(marker(series, x, y, f"{name_of_subject}, {ticks[point.value]}: {accuracy}", 4))
        sentences.append(f"{name_of_subject} from {percent(points[0].measure)} to {percent(points[-1].measure)}")
    return picture(name, title, f"From left to right: {'; '.join(sentences)}.", height, [*parts, *marks])


def _whole(scores: AnyScores, value: float) -> Point:
    """The clip as it is, at `value` of an axis."""
    return Point.of(value, scores)


def _front(trades: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of times and accuracies, those that none beats in both, the fastest first."""
    front: list[tuple[float, float]] = []
    for ms, accuracy in sorted(trades, key=lambda trade: (trade[0], -trade[1])):
        if not front or accuracy > front[-1][1]:
            front.append((ms, accuracy))
    return front


def _share_axis(up: Scale) -> Iterator[str]:
    for share in up.ticks(6):
        yield line(LEFT, up(share), RIGHT, up(share), "grid")
        yield text(LEFT - 6, up(share) + 4, f"{setting(100 * share)}%", "tick", "end")


def _time_axis(across: Scale, top: float, bottom: float) -> list[str]:
    parts = [line(across(ms), top, across(ms), bottom, "grid") for ms in across.ticks()]
    parts += [text(across(ms), bottom + 16, setting(ms), "tick", "middle") for ms in across.ticks()]
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
    starts = [x + 6 * stripe for stripe in range(int(width / 6) + 1)]
    strokes = [(start, min(height, x + width - start)) for start in starts]
    return bar + "".join(line(start, y + height, start + run, y + height - run, "hatch") for start, run in strokes)


def _layer_tip(layer: Layer) -> str:
    macs = f", {count(layer.macs)} MACs" if layer.macs else ""
    return f"{layer.name} ({layer.operator}): {_ms(layer.ms)}{macs}"


def _accuracy(share: float, ends: Interval) -> str:
    return f"{percent(share)} ({interval(*ends, percent)})"


def _ms(value: float) -> str:
    return f"{number(value)} ms"


def _key(subject: Subject) -> str:
    """A part of an id that is the subject's alone: a name may hold what an id may not."""
    return f"{crc32(subject.name.encode()):08x}"

"""How a profile is shown in the terminal: the verdict, narrow tables, and what a reader should know of them.

A table of all figures would be 200 columns wide; so there is one of accuracy, one of time, one of cost, and so on. The
best value of a column has a `*` before it, which survives pipes, black-and-white terminals and right alignment.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekd.report.terminal import compact, interval, p_value, percent, points, table

if TYPE_CHECKING:
    from edgekd.report.results import Point, Profile, Subject

WIDTH = 80
LAYERS = 10
NAME = 40  # letters of a subject's name in a table; the list below the tables has it in full
GAP = 2  # between columns

Number = float | int | None


def print_profile(profile: Profile, out: Path | None) -> None:
    """What was given up and what was gained; `out` is the folder that the report was written to."""
    for sentence in profile.verdict:
        _say(sentence)
    if any(one.scores for one in profile.subjects):
        _say(f"Scored on {profile.clips}; intervals are 95 %.")
    tables = [_accuracy, _time, _cost, _energy, _robustness, _throughput]
    marked = [shown(profile) for shown in tables]
    _layers(profile)
    typer.echo()
    if any(marked):
        _say("* best of its column.")
    for subject in profile.subjects:
        _say(f"{subject.name}: {_what(subject)}", "  ")
    cpu = ", ".join(part for part in (profile.machine.cpu, profile.machine.gpu) if part)
    if cpu:
        _say(f"Machine: {cpu}")
    for note in profile.notes:
        _say(f"Note: {note}", "  ")
    if out is not None:
        _say(f"Written: {out} (report.html, report.json, report.md, report.csv)", "  ")


def _accuracy(profile: Profile) -> bool:
    scored = [(one, one.scores) for one in profile.subjects if one.scores]
    against = [one.versus.accuracy if one.versus else None for one, _ in scored]
    columns = {
        "accuracy": _marked([scores.accuracy for _, scores in scored], percent, max),
        "interval": [interval(scores.accuracy_interval) for _, scores in scored],
        "macro-F1": _marked([scores.macro_f1 for _, scores in scored], percent, max),
        "less baseline": [points(paired) for paired in against],
        "McNemar": [p_value(paired.mcnemar) if paired else "-" for paired in against],
        "flip p": [p_value(paired.sign_flip) if paired else "-" for paired in against],
    }
    return _columns("", [one.name for one, _ in scored], columns)


def _time(profile: Profile) -> bool:
    subjects = profile.subjects
    latencies = [one.latency for one in subjects]
    speedups = [one.versus.speedup if one.versus else None for one in subjects]
    ratios = _marked([ratio.value if ratio else None for ratio in speedups], lambda ratio: f"{ratio:.1f}", max)
    columns = {
        "p50 ms": _marked([one.p50_ms for one in latencies], _milliseconds, min),
        "p95": _marked([one.p95_ms for one in latencies], _milliseconds, min),
        "p99": _marked([one.p99_ms for one in latencies], _milliseconds, min),
        "IQR": [_milliseconds(one.spread_ms) for one in latencies],
        "speed-up": [
            told + (f" ({ratio.low:.1f}-{ratio.high:.1f})" if ratio else "")
            for told, ratio in zip(ratios, speedups, strict=True)
        ],
        "RTF": _marked([one.real_time_factor for one in latencies], lambda factor: f"{factor:.1g}", min),
        "mel": [_milliseconds(one.frontend_ms) for one in latencies],
        "net": [_milliseconds(one.network_ms) for one in latencies],
    }
    title = "One clip, waveform to scores; RTF: real-time factor; mel, net: a part alone"
    return _columns(title, [one.name for one in subjects], columns)


def _cost(profile: Profile) -> bool:
    costs = [one.cost for one in profile.subjects]
    columns = {
        "params": _marked([one.parameters for one in costs], lambda count: compact(int(count)), min),
        "MMAC": _marked([one.macs for one in costs], lambda macs: f"{macs / 1e6:.1f}", min),
        "mel MMAC": [_number(one.frontend_macs, 1e6, 1) for one in costs],
        "file KiB": _marked([one.file_bytes / 2**10 for one in costs], lambda size: f"{size:,.0f}", min),
        "activ. KiB": [_number(one.activation_bytes, 2**10) for one in costs],
        "process MiB": [_number(one.process_bytes, 2**20) for one in costs],
        "peak MiB": [_number(one.peak_process_bytes, 2**20) for one in costs],
    }
    return _columns("Cost", [one.name for one in profile.subjects], columns)


def _energy(profile: Profile) -> bool:
    if not any(one.energy or one.battery for one in profile.subjects):
        return False
    energies = [one.energy for one in profile.subjects]
    joules = [used.joules_per_clip * 1e3 if used else None for used in energies]
    days = [one.battery.days if one.battery else None for one in profile.subjects]
    columns = {
        "mJ a clip": _marked(joules, lambda amount: f"{amount:.3g}", min),
        "watts": [_number(used.watts if used else None, 1, 2) for used in energies],
        "idle": [_number(used.idle_watts if used else None, 1, 2) for used in energies],
        "days": _marked(days, lambda count: f"{count:.3g}", max),
        "by": [f"{used.source}{'' if used.measured else ', estimated'}" if used else "-" for used in energies],
    }
    return _columns("Energy, and how long the battery lasts", [one.name for one in profile.subjects], columns)


def _robustness(profile: Profile) -> bool:
    robust = [(one, one.robustness) for one in profile.subjects if one.robustness]
    noise = _conditions("Accuracy, %, with added noise: dB", [(one, found.noise) for one, found in robust])
    length = _conditions("Accuracy, %, on shorter clips: seconds", [(one, found.length) for one, found in robust])
    return noise or length


def _conditions(title: str, curves: Sequence[tuple[Subject, tuple[Point, ...]]]) -> bool:
    values = sorted({point.value for _, points in curves for point in points}, reverse=True)
    columns = {}
    for value in values:
        found = [{point.value: point.accuracy for point in points}.get(value) for _, points in curves]
        columns[f"{value:.3g}"] = _marked(found, lambda share: f"{100 * share:.1f}", max)
    return _columns(title, [one.name for one, _ in curves], columns)


def _throughput(profile: Profile) -> bool:
    ways = sorted({(way.threads, way.batch) for one in profile.subjects for way in one.throughput})
    columns = {}
    for threads, batch in ways:
        found = [
            {(way.threads, way.batch): way.clips_per_second for way in one.throughput}.get((threads, batch))
            for one in profile.subjects
        ]
        columns[f"{batch}/{threads}"] = _marked(
            found, lambda clips: f"{clips:,.0f}" if clips >= 100 else f"{clips:.1f}", max
        )
    return _columns("Clips a second: batch/threads", [one.name for one in profile.subjects], columns)


def _layers(profile: Profile) -> None:
    from edgekd.report.svg import shortened

    for one in profile.subjects:
        slowest = sorted(one.layers, key=lambda layer: -layer.ms)[:LAYERS]
        columns = {
            "ms": [f"{layer.ms:.3f}" for layer in slowest],
            "%": [f"{100 * layer.share:.1f}" for layer in slowest],
            "MMAC": [_number(layer.macs, 1e6, 2) for layer in slowest],
            "out KiB": [_number(layer.output_bytes, 2**10) for layer in slowest],
            "precision": [layer.precision or "-" for layer in slowest],
        }
        names = [shortened(layer.name, WIDTH - sum(_widths(columns).values())) for layer in slowest]
        _columns(f"Layers of {one.name}, the slowest {len(slowest)} of {len(one.layers)}", names, columns)


def _columns(title: str, names: Sequence[str], columns: dict[str, list[str]]) -> bool:
    """Print columns beside names, in as many tables as it takes; without those that are empty.

    Returns whether one of the values is marked as best.
    """
    from edgekd.report.svg import shortened

    known = {head: cells for head, cells in columns.items() if any(cell != "-" for cell in cells)}
    if not known:
        return False
    beside = [shortened(name, NAME) for name in names]
    room = WIDTH - max(map(len, beside))
    widths = _widths(known)
    heads = list(known)
    count = next(
        (
            count
            for count in range(1, len(heads))
            if all(sum(widths[head] for head in part) <= room for part in _parts(heads, count))
        ),
        len(heads),
    )
    for order, part in enumerate(_parts(heads, count)):
        typer.echo()
        if title and order == 0:
            _say(title)
        table(
            ("", *part),
            [(name, *(known[head][place] for head in part)) for place, name in enumerate(beside)],
            numbers=part,
        )
    return any(cell.startswith("*") for cells in known.values() for cell in cells)


def _parts(heads: Sequence[str], count: int) -> list[Sequence[str]]:
    """`heads` in `count` parts of about as many."""
    edges = [round(len(heads) * part / count) for part in range(count + 1)]
    return [heads[first:last] for first, last in pairwise(edges)]


def _widths(columns: dict[str, list[str]]) -> dict[str, int]:
    """What each column takes, with the gap before it."""
    return {head: GAP + max(len(cell) for cell in (head, *cells)) for head, cells in columns.items()}


def _marked(values: Sequence[Number], shown: Callable[[float], str], best: Callable[[list[float]], float]) -> list[str]:
    """Values in words, the best with a `*` before them, where they are not all the same in words."""
    known = [value for value in values if value is not None]
    words = {shown(value) for value in known}
    first = shown(best(known)) if len(words) > 1 else None
    told = ["-" if value is None else shown(value) for value in values]
    return [f"*{word}" if word == first else word for word in told]


def _number(value: Number, unit: float, decimals: int = 0) -> str:
    return "-" if value is None else f"{value / unit:,.{decimals}f}"


def _milliseconds(value: float | None) -> str:
    """Two decimals throughout a column, unlike in the report, where each figure has three digits."""
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _what(subject: Subject) -> str:
    threads = None if subject.threads is None else f"{subject.threads} thread{'s' if subject.threads > 1 else ''}"
    golden = None
    if subject.golden:
        golden = f"golden examples {'agree' if subject.golden.agrees else 'DISAGREE'}"
    host = f"on {subject.host}" if subject.host else None
    parts = (subject.architecture, subject.precision, subject.runtime, threads, host, golden)
    return ", ".join(part for part in parts if part)


def _say(sentence: str, indent: str = "") -> None:
    """Print a sentence in lines that the terminal does not break; paths and names stay whole."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    typer.echo(textwrap.fill(sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))

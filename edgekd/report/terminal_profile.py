"""How a profile is shown in the terminal: the verdict, narrow tables, and what a reader should know of them.

A table of all figures would be 200 columns wide; so there is one of accuracy, one of time, one of cost, and so on. The
best value of a column has a `*` before it, which survives pipes, black-and-white terminals and right alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.escaping import shortened, terminal_text
from edgekd.number_formats import NONE, area, count, number, percent, power, setting, size
from edgekd.report.terminal import WIDTH, line, paragraph, table

if TYPE_CHECKING:
    from edgekd.report.figures import Row
    from edgekd.report.results import Point, Probe, Profile, Subject

LAYERS = 10
SCORES = ("softmax", "energy", "mahalanobis")
NAME = 40  # letters of a subject's name in a table; the list below the tables has it in full
GAP = 2  # between columns

Columns = dict[str, list[str]]  # heads, and below each a cell for each subject

TIME = {
    "p50 ms": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "IQR": "spread_ms",
    "speed-up": "speedup",
    "RTF": "real_time_factor",
    "mel": "frontend_ms",
    "net": "network_ms",
}
COST = {
    "params": "parameters",
    "MACs": "macs",
    "mel MACs": "frontend_macs",
    "file": "file_bytes",
    "activ.": "activation_bytes",
    "process": "process_bytes",
    "peak": "peak_process_bytes",
}

BOARD = {
    "constants": "board_constant_bytes",
    "flash": "board_flash_bytes",
    "edgekd_t": "board_state_bytes",
    "RAM": "board_ram_bytes",
    "stack": "board_stack_bytes",
    "instr.": "board_instructions",
    "log-mel": "board_log_mel_instructions",
    "network": "board_network_instructions",
    "longest push": "board_longest_push_instructions",
}


def print_profile(profile: Profile, out: Path | None) -> None:
    """What was given up and what was gained; `out` is the folder that the report was written to."""
    from edgekd.report.figures import row

    for sentence in profile.verdict:
        paragraph(sentence)
    scored = [subject for subject in profile.subjects if subject.scores]
    if scored:
        paragraph(f"Scored on {profile.clips}; intervals are 95%.")
    rows = [row(subject) for subject in profile.subjects]
    tables = (
        ("", scored, _accuracy(profile, [row(subject) for subject in scored])),
        ("Calibration error, before the temperature too", scored, _calibration([row(subject) for subject in scored])),
        ("One clip, waveform to scores; RTF: real-time factor; mel, net: a part alone", None, _figures(TIME, rows)),
        ("Cost", None, _figures(COST, rows)),
        ("Energy, and how long the battery lasts", None, _energy(profile, rows)),
        ("On its microcontroller, a second of sound; ms and mJ are estimated", None, _on_board(profile, rows)),
        *_robustness(profile),
        *_unknown(profile),
        ("Clips a second: batch/threads", None, _throughput(profile)),
    )
    for title, subjects, columns in tables:
        names = [subject.name for subject in (profile.subjects if subjects is None else subjects)]
        _print_columns(title, names, columns)
    for subject in profile.subjects:
        _print_layers(subject)
    line()
    if any(cell.startswith("*") for _, _, columns in tables for cells in columns.values() for cell in cells):
        paragraph("* best of its column.")
    for subject in profile.subjects:
        paragraph(f"{subject.name}: {_description(subject)}", "  ")
    machine = ", ".join(filter(None, (profile.machine.cpu, profile.machine.gpu)))
    if machine:
        paragraph(f"Machine: {machine}")
    for note in profile.notes:
        paragraph(f"Note: {note}", "  ")
    if out is not None:
        paragraph(f"Written: {out} (report.html, report.json, report.md, report.csv)", "  ")


def _figures(heads: Mapping[str, str], rows: Sequence[Row]) -> Columns:
    """Columns of figures: `heads` names the key of each."""
    return {head: _cells(key, rows) for head, key in heads.items()}


def _cells(key: str, rows: Sequence[Row], with_interval: bool = False) -> list[str]:
    """A figure of each row, the best marked; a speed-up and what is asked for has its interval behind it."""
    from edgekd.report.figures import FIGURES_BY_KEY

    figure = FIGURES_BY_KEY[key]
    winners = figure.winners(rows)
    cells = []
    for index, values in enumerate(rows):
        ends = figure.interval(values) if with_interval or key == "speedup" else ""
        cells.append(("*" if index in winners else "") + figure.value(values) + (f" ({ends})" if ends else ""))
    return cells


def _accuracy(profile: Profile, rows: Sequence[Row]) -> Columns:
    from edgekd.report.figures import measure_of

    measure = measure_of(profile)
    columns = {
        measure.label: _cells(measure.key, rows),
        "interval": [measure.interval(values) for values in rows],
        "macro-F1": _cells("macro_f1", rows),
        "less baseline": _cells(f"{measure.key}_difference", rows, with_interval=True),
    }
    if measure.key == "accuracy":
        columns |= {"McNemar": _cells("mcnemar_p", rows), "flip p": _cells("sign_flip_p", rows)}
    return columns


def _calibration(rows: Sequence[Row]) -> Columns:
    """What the temperature changed; nothing where no subject has one."""
    if all(values["calibration_error_before"] is None for values in rows):
        return {}
    return {
        "error": _cells("calibration_error", rows, with_interval=True),
        "before": _cells("calibration_error_before", rows, with_interval=True),
        "temperature": _cells("temperature", rows),
    }


def _energy(profile: Profile, rows: Sequence[Row]) -> Columns:
    energies = [subject.energy for subject in profile.subjects]
    return {
        "a clip": _cells("joules_per_clip", rows),
        "busy": [NONE if used is None or used.watts is None else power(used.watts) for used in energies],
        "idle": [NONE if used is None or used.idle_watts is None else power(used.idle_watts) for used in energies],
        "days": _cells("battery_days", rows),
        "by": [f"{used.source}{'' if used.measured else ', estimated'}" if used else NONE for used in energies],
    }


def _on_board(profile: Profile, rows: Sequence[Row]) -> Columns:
    found = [subject.microcontroller for subject in profile.subjects]
    return {
        **_figures(BOARD, rows),
        "ms": [_range(board.milliseconds if board else None) for board in found],
        "mJ": [_range(board.millijoules if board else None) for board in found],
    }


def _range(span: tuple[float, float] | None) -> str:
    return NONE if span is None else f"{number(span[0])}-{number(span[1])}"


def _robustness(profile: Profile) -> list[tuple[str, list[Subject], Columns]]:
    from edgekd.report.figures import titled

    robust = [(subject, subject.robustness) for subject in profile.subjects if subject.robustness]
    subjects = [subject for subject, _ in robust]
    return [
        (f"{titled(profile)} with added noise: dB", subjects, _conditions([curves.noise for _, curves in robust])),
        (
            f"{titled(profile)} on shorter clips: seconds",
            subjects,
            _conditions([curves.length for _, curves in robust]),
        ),
    ]


def _unknown(profile: Profile) -> list[tuple[str, list[Subject], Columns]]:
    """Of each kind of sound, what is answered with confidence, and how well scores tell it."""
    heard = [(subject, subject.unknown) for subject in profile.subjects if subject.unknown]
    subjects = [subject for subject, _ in heard]
    kinds = list(dict.fromkeys(probe.kind for _, unknown in heard for probe in unknown.probes))
    by_kind = [{probe.kind: probe for probe in unknown.probes} for _, unknown in heard]
    heads = {kind: kind.removeprefix("digital ").removeprefix("your ").removesuffix(" noise") for kind in kinds}
    sure: Columns = {
        heads[kind]: [percent(probes[kind].confident) if kind in probes else NONE for probes in by_kind]
        for kind in kinds
    }
    tables = [("None of the classes, yet answered with 99% confidence", subjects, sure)]
    for name in SCORES:
        columns: Columns = {}
        for kind in kinds:
            found = [probes.get(kind) for probes in by_kind]
            columns[heads[kind]] = [_told_apart(probe, name) for probe in found]
        lost = [unknown.lost.get(name) for _, unknown in heard]
        columns["known lost"] = [NONE if share is None else percent(share) for share in lost]
        if any(cell != NONE for kind in kinds for cell in columns[heads[kind]]):
            title = f"None of the classes, by {name}: AUROC, and what is not rejected at the threshold"
            tables.append((title, subjects, columns))
    return tables


def _told_apart(probe: Probe | None, score: str) -> str:
    """`0.93, 12.5%`."""
    if probe is None or score not in probe.auroc:
        return NONE
    alarms = probe.false_alarms.get(score)
    return area(probe.auroc[score]) + ("" if alarms is None else f", {percent(alarms)}")


def _conditions(curves: Sequence[tuple[Point, ...]]) -> Columns:
    accuracies = [{point.value: point.measure for point in points} for points in curves]
    values = sorted({value for of_subject in accuracies for value in of_subject}, reverse=True)
    return {setting(value): _marked([of_subject.get(value) for of_subject in accuracies], percent) for value in values}


def _throughput(profile: Profile) -> Columns:
    rates = [
        {(batch.threads, batch.batch): batch.clips_per_second for batch in subject.throughput}
        for subject in profile.subjects
    ]
    ways = sorted({way for of_subject in rates for way in of_subject})
    return {
        f"{batch}/{threads}": _marked([of_subject.get((threads, batch)) for of_subject in rates], number)
        for threads, batch in ways
    }


def _marked(values: Sequence[float | None], written: Callable[[float], str]) -> list[str]:
    """Values of which the highest is best, with a `*` before it where they do not all read the same."""
    known = [value for value in values if value is not None]
    best = written(max(known)) if len({written(value) for value in known}) > 1 else None
    cells = [NONE if value is None else written(value) for value in values]
    return [f"*{cell}" if cell == best else cell for cell in cells]


def _print_layers(subject: Subject) -> None:
    slowest = sorted(subject.layers, key=lambda layer: -layer.ms)[:LAYERS]
    columns = {
        "ms": [number(layer.ms) for layer in slowest],
        "share": [percent(layer.share) for layer in slowest],
        "MACs": [NONE if layer.macs is None else count(layer.macs) for layer in slowest],
        "output": [NONE if layer.output_bytes is None else size(layer.output_bytes) for layer in slowest],
        "precision": [layer.precision or NONE for layer in slowest],
    }
    room = WIDTH - sum(_widths(columns).values())
    names = [shortened(terminal_text(layer.name), room) for layer in slowest]
    _print_columns(f"Layers of {subject.name}, the slowest {len(slowest)} of {len(subject.layers)}", names, columns)


def _print_columns(title: str, names: Sequence[str], columns: Columns) -> None:
    """Print columns beside names, in as many tables as it takes; without those that are empty."""
    known = {head: cells for head, cells in columns.items() if any(cell not in {"", NONE} for cell in cells)}
    if not known:
        return
    beside = [shortened(terminal_text(name), NAME) for name in names]
    room = WIDTH - max(map(len, beside))
    widths = _widths(known)
    heads = list(known)
    tables = next(
        (
            parts
            for parts in range(1, len(heads))
            if all(sum(widths[head] for head in part) <= room for part in _parts(heads, parts))
        ),
        len(heads),
    )
    for order, part in enumerate(_parts(heads, tables)):
        line()
        if title and order == 0:
            paragraph(title)
        table(
            ("", *part),
            [(name, *(known[head][index] for head in part)) for index, name in enumerate(beside)],
            numbers=part,
        )


def _parts(heads: Sequence[str], parts: int) -> list[Sequence[str]]:
    """`heads` in `parts` of about as many."""
    edges = [round(len(heads) * part / parts) for part in range(parts + 1)]
    return [heads[first:last] for first, last in pairwise(edges)]


def _widths(columns: Columns) -> dict[str, int]:
    """What each column takes, with the gap before it."""
    return {head: GAP + max(len(cell) for cell in (head, *cells)) for head, cells in columns.items()}


def _description(subject: Subject) -> str:
    threads = None if subject.threads is None else f"{subject.threads} thread{'s' if subject.threads > 1 else ''}"
    golden = None
    if subject.golden:
        golden = f"golden examples {'agree' if subject.golden.agrees else 'DISAGREE'}"
    host = f"on {subject.host}" if subject.host else None
    return ", ".join(filter(None, (subject.architecture, subject.precision, subject.runtime, threads, host, golden)))

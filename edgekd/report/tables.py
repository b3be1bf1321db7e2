"""A profile as rows of figures, and what is made of them: `report.md` for pull requests and `report.csv`.

`row` is all that is known of a subject, flat, for programs. `FIGURES` says which of it a reader is shown, in which
order and in which words; the terminal and `report.html` take theirs from it too, so that all say the same.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from edgekd.report.results import Machine, Profile, Subject

Value = str | int | float | None
Row = Mapping[str, Value]

NONE, _MINUS, _TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def row(subject: Subject) -> dict[str, Value]:
    """A subject's figures by name: shares from 0 to 1, bytes, ms. None where there is none; an interval's ends are
    called like its figure, with `_low` and `_high`."""
    scores, latency, cost, versus = subject.scores, subject.latency, subject.cost, subject.versus
    paired, speedup = (versus.accuracy, versus.speedup) if versus else (None, None)
    return {
        "subject": subject.name,
        **{key: getattr(subject, key) for key in ("kind", "role", "source", "host", "architecture", "precision")},
        **{key: getattr(subject, key) for key in ("backend", "runtime", "threads")},
        "clips": scores.clips if scores else None,
        "groups": scores.groups if scores else None,
        **_with_interval("accuracy", (scores.accuracy, *scores.accuracy_interval) if scores else None),
        **_with_interval("macro_f1", (scores.macro_f1, *scores.macro_f1_interval) if scores else None),
        "calibration_error": scores.calibration_error if scores else None,
        "baseline": versus.baseline if versus else None,
        **_with_interval("accuracy_difference", (paired.accuracy, *paired.accuracy_interval) if paired else None),
        "mcnemar_p": paired.mcnemar if paired else None,
        "sign_flip_p": paired.sign_flip if paired else None,
        **_with_interval("speedup", (speedup.value, speedup.low, speedup.high) if speedup else None),
        "smaller": versus.smaller if versus else None,
        **_with_interval("p50_ms", (latency.p50_ms, *latency.p50_interval_ms)),
        **{key: getattr(latency, key) for key in ("mean_ms", "p95_ms", "p99_ms", "spread_ms", "repetitions")},
        **{key: getattr(latency, key) for key in ("settled", "frontend_ms", "network_ms", "device_ms")},
        "real_time_factor": latency.real_time_factor,
        "clips_per_second": max((one.clips_per_second for one in subject.throughput), default=None),
        **cost.model_dump(),
        "joules_per_clip": subject.energy.joules_per_clip if subject.energy else None,
        "energy_source": subject.energy.source if subject.energy else None,
        "energy_measured": subject.energy.measured if subject.energy else None,
        "battery_days": subject.battery.days if subject.battery else None,
        "golden_agrees": subject.golden.agrees if subject.golden else None,
    }


def _with_interval(key: str, found: tuple[float, float, float] | None) -> dict[str, Value]:
    value, low, high = found or (None, None, None)
    return {key: value, f"{key}_low": low, f"{key}_high": high}


def percent(share: float) -> str:
    """`92.5 %`."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """`−6.2`, in points of a per cent."""
    return f"{100 * share:+.1f}".replace("-", _MINUS)


def milliseconds(value: float) -> str:
    """`0.214`, `3.40`, `23.9`, `1,204`: three digits, or more before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.1 else f"{value:#.3g}"


def p_value(value: float) -> str:
    """`0.031`, `< 0.001`."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def compact(count: float) -> str:
    """`812`, `25.5 k`, `69.2 M`, `1.1 G`."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            return f"{count / size:.1f}{letter}"
    return f"{count:.0f}"


def size(count: float) -> str:
    """`812 B`, `231 KiB`, `14.4 MiB`."""
    if count >= 2**20:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 2**10:.0f} KiB" if count >= 2**10 else f"{count:.0f} B"


def energy(joules: float) -> str:
    """`83 µJ`, `11.2 mJ`, `1.20 J`."""
    for unit, word in ((1.0, "J"), (1e-3, "mJ")):
        if joules >= unit:
            return f"{joules / unit:.3g} {word}"
    return f"{joules / 1e-6:.3g} µJ"


def times(ratio: float) -> str:
    """`9.2×`."""
    return (f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2f}") + _TIMES


@dataclass(frozen=True)
class Figure:
    """A figure that readers are shown: `key` of `row`, what it is called, in which words, and which end is best."""

    key: str
    label: str
    shown: Callable[[float], str]
    best: Literal["high", "low"] | None = None

    def value(self, row: Row) -> str:
        """In words; `NONE` where there is none."""
        found = row[self.key]
        return NONE if found is None or isinstance(found, str) else self.shown(found)

    def interval(self, row: Row) -> str:
        """`85.5 to 96.8`; "" where the figure has none."""
        ends = [row.get(f"{self.key}_{end}") for end in ("low", "high")]
        shown = [self.shown(end) for end in ends if isinstance(end, float)]
        return " to ".join(end.rstrip(f" %{_TIMES}") for end in shown)

    def winners(self, rows: Sequence[Row]) -> set[int]:
        """The places of the rows that are best, as far as one can read; none where there is nothing to choose."""
        known = {place: found for place, one in enumerate(rows) if isinstance(found := one[self.key], int | float)}
        if self.best is None or len({self.shown(value) for value in known.values()}) < 2:
            return set()
        first = (max if self.best == "high" else min)(known.values())
        return {place for place, value in known.items() if self.shown(value) == self.shown(first)}


FIGURES: dict[str, tuple[Figure, ...]] = {
    "Accuracy": (
        Figure("accuracy", "accuracy", percent, "high"),
        Figure("accuracy_difference", "less the baseline, points", points),
        Figure("mcnemar_p", "McNemar p", p_value),
        Figure("sign_flip_p", "sign-flip p", p_value),
        Figure("macro_f1", "macro-F1", percent, "high"),
        Figure("calibration_error", "calibration error", percent, "low"),
    ),
    "Time of one clip": (
        Figure("p50_ms", "p50, ms", milliseconds, "low"),
        Figure("p95_ms", "p95, ms", milliseconds, "low"),
        Figure("p99_ms", "p99, ms", milliseconds, "low"),
        Figure("spread_ms", "spread, ms", milliseconds, "low"),
        Figure("speedup", "speed-up", times, "high"),
        Figure("real_time_factor", "real-time factor", lambda factor: f"{factor:.2g}", "low"),
        Figure("frontend_ms", "front end alone, ms", milliseconds),
        Figure("network_ms", "network alone, ms", milliseconds),
        Figure("device_ms", "on the GPU alone, ms", milliseconds),
    ),
    "Cost": (
        Figure("file_bytes", "file", size, "low"),
        Figure("smaller", "smaller than the baseline", times, "high"),
        Figure("parameters", "parameters", compact, "low"),
        Figure("macs", "MACs of the network", compact, "low"),
        Figure("frontend_macs", "MACs of the front end", compact),
        Figure("activation_bytes", "activations, from the graph", size, "low"),
        Figure("measured_activation_bytes", "activations, measured", size, "low"),
        Figure("process_bytes", "memory of the process", size, "low"),
        Figure("peak_process_bytes", "peak memory of the process", size),
        Figure("arithmetic_intensity", "MACs a byte", lambda macs: f"{macs:#.3g}"),
    ),
    "Energy": (
        Figure("joules_per_clip", "energy of one clip", energy, "low"),
        Figure("battery_days", "battery, days", lambda days: f"{days:.3g}", "high"),
    ),
}


GLOSSARY = {  # by the figure that brings it into a report
    "accuracy": (
        "Accuracy, macro-F1",
        "The share of clips that got the right class, and the mean over classes of the harmonic mean of precision and "
        "recall. Intervals are 95 % intervals, from recordings drawn anew: clips of one recording are not independent.",
    ),
    "accuracy_difference": (
        "Less the baseline",
        "The subject's accuracy less the baseline's on the same clips, in points of a per cent. An interval that holds "
        "0 shows no difference.",
    ),
    "mcnemar_p": (
        "McNemar p",
        "How likely as lopsided a count of clips that only one of the two got right is, were both equally good. It "
        "takes all clips for independent; several of one recording are not, and then it is too small.",
    ),
    "sign_flip_p": (
        "Sign-flip p",
        "The same question asked of whole recordings: how likely as large a difference is if each recording's could "
        "as well have been the other way round.",
    ),
    "calibration_error": (
        "Calibration error",
        "How far the stated probability is from the share that was right, on average (expected, 15 bins).",
    ),
    "p50_ms": (
        "p50, p95, p99, spread",
        "The time that half, 95 % and 99 % of all clips stayed within, from waveform to scores, one clip at a time; "
        "the spread is that of the middle half.",
    ),
    "speedup": ("Speed-up", "The baseline's time over the subject's, measured in turns so that drift hits both alike."),
    "real_time_factor": ("Real-time factor", "Time of a clip over its length: below 1 it keeps up with the sound."),
    "macs": ("MAC", "One multiplication with its addition."),
    "activation_bytes": ("Activations", "The most memory that intermediate results take at once."),
    "joules_per_clip": ("Energy of one clip", "Measured or estimated, as the table of energy says."),
}


def known_figures(rows: Sequence[Row]) -> dict[str, tuple[Figure, ...]]:
    """`FIGURES` without what no row has."""
    found = {
        heading: tuple(figure for figure in figures if any(one[figure.key] is not None for one in rows))
        for heading, figures in FIGURES.items()
    }
    return {heading: figures for heading, figures in found.items() if figures}


def report_csv(profile: Profile) -> str:
    """A row a subject: all of `row`, accuracy under each condition, clips a second for each batch, recall of each
    class."""
    rows = [row(one) | _conditions(one) for one in profile.subjects]
    columns = list(dict.fromkeys(key for one in rows for key in one))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _conditions(subject: Subject) -> dict[str, Value]:
    found: dict[str, Value] = {}
    robust = subject.robustness
    for unit, conditions in (("db", robust.noise), ("s", robust.length)) if robust else ():
        found |= {f"accuracy_at_{point.value:g}_{unit}": point.accuracy for point in conditions}
    for one in subject.throughput:
        found[f"clips_per_second_batch_{one.batch}_threads_{one.threads}"] = one.clips_per_second
    if subject.scores:
        pairs = zip(subject.scores.classes, subject.scores.recall, strict=True)
        found |= {f"recall_{name}": recall for name, recall in pairs}
    return found


def report_markdown(profile: Profile) -> str:
    """The profile for a pull request, in GitHub's Markdown: the verdict, one table, notes, and the rest folded away."""
    parts = [f"## Profile{f' on {_plain(profile.dataset)}' if profile.dataset else ''}"]
    parts += [f"**{_plain(sentence)}**" for sentence in profile.verdict]
    parts.append(_figures_table(profile))
    scored = f" Scored on {_plain(profile.clips)}." if any(one.scores for one in profile.subjects) else ""
    parts.append(f"★ best value of its row. Intervals are 95 %.{scored}")
    if profile.notes:
        parts.append("\n".join(f"> - {_plain(note)}" for note in profile.notes))
    recalls = recall_rows(profile)
    if recalls:
        names = [one.name for one in profile.subjects if one.scores]
        lines = [[name, *(NONE if share is None else percent(share) for share in shares)] for name, shares in recalls]
        parts.append(_folded("Recall of each class", _markdown(["class", *names], lines)))
    machines = {profile_machine: described(machine) for profile_machine, machine in machines_of(profile).items()}
    keys = list(dict.fromkeys(key for told in machines.values() for key in told))
    lines = [[key, *(told.get(key, NONE) for told in machines.values())] for key in keys]
    parts.append(_folded("Where times were taken", _markdown(["", *machines], lines)))
    if profile.command:
        command = shlex.join(profile.command)
        fence = "`" * (3 + command.count("`"))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    parts.append(f"edgekd {_plain(profile.edgekd)}, {_plain(profile.created)}")
    return "\n\n".join(parts) + "\n"


def _figures_table(profile: Profile) -> str:
    rows = [row(one) for one in profile.subjects]
    lines = []
    for figures in known_figures(rows).values():
        for figure in figures:
            winners = figure.winners(rows)
            cells = []
            for place, one in enumerate(rows):
                interval = figure.interval(one)
                cells.append(
                    figure.value(one) + (f" ({interval})" if interval else "") + (" ★" if place in winners else "")
                )
            lines.append([figure.label, *cells])
    return _markdown(["", *(one.name for one in profile.subjects)], lines)


def recall_rows(profile: Profile) -> list[tuple[str, list[float | None]]]:
    """Recall of each class by every subject that was scored."""
    scored = [one.scores for one in profile.subjects if one.scores]
    if not scored:
        return []
    return [(name, [scores.recall[place] for scores in scored]) for place, name in enumerate(scored[0].classes)]


def machines_of(profile: Profile) -> dict[str, Machine]:
    """The machines that times were taken on, by host; the one that made the report is `this machine`."""
    hosts = {one.host or one.name: one.machine for one in profile.subjects if one.machine}
    return {"this machine": profile.machine, **hosts}


def described(machine: Machine) -> dict[str, str]:
    """What is known of a machine, in words."""
    found: dict[str, str | None] = {
        "CPU": f"{machine.cpu or 'not told'}, {machine.cpus} logical",
        "GPU": machine.gpu,
        "busy": "yes: others used it while it was timed" if machine.busy else "no",
        "load before": None if machine.load_average is None else f"{machine.load_average:.2f}",
        "used by others": None if machine.cpus_used_by_others is None else f"{machine.cpus_used_by_others:.2f} CPUs",
        "governor": machine.governor,
        "clock after": _clocks(machine),
        "GPU clocks": "; ".join(
            f"{name}: {', '.join(f'{part} {mhz} MHz' for part, mhz in clocks.items())}"
            for name, clocks in machine.devices.items()
        ),
        "power mode": machine.power_mode,
        "temperatures": ", ".join(f"{place} {degrees:.0f} °C" for place, degrees in machine.temperatures.items()),
        "throttled": ", ".join(machine.throttled),
    }
    return {key: told for key, told in found.items() if told}


def _clocks(machine: Machine) -> str | None:
    if not machine.mhz:
        return f"at most {machine.max_mhz} MHz" if machine.max_mhz else None
    low, high = min(machine.mhz), max(machine.mhz)
    most = f" of {machine.max_mhz}" if machine.max_mhz else ""
    return f"{low if low == high else f'{low} to {high}'}{most} MHz"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n\n{content}\n\n</details>"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    table = [[_plain(cell) for cell in head], rule, *([_plain(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _plain(content: str) -> str:
    """`content` as letters: in Markdown, nothing in it is markup."""
    one_line = " ".join(content.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#~$&" else letter for letter in one_line)

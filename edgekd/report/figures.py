"""A profile as rows of figures: which there are, what they are called, how they are written and which end is best.

`row` is all that is known of a subject, flat, for programs. `FIGURES` says which of it a reader is shown, and in which
order; the terminal, the page and Markdown all take theirs from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.number_formats import (
    NONE,
    area,
    count,
    energy,
    interval,
    number,
    p_value,
    percent,
    points,
    real_time_factor,
    size,
    times,
)
from edgekd.report.results import Calibration, Microcontroller, Profile, Subject
from edgekd.scoring.differences import Difference
from edgekd.scoring.label_scores import LabelScores

Value = str | int | float | None
Row = Mapping[str, Value]


def row(subject: Subject) -> dict[str, Value]:
    """A subject's figures by name: shares from 0 to 1, bytes, ms. None where there is none; an interval's ends are
    called like its figure, with `_low` and `_high`."""
    scores, latency, cost, versus = subject.scores, subject.latency, subject.cost, subject.versus
    paired, speedup = (versus.measured, versus.speedup) if versus else (None, None)
    calibration = subject.calibration
    counted = paired if isinstance(paired, Difference) else None
    measure = "mean_average_precision" if isinstance(scores, LabelScores) else "accuracy"
    return {
        "subject": subject.name,
        **{key: getattr(subject, key) for key in ("kind", "role", "source", "host", "architecture", "precision")},
        **{key: getattr(subject, key) for key in ("backend", "runtime", "threads")},
        "clips": scores.clips if scores else None,
        "groups": scores.groups if scores else None,
        **_with_interval(measure, (scores.measure, *scores.measure_interval) if scores else None),
        **_with_interval("macro_f1", (scores.macro_f1, *scores.macro_f1_interval) if scores else None),
        **_calibration(calibration, scores.calibration_error if scores else None),
        "baseline": versus.baseline if versus else None,
        **_with_interval(f"{measure}_difference", (paired.measure, *paired.measure_interval) if paired else None),
        "mcnemar_p": counted.mcnemar if counted else None,
        "sign_flip_p": counted.sign_flip if counted else None,
        **_with_interval("speedup", (speedup.value, speedup.low, speedup.high) if speedup else None),
        "smaller": versus.smaller if versus else None,
        **_with_interval("p50_ms", (latency.p50_ms, *latency.p50_interval_ms)),
        **{key: getattr(latency, key) for key in ("mean_ms", "p95_ms", "p99_ms", "spread_ms", "repetitions")},
        **{key: getattr(latency, key) for key in ("settled", "frontend_ms", "network_ms", "device_ms")},
        "real_time_factor": latency.real_time_factor,
        "clips_per_second": max((batch.clips_per_second for batch in subject.throughput), default=None),
        **cost.model_dump(),
        "joules_per_clip": subject.energy.joules_per_clip if subject.energy else None,
        "energy_source": subject.energy.source if subject.energy else None,
        "energy_measured": subject.energy.measured if subject.energy else None,
        "battery_days": subject.battery.days if subject.battery else None,
        **_on_board(subject.microcontroller),
        "golden_agrees": subject.golden.agrees if subject.golden else None,
    }


_ON_BOARD = (
    *("constant_bytes", "flash_bytes", "state_bytes", "ram_bytes", "stack_bytes"),
    *("instructions", "log_mel_instructions", "network_instructions", "longest_push_instructions"),
)


def _on_board(found: Microcontroller | None) -> dict[str, Value]:
    """What a bundle of C takes of its board; of ranges both ends."""
    spans = {"milliseconds": found.milliseconds if found else None, "millijoules": found.millijoules if found else None}
    return {
        **{f"board_{key}": getattr(found, key, None) for key in _ON_BOARD},
        **{
            f"board_{key}_{end}": span[index] if span else None
            for key, span in spans.items()
            for index, end in enumerate(("least", "most"))
        },
    }


def _calibration(calibration: Calibration | None, error: float | None) -> dict[str, Value]:
    """Of reports of version 2 the `error` alone."""
    if calibration is None:
        return {"calibration_error": error, **dict.fromkeys(_CALIBRATION)}
    before, ends = calibration.error_before, calibration.error_before_interval
    return {
        **_with_interval("calibration_error", (calibration.error, *calibration.error_interval)),
        **_with_interval("calibration_error_before", None if before is None or ends is None else (before, *ends)),
        "temperature": calibration.temperature,
        "cross_entropy": calibration.cross_entropy,
        "cross_entropy_before": calibration.cross_entropy_before,
    }


_CALIBRATION = (
    *("calibration_error_low", "calibration_error_high"),
    *(f"calibration_error_before{end}" for end in ("", "_low", "_high")),
    *("temperature", "cross_entropy", "cross_entropy_before"),
)


def _with_interval(key: str, estimate: tuple[float, float, float] | None) -> dict[str, Value]:
    value, low, high = estimate or (None, None, None)
    return {key: value, f"{key}_low": low, f"{key}_high": high}


@dataclass(frozen=True)
class Figure:
    """A figure that readers are shown: `key` of `row`, what it is called, how it is written, and which end is best."""

    key: str
    label: str
    written: Callable[[float], str]
    best: Literal["high", "low"] | None = None

    def value(self, row: Row) -> str:
        """As it is written; `NONE` where there is none."""
        value = row.get(self.key)
        return NONE if value is None or isinstance(value, str) else self.written(value)

    def interval(self, row: Row) -> str:
        """`85.5 to 96.8`; "" where the figure has none."""
        low, high = (row.get(f"{self.key}_{end}") for end in ("low", "high"))
        return interval(low, high, self.written) if isinstance(low, float) and isinstance(high, float) else ""

    def winners(self, rows: Sequence[Row]) -> set[int]:
        """Which of the rows are best, as far as one can read; none where there is nothing to choose."""
        known = {index: value for index, row in enumerate(rows) if isinstance(value := row.get(self.key), int | float)}
        if self.best is None or len({self.written(value) for value in known.values()}) < 2:
            return set()
        best = self.written((max if self.best == "high" else min)(known.values()))
        return {index for index, value in known.items() if self.written(value) == best}


FIGURES: dict[str, tuple[Figure, ...]] = {
    "Accuracy": (
        Figure("accuracy", "accuracy", percent, "high"),
        Figure("accuracy_difference", "less the baseline, points", points),
        Figure("mean_average_precision", "mAP", percent, "high"),
        Figure("mean_average_precision_difference", "mAP less the baseline's, points", points),
        Figure("mcnemar_p", "McNemar p", p_value),
        Figure("sign_flip_p", "sign-flip p", p_value),
        Figure("macro_f1", "macro-F1", percent, "high"),
        Figure("calibration_error", "calibration error", percent, "low"),
        Figure("calibration_error_before", "before its temperature", percent),
        Figure("temperature", "temperature", number),
    ),
    "Time of one clip": (
        Figure("p50_ms", "p50, ms", number, "low"),
        Figure("p95_ms", "p95, ms", number, "low"),
        Figure("p99_ms", "p99, ms", number, "low"),
        Figure("spread_ms", "spread, ms", number, "low"),
        Figure("speedup", "speed-up", times, "high"),
        Figure("real_time_factor", "real-time factor", real_time_factor, "low"),
        Figure("frontend_ms", "front end alone, ms", number),
        Figure("network_ms", "network alone, ms", number),
        Figure("device_ms", "on the GPU alone, ms", number),
    ),
    "Cost": (
        Figure("file_bytes", "file", size, "low"),
        Figure("smaller", "smaller than the baseline", times, "high"),
        Figure("parameters", "parameters", count, "low"),
        Figure("macs", "MACs of the network", count, "low"),
        Figure("frontend_macs", "MACs of the front end", count),
        Figure("activation_bytes", "activations, from the graph", size, "low"),
        Figure("measured_activation_bytes", "activations, measured", size, "low"),
        Figure("process_bytes", "memory of the process", size, "low"),
        Figure("peak_process_bytes", "peak memory of the process", size),
        Figure("arithmetic_intensity", "MACs a byte", number),
    ),
    "On its microcontroller": (
        Figure("board_constant_bytes", "constants", size, "low"),
        Figure("board_flash_bytes", "flash: constants and code", size, "low"),
        Figure("board_state_bytes", "an edgekd_t", size, "low"),
        Figure("board_ram_bytes", "RAM, stack included", size, "low"),
        Figure("board_stack_bytes", "stack", size),
        Figure("board_instructions", "instructions a second of sound", count, "low"),
        Figure("board_log_mel_instructions", "of them log-mel", count),
        Figure("board_network_instructions", "of them network", count),
        Figure("board_longest_push_instructions", "instructions of the longest push of a frame's hop", count),
        Figure("board_milliseconds_least", "ms a second of sound, estimated: at least", number),
        Figure("board_milliseconds_most", "at most", number),
        Figure("board_millijoules_least", "mJ a second of sound, estimated: at least", number),
        Figure("board_millijoules_most", "at most", number),
    ),
    "Energy": (
        Figure("joules_per_clip", "energy of one clip", energy, "low"),
        Figure("battery_days", "battery, days", number, "high"),
    ),
}
FIGURES_BY_KEY: dict[str, Figure] = {figure.key: figure for figures in FIGURES.values() for figure in figures}


GLOSSARY = {  # by the figure that brings it into a report
    "accuracy": (
        "Accuracy, macro-F1",
        "The share of clips that got the right class, and the mean over classes of the harmonic mean of precision and "
        "recall. Intervals are 95% intervals, from recordings drawn anew: clips of one recording are not independent.",
    ),
    "mean_average_precision": (
        "mAP, macro-F1",
        "Each class is answered for itself. Average precision: how well the clips that have a class are ranked before "
        "those that have not, over all thresholds; mAP is its mean over the classes. Macro-F1 is at the thresholds. "
        "Intervals are 95% intervals, from recordings drawn anew: clips of one recording are not independent.",
    ),
    "mean_average_precision_difference": (
        "mAP less the baseline's",
        "The subject's mAP less the baseline's on the same clips, in points of a per cent, by a paired bootstrap over "
        "recordings. An interval that holds 0 shows none: the recordings are too few to tell so small a difference.",
    ),
    "accuracy_difference": (
        "Less the baseline",
        "The subject's accuracy less the baseline's on the same clips, in points of a per cent. An interval that holds "
        "0 shows none: the recordings are too few to tell so small a difference.",
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
    "calibration_error_before": (
        "Temperature",
        "What the logits are divided by, in the graph, so that probabilities are nearer to what is true; chosen on the "
        "validation side. 1 where none helped there.",
    ),
    "p50_ms": (
        "p50, p95, p99, spread",
        "The time that half, 95% and 99% of all clips stayed within, from waveform to scores, one clip at a time; "
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
    known = {
        heading: tuple(figure for figure in figures if any(row.get(figure.key) is not None for row in rows))
        for heading, figures in FIGURES.items()
    }
    return {heading: figures for heading, figures in known.items() if figures}


def measure_of(profile: Profile) -> Figure:
    """The figure that the subjects of a profile are judged by."""
    several = any(isinstance(subject.scores, LabelScores) for subject in profile.subjects)
    return FIGURES_BY_KEY["mean_average_precision" if several else "accuracy"]


def titled(profile: Profile) -> str:
    """The name of that figure, as a sentence begins with it."""
    name = measure_of(profile).label
    return name[:1].upper() + name[1:] if name.islower() else name


def of_classes(profile: Profile) -> tuple[str, str]:
    """What is told of each class, in a title and in a sentence."""
    if measure_of(profile).key != "accuracy":
        return (
            "Average precision of each class",
            "Average precision: 1 where every clip that has the class comes first.",
        )
    return "Recall of each class", "Recall: the share of the clips of a class that got this class."


def class_rows(profile: Profile) -> list[tuple[str, list[float | None]]]:
    """Recall of each class by every subject that was scored, or average precision where clips are of several."""
    scored = [subject.scores for subject in profile.subjects if subject.scores]
    if not scored:
        return []
    each = [scores.average_precision if isinstance(scores, LabelScores) else scores.recall for scores in scored]
    return [(name, [shares[index] for shares in each]) for index, name in enumerate(scored[0].classes)]


UNKNOWN_HEADS = ("subject", "sound", "clips", "99% confident", "named", "score", "AUROC", "not rejected", "known lost")


def unknown_rows(profile: Profile) -> list[tuple[str, ...]]:
    """What each subject makes of sounds that are none of the classes, a row a score; `UNKNOWN_HEADS` are the columns.

    A `*` marks the score that a subject ships with. Of figures that older reports have, there is no interval.
    """

    def told(share: float | None, ends: tuple[float, float] | None, words: Callable[[float], str]) -> str:
        if share is None:
            return NONE
        return words(share) if ends is None else f"{words(share)} ({interval(ends[0], ends[1], words)})"

    rows: list[tuple[str, ...]] = []
    for subject in profile.subjects:
        unknown = subject.unknown
        for probe in unknown.probes if unknown else ():
            assert unknown is not None
            for score in probe.auroc:
                cells = (
                    told(probe.auroc[score], probe.auroc_interval.get(score), area),
                    told(probe.false_alarms.get(score), probe.false_alarms_interval.get(score), percent),
                    told(unknown.lost.get(score), unknown.lost_interval.get(score), percent),
                )
                shipped = "*" if score == unknown.rejects else ""
                head = (subject.name, probe.kind, str(probe.clips), percent(probe.confident), probe.named)
                rows.append((*head, score + shipped, *cells))
    return rows

"""The students and teachers there are, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.models.teachers.table import TEACHERS, fetched_weights, teacher_spec, weights_state
from edgekd.number_formats import count
from edgekd.report.terminal import line, table


def print_students(facts: Sequence[Mapping[str, Any]], clip_seconds: float, num_classes: int) -> None:
    """A line a student, as `student_facts` has them."""
    table(
        ("student", "params", "MACs", "largest", "widths", "from", "for"),
        [
            (
                each["student"],
                count(each["parameters"]),
                count(each["macs"]),
                count(each["largest"]),
                _widths(each),
                each["starts_from"] or "nothing",
                each["summary"],
            )
            for each in facts
        ],
        numbers=("params", "MACs", "largest"),
    )
    line(f"At width 1, for {num_classes} classes and clips of {clip_seconds:g} s, without the log-mel.")
    line("largest: values of the largest map. from: whose weights they start from;")
    line("those that start from nothing are counted at 32 kHz.")
    line("TEACHER-cutN: the first N convolutions of yamnet, mobilenetv1, cnn14 or convnet.")
    line("Your own: --student package.module:factory.")


def _widths(facts: Mapping[str, Any]) -> str:
    if facts["starts_from"]:
        return "0.25-1"
    return "0.25-4" if facts["sized"] else "1"


def print_teachers() -> None:
    """A line a teacher of the table."""
    table(
        ("teacher", "params", "input", "tap at 5 s", "licence", "weights"),
        [
            (
                name,
                count(spec.parameters),
                f"{spec.own_rate // 1000} kHz" if spec.own_rate else "any rate",
                _tap(spec.tap),
                spec.licence,
                weights_state(name),
            )
            for name, spec in TEACHERS.items()
        ],
        numbers=("params",),
    )
    line("Your own: --teacher package.module:factory.")
    line("More: edgekd teachers NAME. Weights: edgekd teachers fetch NAME.")


def print_teacher(name: str) -> None:
    """What is known about one teacher. Raises `UsageError` for a name that is in no table."""
    spec = teacher_spec(name)
    rate = f"{spec.own_rate:,} Hz, resampled inside" if spec.own_rate else "the data's rate and front end"
    facts = [
        ("parameters", f"{count(spec.parameters)} below the head"),
        ("input", rate),
        ("tap", f"{_tap(spec.tap)} (channels x time x frequency) for a clip of 5 s"),
        ("licence", spec.licence),
        ("weights", spec.weights_from),
    ]
    if spec.file is not None:
        size = f", {spec.file.size:,} bytes" if spec.file.size else ""
        facts.append(("file", f"{spec.file.name}{size}, {spec.file.digest or 'no published digest'}"))
        facts.append(("from", spec.file.url))
        facts.append(("fetched", str(fetched_weights(name) or f"no: edgekd teachers fetch {name}")))
    line(f"{name}: {spec.summary}")
    for label, fact in facts:
        line(f"  {label:<11}{fact}")


def _tap(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))

"""The students and teachers there are, on a terminal."""

from __future__ import annotations

from edgekd.models.students.table import STUDENTS
from edgekd.models.teachers.table import TEACHERS, fetched_weights, teacher_spec, weights_state
from edgekd.number_formats import count
from edgekd.report.terminal import line, table


def print_students() -> None:
    """A line a student of the table."""
    table(
        ("student", "params", "MACs", "tap", "widths", "for"),
        [
            (
                name,
                count(spec.parameters),
                count(spec.macs),
                _tap(spec.tap),
                "0.25 to 4" if spec.sized else "1",
                spec.summary,
            )
            for name, spec in STUDENTS.items()
        ],
        numbers=("params", "MACs"),
    )
    line("For 10 classes, and clips of 5 s at 32 kHz, without the log-mel; at width 1.")
    line("Your own: --student package.module:factory.")


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

from __future__ import annotations

from collections.abc import Callable

from edgekd.models.students.names import CUTS
from edgekd.models.students.table import STUDENTS


def test_every_student_is_listed_in_one_line_of_80_columns(edgekd: Callable) -> None:
    shown = edgekd("students")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert all(len(line.rstrip()) <= 100 for line in lines)
    for name in (*STUDENTS, *CUTS):
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert len(line.rstrip()) <= 80
        assert line.rstrip().endswith(STUDENTS[name].summary if name in STUDENTS else "few labels")
    assert "--student package.module:factory" in shown.out


def test_students_as_json(edgekd: Callable) -> None:
    found = {student["student"]: student for student in edgekd("students", "--json").json()["students"]}
    assert set(found) == {*STUDENTS, *CUTS}
    assert found["hltdnn_micro"] == {
        "student": "hltdnn_micro",
        "summary": "microcontrollers",
        "parameters": 15_778,
        "macs": 2_905_184,
        "largest": 64_256,
        "tap": [24, 126, 16],
        "sized": True,
        "starts_from": None,
    }
    assert found["yamnet-cut7"]["starts_from"] == "yamnet"


def test_figures_follow_the_length_of_a_clip_and_the_classes(edgekd: Callable) -> None:
    def facts(*flags: str) -> dict:
        listed = edgekd("students", "--json", *flags).json()["students"]
        return next(each for each in listed if each["student"] == "yamnet-cut7")

    half, few = facts("--clip-seconds", "2.5"), facts("--classes", "4")
    assert 0.45 < half["macs"] / facts()["macs"] < 0.55
    assert facts()["parameters"] - few["parameters"] == 6 * (3 * 128 + 1)

from __future__ import annotations

from collections.abc import Callable

from edgekd.models.students.table import STUDENTS


def test_every_student_is_listed_in_one_line_of_80_columns(edgekd: Callable) -> None:
    shown = edgekd("students")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    for name, spec in STUDENTS.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert line.rstrip().endswith(spec.summary)
    assert "--student package.module:factory" in shown.out


def test_students_as_json(edgekd: Callable) -> None:
    found = {student["student"]: student for student in edgekd("students", "--json").json()["students"]}
    assert set(found) == set(STUDENTS)
    assert found["hltdnn_micro"] == {
        "student": "hltdnn_micro",
        "summary": "microcontrollers",
        "parameters": 15_778,
        "macs": 2_905_184,
        "tap": [24, 126, 16],
        "sized": True,
    }

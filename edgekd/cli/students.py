"""`edgekd students`: which there are, and what each costs."""

from __future__ import annotations

from edgekd.cli import options


def students(json_: options.Json = False) -> None:
    """List the students: their size, their cost and their tap."""
    from edgekd.models.students.table import student_facts
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_models import print_students

    if json_:
        print_json({"students": student_facts()})
    else:
        print_students()

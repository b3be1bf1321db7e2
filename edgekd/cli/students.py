"""`edgekd students`: which there are, and what each costs."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli import options


def students(
    clip_seconds: Annotated[
        float, typer.Option(min=0.1, max=60, callback=options.finite, help="Length of the clip that is counted.")
    ] = 5.0,
    classes: Annotated[int, typer.Option(min=2, max=1_000_000, help="Classes that are told apart.")] = 10,
    json_: options.Json = False,
) -> None:
    """List the students: their size, their cost, and whose weights they start from."""
    from edgekd.models.student_costs import student_facts
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_models import print_students

    facts = student_facts(clip_seconds, classes)
    if json_:
        print_json({"clip_seconds": clip_seconds, "classes": classes, "students": facts})
    else:
        print_students(facts, clip_seconds, classes)

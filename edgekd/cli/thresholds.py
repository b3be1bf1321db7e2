"""`edgekd thresholds`: from which score a class is heard, chosen on the validation side of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.runs.thresholds import Aim

HOURS = {"h": 1.0, "hour": 1.0, "d": 24.0, "day": 24.0}


def thresholds(
    run: Annotated[Path, typer.Argument(help="Run folder of 'edgekd distill'.", metavar="RUN")],
    best_f1: Annotated[
        bool, typer.Option("--best-f1", help="Of each class the best F1: what a run has when it ends.")
    ] = False,
    max_false_alarms: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="At most so many of each class in other sounds: 1/h, 0.5/h, 12/day."),
    ] = None,
    trust: options.Trust = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose a run's thresholds anew, for best F1 or few false alarms, and show what they give."""
    from edgekd.errors import UsageError

    if best_f1 and max_false_alarms is not None:
        raise UsageError("--best-f1, --max-false-alarms: thresholds are chosen for one of the two.")
    aim = _aim(max_false_alarms)

    from edgekd.experiments.thresholds import choose
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_thresholds import print_thresholds, thresholds_json
    from edgekd.runs.run import Run

    with options.interruptible(lambda: "The thresholds are as they were."), ConsoleProgress(quiet) as progress:
        opened = Run.open(run, trust=trust or ())
        chosen = choose(opened, aim, progress)
    if json_:
        print_json(thresholds_json(opened, chosen))
    else:
        print_thresholds(opened, chosen)


def _aim(rate: str | None) -> Aim:
    """What thresholds are to be chosen for. Raises `UsageError` for a rate that is none, or that nobody can keep."""
    import math

    from edgekd.errors import UsageError, shown
    from edgekd.runs.thresholds import BEST_F1, Aim

    if rate is None:
        return BEST_F1
    number, _, unit = rate.partition("/")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    unit = unit.strip().lower()
    if not math.isfinite(value) or unit not in HOURS:
        raise UsageError(f"--max-false-alarms {shown(rate)}: write a number an hour or a day, such as 1/h or 12/day.")
    if value <= 0:
        raise UsageError(
            f"--max-false-alarms {shown(rate)}: no recording is long enough to show that there are none. Write a rate "
            "above 0, such as 0.1/h."
        )
    return Aim(by="max-false-alarms", an_hour=value / HOURS[unit])

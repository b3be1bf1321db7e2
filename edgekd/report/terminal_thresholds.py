"""Thresholds of a run on standard output: what was chosen on the validation side, and what it gives on the test
side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.experiments.thresholds import Chosen
from edgekd.number_formats import NONE, interval, number, percent, setting
from edgekd.report.terminal import SUBJECTS, line, paragraph, table
from edgekd.runs.run import Run
from edgekd.runs.thresholds import Counts, Temperature, Thresholds
from edgekd.scoring.thresholds import CLOSE, IS_BACKGROUND, hours_to_promise, rate_interval

MEASURES = ("clips", "precision", "recall", "false/h")


def print_thresholds(run: Run, chosen: Sequence[Chosen]) -> None:
    """The thresholds of what ships, the first of `chosen`, and what a reader should know of them."""
    first = chosen[0]
    found = first.thresholds
    paragraph(
        f"Thresholds of the {SUBJECTS[first.stage]} for {found.aim.words}, chosen on the validation side: "
        f"{found.clips} clips, {number(found.hours)} h. An event ends below {CLOSE:g} of its threshold."
    )
    paragraph(_temperature_text(found.temperature))
    line()
    rows = [
        (
            name,
            NONE if each.open is None else setting(each.open),
            *_measures(each.validation),
            _rate_interval(each.validation),
        )
        for name, each in found.classes.items()
        if each.note != IS_BACKGROUND
    ]
    heard = [name for name, *_ in rows]
    table(("validation", "from", *MEASURES, "interval"), rows, numbers=("from", *MEASURES, "interval"))
    line()
    table(("test", *MEASURES), [(name, *_measures(first.test[name])) for name in heard], numbers=MEASURES)
    line()
    for note in notes(first):
        paragraph(note)
    paragraph(f"Kept in {run.folder}. Bundles that were exported before have the thresholds of then: export again.")


def notes(chosen: Chosen) -> list[str]:
    """What the choice lacks."""
    found = chosen.thresholds
    told = []
    by_note: dict[str, list[str]] = {}
    for name, each in found.classes.items():
        if each.note not in (None, IS_BACKGROUND):
            by_note.setdefault(str(each.note), []).append(name)
    told += [f"Note: {', '.join(names)}: {note}." for note, names in by_note.items()]
    return told + ([] if found.aim.an_hour is None else _rate_notes(found, found.aim.an_hour))


def _rate_notes(found: Thresholds, an_hour: float) -> list[str]:
    """How far the validation side bears out a rate."""
    told, of_all = [], {name: each for name, each in found.classes.items() if each.note != IS_BACKGROUND}
    deaf = [name for name, each in of_all.items() if each.validation.positives and not each.validation.found]
    if deaf:
        told.append(f"Note: nothing of {', '.join(deaf)} is heard at this rate.")
    heard = min((each.validation.other_hours for each in of_all.values()), default=0.0)
    least = rate_interval(0, heard)
    if least is None or least[1] > an_hour:
        upper = "any number of them" if least is None else f"up to {number(least[1])}/h"
        told.append(
            f"Note: {an_hour:g}/h cannot be promised from {number(heard)} h of other sounds: where not one false alarm "
            f"was heard there may still be {upper}. It takes {number(hours_to_promise(an_hour))} h without any."
        )
    elif over := [name for name, each in of_all.items() if _upper_end(each.validation) > an_hour]:
        told.append(f"Note: by its interval the rate may be above {an_hour:g}/h of {', '.join(over)}.")
    return told


def _upper_end(counts: Counts) -> float:
    found = rate_interval(counts.false_alarms, counts.other_hours)
    return float("inf") if found is None else found[1]


def _temperature_text(temperature: Temperature) -> str:
    if temperature.value == 1:
        return f"Temperature: {temperature.note}."
    assert temperature.loss is not None and temperature.loss_before is not None
    less = temperature.loss_before - temperature.loss
    return (
        f"Logits are divided by {setting(temperature.value)}, which {temperature.note}, by {number(less)} from "
        f"{number(temperature.loss_before)}."
    )


def _measures(counts: Counts) -> tuple[str, str, str, str]:
    heard = counts.found + counts.false_alarms
    return (
        f"{counts.positives:,}",
        percent(counts.found / heard) if heard else NONE,
        percent(counts.found / counts.positives) if counts.positives else NONE,
        number(counts.false_alarms / counts.other_hours) if counts.other_hours else NONE,
    )


def _rate_interval(counts: Counts) -> str:
    found = rate_interval(counts.false_alarms, counts.other_hours)
    return NONE if found is None else interval(*found, number)


def thresholds_json(run: Run, chosen: Sequence[Chosen]) -> Mapping[str, object]:
    """What `--json` prints: by the stage of each student, first what ships."""
    return {
        "run": str(run.folder),
        "ships": chosen[0].stage,
        "students": {each.stage: {**each.to_dict(), "notes": notes(each)} for each in chosen},
    }

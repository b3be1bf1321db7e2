"""`thresholds.json` in the folder of a stage: what the scores of its student mean, found on the validation side.

A temperature that its logits are divided by where it ships, and for each class a score from which it is heard. Runs of
older versions have none: their logits ship as they are, and nobody has chosen.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from edgekd.errors import InputError
from edgekd.files.whole import write_text
from edgekd.json_files import Amount, Count, Share, checked, read_json
from edgekd.runs.run import Run, Stage
from edgekd.section import Section

FILE = "thresholds.json"

Positive = Annotated[float, Field(strict=True, gt=0)]


class Aim(Section):
    """What thresholds are chosen for: the best F1 of each class, or at most so many false alarms of it an hour."""

    by: Literal["best-f1", "max-false-alarms"] = "best-f1"
    an_hour: Positive | None = Field(None, description="false alarms of a class, an hour of other sounds")

    @property
    def words(self) -> str:
        """For a person to read."""
        return "best F1" if self.an_hour is None else f"at most {self.an_hour:g}/h of false alarms of each class"


BEST_F1 = Aim()


class Counts(Section):
    """What a threshold gives on some clips: windows of the class, those of them at or above it, and other windows at or
    above it, in so many hours of other windows."""

    positives: Count
    found: Count
    false_alarms: Count
    other_hours: Amount


class ClassThreshold(Section):
    """The score from which a class is heard and the one below which it ends; both None where nothing can be chosen:
    `note` says why, or what the choice lacks."""

    open: Share | None
    close: Share | None
    validation: Counts
    note: str | None = None


class Temperature(Section):
    """By what the logits are divided: 1 where nothing is gained. Losses are mean cross-entropies of validation clips,
    `loss` of clips that the temperature was not fitted to; None where there were too few to try."""

    value: Positive = 1.0
    loss_before: Amount | None = None
    loss: Amount | None = None
    note: str


class Thresholds(Section):
    """The contents of the file. `clips` and `hours` are those of the validation side."""

    version: Literal[1] = 1
    temperature: Temperature
    aim: Aim
    clips: Count
    hours: Amount
    classes: dict[str, ClassThreshold]


def write_thresholds(run: Run, stage: Stage, thresholds: Thresholds) -> None:
    """Keep what was found of the student of a stage."""
    text = json.dumps(thresholds.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_text(run.stage_folder(stage) / FILE, text)


def read_thresholds(run: Run, stage: Stage) -> Thresholds | None:
    """What was found of the student of a stage; None in a run of an older version.

    Raises `InputError` for a file that is damaged, of another version, or of other classes.
    """
    path = run.folder / stage / FILE
    if not path.is_file():
        return None
    advice = f"Choose anew: edgekd thresholds {run.folder}"
    found = checked(Thresholds, read_json(path, advice), str(path), advice)
    if tuple(found.classes) != run.classes:
        raise InputError(
            f"{path}: of classes {', '.join(found.classes)}; the run has {', '.join(run.classes)}. {advice}"
        )
    return found


def temperature_of(run: Run, stage: Stage) -> float:
    """What the logits of a stage's student are divided by where it ships."""
    found = read_thresholds(run, stage)
    return 1.0 if found is None else found.temperature.value

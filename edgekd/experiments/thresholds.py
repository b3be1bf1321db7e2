"""`edgekd thresholds`: the thresholds of a finished run chosen anew, and what they give on its test side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd import processes
from edgekd.errors import InputError
from edgekd.progress import Progress, silent
from edgekd.quantization.int8_student import load_int8
from edgekd.runs.at_work import changes_run
from edgekd.runs.predictions import VALIDATION, read_predictions
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import BEST_F1, Aim, Counts, Thresholds
from edgekd.scoring.temperature import tempered
from edgekd.scoring.thresholds import counts_at
from edgekd.training.thresholds import ask_validation, rechoose, truth_of, window_hours

STUDENTS: tuple[Stage, ...] = ("int8", "student")  # the first that a run has is what ships


@dataclass(frozen=True)
class Chosen:
    """What was chosen for the student of a stage, and what that gives on the test side, class by class."""

    stage: Stage
    thresholds: Thresholds
    test: Mapping[str, Counts]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        test = {name: counts.model_dump(mode="json") for name, counts in self.test.items()}
        return {**self.thresholds.model_dump(mode="json"), "test": test}


@changes_run
def choose(run: Run, aim: Aim = BEST_F1, progress: Progress = silent) -> list[Chosen]:
    """Choose the thresholds of the int8 student of `run` and of its float one, as far as they are finished, for `aim`;
    first what ships. Temperatures are fitted anew from the same clips.

    What the students say of the validation side is asked again only in a run of an older version. Raises `InputError`
    for a run that is not finished or damaged, or has no validation side.
    """
    run.require_student()
    finished = [stage for stage in STUDENTS if run.finished(stage)]
    missing = [stage for stage in finished if not (run.folder / stage / VALIDATION).is_file()]
    if missing:
        device = processes.join(run.config.device)
        data = run.open_data(progress)
        if not data.split.validation:
            raise InputError(
                f"{run.folder / 'splits.csv'}: no clip is on the validation side, so there is nothing to choose on."
            )
        for stage in missing:
            student = load_int8(run) if stage == "int8" else run.student()
            ask_validation(run, stage, student, data, device, progress)
    return [_with_test(run, stage, rechoose(run, stage, aim)) for stage in finished]


def _with_test(run: Run, stage: Stage, thresholds: Thresholds) -> Chosen:
    said = read_predictions(run.folder, stage, run.classes, run.task)
    shares = tempered(said.probabilities, thresholds.temperature.value, run.task.activation)
    truth, hours = truth_of(said, len(run.classes)), window_hours(run.config.data)
    test = {
        name: counts_at(shares[:, number], truth[:, number], thresholds.classes[name].open, hours)
        for number, name in enumerate(run.classes)
    }
    return Chosen(stage, thresholds, test)

"""What a run keeps of what its scores mean, as its stages end."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.config import DataConfig
from edgekd.quantization.int8_student import load_int8
from edgekd.runs.predictions import VALIDATION, read_predictions
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import BEST_F1, read_thresholds
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.temperature import tempered
from edgekd.scoring.thresholds import choose_thresholds
from edgekd.training.thresholds import thresholds_from, truth_of, window_hours


@pytest.mark.parametrize("stage", ["student", "int8"])
def test_a_finished_stage_has_its_answers_its_temperature_and_its_thresholds(tiny_run: Run, stage: Stage) -> None:
    said = read_predictions(tiny_run.folder / stage, stage, tiny_run.classes, tiny_run.task, VALIDATION)
    data = tiny_run.open_data()
    student = load_int8(tiny_run) if stage == "int8" else tiny_run.student()
    again = predict_probabilities(lambda clips: student(clips).logits, data.store, data.split.validation)
    assert said.rows == data.split.validation
    np.testing.assert_allclose(said.probabilities, again, atol=1e-5)
    kept = read_thresholds(tiny_run, stage)
    assert kept is not None
    assert (kept.aim, kept.clips) == (BEST_F1, len(said.rows))
    assert kept.hours == pytest.approx(len(said.rows) * tiny_run.config.data.clip_seconds / 3600)
    shares = tempered(said.probabilities, kept.temperature.value)
    truth = truth_of(said, len(tiny_run.classes))
    assert kept.classes == choose_thresholds(shares, truth, tiny_run.classes, 1.0 / 3600, background="background")


def test_thresholds_are_chosen_under_the_temperature(tiny_run: Run) -> None:
    said = read_predictions(tiny_run.folder / "int8", "int8", tiny_run.classes, tiny_run.task, VALIDATION)
    found = thresholds_from(said, tiny_run.classes, 1 / 3600, BEST_F1, "background")
    assert found == read_thresholds(tiny_run, "int8")
    assert found.classes["background"].open is None


def test_windows_that_overlap_share_their_time() -> None:
    data = DataConfig(clip_seconds=5.0)
    assert window_hours(data) == 5 / 3600
    overlapping = data.model_copy(update={"selections": data.selections.model_copy(update={"hop_seconds": 2.0})})
    assert window_hours(overlapping) == 2 / 3600


def test_validation_says_nothing_of_the_test_side(tiny_run: Run) -> None:
    said = read_predictions(tiny_run.folder / "int8", "int8", tiny_run.classes, tiny_run.task, VALIDATION)
    tested = read_predictions(tiny_run.folder, "int8", tiny_run.classes)
    assert not {*said.rows} & {*tested.rows}
    assert not {*said.groups} & {*tested.groups}

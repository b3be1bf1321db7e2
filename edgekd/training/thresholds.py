"""What the scores of a trained student mean: its temperature and its thresholds, from what it says of the validation
side."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import nn

from edgekd import processes
from edgekd.config import DataConfig
from edgekd.data.background import background_of
from edgekd.errors import InputError
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.predictions import VALIDATION, Predictions, read_predictions, write_predictions
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import BEST_F1, Aim, Temperature, Thresholds, read_thresholds, write_thresholds
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.temperature import FEWEST, Truth, fit_temperature, tempered
from edgekd.scoring.thresholds import choose_thresholds


def settle_scores(
    run: Run, stage: Stage, student: nn.Module, data: RunData, device: torch.device, progress: Progress = silent
) -> None:
    """Keep what a trained `student` says of the validation side, fit its temperature to that, and choose thresholds: of
    best F1, or for an int8 student for what those of its float student are. Nothing is kept where there is no
    validation side."""
    if not data.split.validation:
        return
    ask_validation(run, stage, student, data, device, progress)
    processes.from_first(lambda: rechoose(run, stage, _aim_of(run, stage)))


def _aim_of(run: Run, stage: Stage) -> Aim:
    """What somebody has chosen thresholds of the run for; of thresholds that cannot be read, or of none, best F1."""
    found = None
    if stage == "int8":
        with suppress(InputError):  # hours of training are not lost over it
            found = read_thresholds(run, "student")
    return BEST_F1 if found is None else found.aim


def ask_validation(
    run: Run, stage: Stage, student: nn.Module, data: RunData, device: torch.device, progress: Progress = silent
) -> None:
    """Write `validation.csv` of a stage: what its student says of the validation side, before any temperature."""
    student.to(device).eval()
    rows = data.split.validation
    said = predict_probabilities(
        lambda waveforms: student(waveforms).logits,
        data.store,
        rows,
        device=device,
        progress=progress,
        stage="validation",
        task=data.index.task,
    )
    processes.from_first(lambda: write_predictions(run.stage_folder(stage), stage, data.index, rows, said, VALIDATION))


def rechoose(run: Run, stage: Stage, aim: Aim) -> Thresholds:
    """Choose by what is in `validation.csv` of a stage, and keep it. Raises `InputError` as `read_predictions` does."""
    said = read_predictions(run.folder / stage, stage, run.classes, run.task, VALIDATION)
    data = run.config.data
    background = background_of(run.classes, data.background)
    thresholds = thresholds_from(said, run.classes, window_hours(data), aim, background)
    write_thresholds(run, stage, thresholds)
    return thresholds


def window_hours(data: DataConfig) -> float:
    """How much of a recording a clip is alone with: windows of selections may overlap."""
    return min(data.clip_seconds, data.selections.hop_seconds or data.clip_seconds) / 3600


def thresholds_from(
    said: Predictions, classes: tuple[str, ...], hours: float, aim: Aim, background: str | None = None
) -> Thresholds:
    """The temperature for a student that said this of the validation side, in clips of so many `hours`, and thresholds
    for `aim` under it, for each class but the `background`."""
    truth = truth_of(said, len(classes))
    fitted = fit_temperature(said.probabilities, truth, said.groups, said.task.activation)
    temperature = Temperature(
        value=fitted.value,
        loss_before=None if fitted.loss_before is None else round(fitted.loss_before, 6),
        loss=None if fitted.loss is None else round(fitted.loss, 6),
        note=_why(fitted.value, fitted.loss),
    )
    shares = tempered(said.probabilities, fitted.value, said.task.activation)
    return Thresholds(
        temperature=temperature,
        aim=aim,
        clips=len(said.rows),
        hours=len(said.rows) * hours,
        classes=choose_thresholds(shares, truth, classes, hours, aim, background),
    )


def truth_of(said: Predictions, classes: int) -> Truth:
    """Which classes are in each clip `(N, K)`."""
    if said.task.several:
        return said.labels.astype(bool)
    return np.asarray(said.labels[:, None] == np.arange(classes))


def _why(value: float, loss: float | None) -> str:
    if loss is None:
        return f"not tried: fewer than {FEWEST} validation clips, or all of one recording"
    if value == 1:
        return "none: it does not lower the cross-entropy of validation clips that it was not fitted to"
    return "lowers the cross-entropy of validation clips that it was not fitted to"

"""The int8 student of a run, read back: for export, profiles and predictions, none of which trains.

Its network is that of the float student, folded and prepared with the settings that it was made with, under weights and
scales from the run folder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edgekd.config import QuantizeConfig, parse
from edgekd.errors import InputError, UsageError
from edgekd.models.students.student import Student
from edgekd.models.weights import load_matching, read_weights
from edgekd.quantization.fake_quant import set_frozen
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from edgekd.runs.run import Run
from edgekd.toml_files import read_toml


def load_int8(run: Run) -> Student:
    """The int8 student of `run`, fake-quantised, in eval mode, on the CPU.

    Raises `InputError` where the run has none, or was interrupted while it was trained.
    """
    run.require_student()
    settings = stored_settings(run)
    if "int8" not in run.report()["test"]:
        done = run.metrics().last_epoch("int8")
        state = f"was interrupted after epoch {done} of its int8 training" if done else "has no int8 student"
        method = " --ptq" if settings.method == "ptq" else ""
        command = f"distill --out {run.folder} --resume" if done else f"quantize {run.folder}{method}"
        raise InputError(f"{run.folder}: this run {state}. First: edgekd {command}")
    student = run.new_student().eval()
    samples = round(run.config.data.clip_seconds * run.config.data.sample_rate)
    try:
        student.network = prepare(student.network, example_log_mel(student, samples), settings.keep_float)
    except UsageError as failure:  # nobody's wrong setting now: the run is damaged
        raise InputError(f"{settings_file(run)}: keep_float: {failure}") from None
    path = run.weights("int8")
    load_matching(student, read_weights(path), path)
    set_frozen(student.network, True)
    return student.eval()


def quantized_network(student: Student) -> QuantizedNetwork:
    """The fake-quantised network of a student from `load_int8`."""
    assert isinstance(student.network, QuantizedNetwork)
    return student.network


def settings_file(run: Run) -> Path:
    """Where a run keeps the settings that its int8 student was made with."""
    return run.folder / "int8" / "quantize.toml"


def stored_settings(run: Run) -> QuantizeConfig:
    """The settings that the int8 student of `run` was made with; the run's own where it has none yet."""
    path = settings_file(run)
    if not path.is_file():
        return run.config.quantize
    try:
        return parse(QuantizeConfig, read_toml(path), str(path))
    except UsageError as failure:  # edgekd wrote it: the run is damaged
        raise InputError(str(failure)) from None


def begun_settings(run: Run) -> QuantizeConfig:
    """The settings that the int8 training of `run` was begun with. Raises `InputError` where none was."""
    if not settings_file(run).is_file():
        raise InputError(f"{run.folder}: no int8 training was begun here. Leave --resume out to begin one.")
    return stored_settings(run)


def example_log_mel(student: Student, samples: int) -> Tensor:
    """The log-mel of silence of so many samples, `(1, 1, T, F)`: what a network is traced with."""
    with torch.no_grad():
        return student.log_mel(torch.zeros(1, samples, device=student.gain.device))

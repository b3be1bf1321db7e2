"""Runs on a device that is not there; see `tests.elsewhere`."""

from __future__ import annotations

from pathlib import Path

import torch

from edgekd.config import DistillConfig
from edgekd.experiments.chain import quantize_mixed
from edgekd.quantization.calibration import load_recipe
from edgekd.quantization.qat import calibrated_network, quantize
from edgekd.quantization.sensitivity import sensitivity
from edgekd.runs.run import Run
from edgekd.training import outcome
from edgekd.training.distill import distill


def settings(out: Path, recordings: Path) -> DistillConfig:
    """The smallest run in which everything happens that computes: taps, a mixture, learned weights, int8."""
    simulation = {"vessels_per_class": 5, "windows_per_vessel": 1, "snr_db": (15.0, 25.0)}
    return DistillConfig.model_validate(
        {
            "out": out,
            "seed": 3,
            "device": "cpu",
            "student": "hltdnn_ds",
            "data": {
                "dataset": "sonar_sim",
                "data_dir": recordings,
                "sample_rate": 4_000,
                "clip_seconds": 1.0,
                "simulation": simulation,
            },
            "frontend": {"n_fft": 256, "hop_length": 128, "n_mels": 32, "f_max": 1_900.0},
            "teacher": {"name": "convnet", "adaptation": "full", "epochs": 1, "batch_size": 5},
            "augment": {"shifts_per_clip": 1, "mixes_per_clip": 1, "time_mask_frames": 6},
            "loss": {"weighting": "learned", "texture_share": 0.5},
            "training": {"epochs": 2, "batch_size": 5, "weight_average": 0.9, "norm_statistics": "precise"},
            "quantize": {"epochs": 2, "frozen_epochs": 1},
        }
    )


def short(device: torch.device, out: Path, recordings: Path) -> None:
    """A teacher, a student, and its scales with corrected biases."""
    run = _distilled(out, recordings)
    student, data = run.student().to(device), run.open_data()
    network = calibrated_network(student, data, load_recipe("thorough"), 0)
    assert {tensor.device for tensor in network.state_dict().values()} == {device}


def chain(device: torch.device, out: Path, recordings: Path) -> None:
    """Everything that trains or measures on a device: teacher, student, int8, the layers' sensitivity."""
    run = _distilled(out, recordings)
    quantize(run)
    sensitivity(run)
    quantize_mixed(run, run.config.quantize.model_copy(update={"method": "ptq", "recipe": "thorough"}), 100.0)


def _distilled(out: Path, recordings: Path) -> Run:
    for draw in ("plot_confusion", "plot_curves"):
        setattr(outcome, draw, lambda *_: None)
    return distill(settings(out, recordings))

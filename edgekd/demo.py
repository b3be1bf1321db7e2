"""The whole chain on simulated sonar, in a few minutes on two CPU cores: what `edgekd demo` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig, ProfileConfig, parse
from edgekd.errors import UsageError
from edgekd.experiments.chain import distill_and_quantize
from edgekd.exporting.export import export
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.targets import load_target
from edgekd.profiling.profiler import profile
from edgekd.progress import Progress, silent
from edgekd.report.results import Profile
from edgekd.report.write import write_report
from edgekd.runs.run import Run

# Sized for minutes: half the rate and bandwidth of a harbour hydrophone, and fewer vessels than anyone should train on.
SETTINGS: dict[str, Any] = {
    "student": "hltdnn_ds",
    "data": {
        "dataset": "sonar_sim",
        "sample_rate": 8_000,
        "clip_seconds": 3.0,
        "split": (0.6, 0.15, 0.25),
        "simulation": {"vessels_per_class": 40, "windows_per_vessel": 4, "snr_db": (-10.0, 10.0), "seed": 1},
    },
    "frontend": {"n_fft": 512, "hop_length": 256, "f_min": 20.0, "f_max": 3_900.0},
    "teacher": {"name": "convnet", "adaptation": "full", "epochs": 20, "learning_rate": 2e-3, "batch_size": 16},
    "augment": {"shifts_per_clip": 2, "time_mask_frames": 16},
    "training": {"epochs": 20, "learning_rate": 3e-3},
    "quantize": {"epochs": 4, "frozen_epochs": 2},
}


@dataclass(frozen=True)
class Demonstration:
    """What the chain leaves: a run, a bundle in it, and a profile, which is written to `run.folder / "profile"`."""

    run: Run
    bundle: Bundle
    profile: Profile


def demonstrate(
    out: Path,
    target: str = "cpu",
    device: str = "auto",
    progress: Progress = silent,
    *,
    overwrite: bool = False,
    train: Callable[..., Run] = distill_and_quantize,
) -> Demonstration:
    """Teacher, SSATKD student and int8 by `train`, a verified bundle for `target` and a profile, all in the folder
    `out`.

    Raises `UsageError` for an unknown target and for a folder that exists, unless it may be overwritten.
    """
    board = load_target(target)
    config = parse(DistillConfig, SETTINGS | {"out": out, "device": device}, "demo")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already. Replace it (--overwrite) or name another folder (--out).")
    run = train(config, progress, overwrite=overwrite)
    bundle = export(run, board, out / "bundle", progress)
    one_clip = ProfileConfig(batches=())
    measured = profile(run, one_clip, progress, command=("edgekd", "profile", str(out), "--batches", ""))
    write_report(measured, out / "profile")
    return Demonstration(run, bundle, measured)

"""`edgekd demo`: the whole chain on simulated sonar, in a few minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from edgekd.cli import options

# Sized for minutes: half the rate and bandwidth of a harbour hydrophone, and fewer vessels than anyone should train on.
DEMO: dict[str, Any] = {
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


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and the bundle.")] = Path("demo-run"),
    target: Annotated[str, typer.Option(help="A board of 'edgekd targets'.")] = "cpu",
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the whole chain on simulated sonar: teacher, SSATKD student, int8, verified bundle, profile."""
    from edgekd.config import DistillConfig, ProfileConfig, parse
    from edgekd.errors import UsageError
    from edgekd.exporting.export import export
    from edgekd.exporting.targets import load_target
    from edgekd.profiling.profile import profile
    from edgekd.progress import ConsoleProgress
    from edgekd.quantization.qat import quantize
    from edgekd.report.terminal import print_bundle, print_json
    from edgekd.report.terminal_profile import print_profile
    from edgekd.report.write import write_report
    from edgekd.training.distill import distill

    board = load_target(target)
    config = parse(DistillConfig, DEMO | {"out": out, "device": device or "auto"}, "demo")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already. Replace it (--overwrite) or name another folder (--out).")

    def advice() -> str:
        return f"Start again with: edgekd demo --out {quote(str(out))} --overwrite"

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        run = distill(config, progress, overwrite=overwrite)
        quantize(run, progress=progress)
        bundle = export(run, board, out / "bundle", progress)
        one_clip = ProfileConfig(batches=())
        measured = profile(run, one_clip, progress, command=("edgekd", "profile", str(out), "--batches", ""))
        write_report(measured, out / "profile")
    if json_:
        print_json({"run": str(run.folder), "bundle": str(bundle.folder), "profile": measured.to_dict()})
        return
    print_profile(measured, out / "profile")
    print_bundle(bundle)
    typer.echo(f"Run: {run.folder}   (config.toml, metrics.csv, curves.png, confusion.png, report.json)")
    typer.echo(f"Try: edgekd predict {bundle.folder} RECORDING.wav")

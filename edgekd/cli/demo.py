"""`edgekd demo`: the whole chain on simulated sonar, in a few minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from edgekd.cli import options


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and the bundle.")] = Path("demo-run"),
    target: Annotated[str, typer.Option(help="A board of 'edgekd targets'.")] = "cpu",
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the whole chain on simulated sonar: teacher, SSATKD student, int8, verified bundle, profile."""
    from edgekd.demo import demonstrate
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line, print_bundle, print_json
    from edgekd.report.terminal_profile import print_profile

    def advice() -> str:
        return f"Start again with: edgekd demo --out {quote(str(out))} --overwrite"

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        done = demonstrate(out, target, device or "auto", progress, overwrite=overwrite)
    run, bundle = done.run.folder, done.bundle.folder
    if json_:
        print_json({"run": str(run), "bundle": str(bundle), "profile": done.profile.to_dict()})
        return
    print_profile(done.profile, out / "profile")
    print_bundle(done.bundle)
    line(f"Run: {run}   (config.toml, metrics.csv, curves.png, confusion.png, report.json)")
    line(f"Try: edgekd predict {bundle} RECORDING.wav")

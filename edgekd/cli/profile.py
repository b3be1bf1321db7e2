"""`edgekd profile`: accuracy, size and latency, student against teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import options


def profile(
    folders: Annotated[list[Path], typer.Argument(help="Run folders or bundles.", metavar="RUN|BUNDLE")],
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a run's teacher and students, or a bundle, and write report.json into its folder."""
    import json

    from edgekd.cli.show import print_json, print_profile
    from edgekd.console import ConsoleProgress
    from edgekd.export import kind_of
    from edgekd.export.bundle import read_bundle
    from edgekd.files import write_text
    from edgekd.profiling import profile as measure
    from edgekd.training.run import Run

    kinds = [kind_of(folder) for folder in folders]  # all of them, before minutes go into the first
    found = []
    for folder, kind in zip(folders, kinds, strict=True):
        with options.interruptible(lambda: "Nothing was reported."), ConsoleProgress(quiet) as progress:
            if kind == "bundle":
                measured = measure(read_bundle(folder), progress)
                write_text(folder / "report.json", json.dumps(measured.to_dict(), indent=2) + "\n")
            else:
                measured = measure(Run.open(folder), progress)
        found.append(measured)
        if not json_:
            print_profile(measured)
    if json_:
        profiles = [measured.to_dict() for measured in found]
        print_json(profiles[0] if len(profiles) == 1 else {"profiles": profiles})

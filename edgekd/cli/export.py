"""`edgekd export`: a verified bundle for a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import options


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of 'edgekd distill'.", metavar="RUN")],
    target: Annotated[str, typer.Option(envvar="EDGEKD_TARGET", help="A board of 'edgekd targets', or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Bundle folder; RUN/bundle-TARGET where left out.")] = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a run's int8 student for a board: waveform in, class scores out, verified."""
    from edgekd.export.targets import load_target

    board = load_target(target)  # before anything slow: a mistyped name is told at once

    from edgekd.cli.show import print_bundle, print_json
    from edgekd.console import ConsoleProgress
    from edgekd.export import export as export_run
    from edgekd.training.run import Run

    with options.interruptible(lambda: "No bundle was written."), ConsoleProgress(quiet) as progress:
        bundle = export_run(Run.open(run), board, out, progress, overwrite=overwrite)
    if json_:
        print_json({"bundle": str(bundle.folder), **bundle.manifest.model_dump(mode="json")})
    else:
        print_bundle(bundle)

"""`edgekd quantize`: int8 training again, with other settings."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from edgekd.cli import options


def quantize(
    run: Annotated[Path, typer.Argument(help="Run folder of 'edgekd distill'.", metavar="RUN")],
    recipe: Annotated[
        str | None, typer.Option(envvar="EDGEKD_RECIPE", help="Calibration recipe: a name or a TOML file.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of int8 training.")] = None,
    frozen_epochs: Annotated[int | None, typer.Option(help="Last epochs with the scales frozen.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of int8 training.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted int8 training.")] = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a run's student for int8 again; the int8 student it has is replaced."""
    from edgekd.config import QuantizeConfig, parse, read_toml
    from edgekd.errors import InputError, UsageError
    from edgekd.training.run import Run, to_toml

    opened = Run.open(run)
    begun = run / "int8" / "quantize.toml"
    if resume and not begun.is_file():
        raise InputError(f"{run}: no int8 training was begun here. Leave --resume out to begin one.")
    flags = {"recipe": recipe, "epochs": epochs, "frozen_epochs": frozen_epochs, "learning_rate": learning_rate}
    given = {name: value for name, value in flags.items() if value is not None}
    settings = parse(QuantizeConfig, read_toml(begun), str(begun)) if resume else opened.config.quantize
    config = parse(QuantizeConfig, settings.model_dump() | given, "settings")
    if resume and config != settings:
        changed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"--resume goes on with the settings that were begun with: leave out {changed}.")
    if dry_run:
        typer.echo(to_toml(config.model_dump(mode="json")), nl=False)
        return

    from edgekd.cli.show import print_json, print_run
    from edgekd.console import ConsoleProgress
    from edgekd.quantization import quantize as quantize_run

    def advice() -> str:
        return f"Go on with: edgekd quantize {quote(str(run))} --resume"

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        quantize_run(opened, config, progress, resume=resume)
    if json_:
        print_json({"run": str(opened.folder), **opened.report()})
    else:
        print_run(opened)

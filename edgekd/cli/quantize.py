"""`edgekd quantize`: the int8 student again, with other settings, or what int8 costs each layer."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.quantization.sensitivity import Mixed
    from edgekd.runs.run import Run

MAX_DROP = 0.5  # points
TRAINING = ("epochs", "frozen_epochs", "learning_rate")


def quantize(
    run: Annotated[Path, typer.Argument(help="Run folder of 'edgekd distill'.", metavar="RUN")],
    ptq: Annotated[bool | None, typer.Option("--ptq/--qat", help="Calibrate only, or train too (default).")] = None,
    recipe: Annotated[
        str | None, typer.Option(envvar="EDGEKD_RECIPE", help="Calibration recipe: a name or a TOML file.")
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Leave this layer in float. Repeatable.")
    ] = None,
    auto_mixed: Annotated[
        bool, typer.Option("--auto-mixed", help="Leave the fewest layers in float that keep the accuracy.")
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=options.finite,
            help=f"Points of validation accuracy that --auto-mixed may lose; default {MAX_DROP}.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only measure what int8 costs each layer.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of int8 training.")] = None,
    frozen_epochs: Annotated[int | None, typer.Option(help="Last epochs with the scales frozen.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of int8 training.")] = None,
    trust: options.Trust = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted int8 training.")] = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a run's int8 student again, or measure what int8 costs each layer; the int8 student it has is replaced."""
    from edgekd.config import QuantizeConfig, parse
    from edgekd.runs.run import Run
    from edgekd.toml_files import to_toml

    flags = {
        "method": None if ptq is None else "ptq" if ptq else "qat",
        "recipe": recipe,
        "keep_float": keep_float or None,
        "epochs": epochs,
        "frozen_epochs": frozen_epochs,
        "learning_rate": learning_rate,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    switches = {"auto_mixed": auto_mixed, "max_drop": max_drop is not None, "resume": resume, "dry_run": dry_run}
    named = [*given, *(name for name, on in switches.items() if on)]
    _check_together(named, sensitivity, bool(ptq), auto_mixed)
    if (sensitivity or auto_mixed) and options.processes() > 1:
        from edgekd.errors import UsageError

        raise UsageError("Layers are tried in one process: start this without torchrun.")
    opened = Run.open(run, trust=trust or ())
    if sensitivity:
        _measure(opened, recipe, json_, quiet)
        return
    settings = opened.config.quantize
    if resume:
        from edgekd.quantization.int8_student import begun_settings

        settings = begun_settings(opened)
    config = parse(QuantizeConfig, settings.model_dump() | given, "settings")
    if resume and config != settings:
        _refuse("--resume goes on with the settings that were begun with", named, *given)
    if config.method == "ptq":
        _refuse("The settings of this run say not to train (quantize.method)", named, *TRAINING)
    if dry_run:
        typer.echo(to_toml(config.model_dump(mode="json")), nl=False)
        return

    from edgekd.experiments.chain import quantize as quantize_run
    from edgekd.experiments.chain import quantize_mixed
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json, print_mixed, print_run
    from edgekd.runs.run import trust_flags

    def advice() -> str:
        named = quote(str(run))
        return f"Go on with: {options.called('quantize')} {named} --resume{trust_flags(opened.config)}"

    mixed: Mixed | None = None
    first = options.is_first_process()
    with options.interruptible(advice), options.lost_process(advice), ConsoleProgress(quiet or not first) as progress:
        if auto_mixed:
            mixed = quantize_mixed(opened, config, MAX_DROP if max_drop is None else max_drop, progress)
        else:
            quantize_run(opened, config, progress, resume=resume)
    if not first:
        return
    if json_:
        chosen: dict[str, Any] = {} if mixed is None else {"auto_mixed": mixed.to_dict()}
        print_json({"run": str(opened.folder), **chosen, **opened.report()})
        return
    if mixed is not None:
        print_mixed(mixed)
    print_run(opened)


def _check_together(named: list[str], sensitivity: bool, ptq: bool, auto_mixed: bool) -> None:
    """Refuse options, of those `named`, that mean nothing beside these three."""
    if sensitivity:
        _refuse("--sensitivity only measures", named, but="recipe")
    if ptq:
        _refuse("--ptq trains nothing", named, *TRAINING, "resume")
    if auto_mixed:
        _refuse("--auto-mixed finds the layers itself, by trying", named, "keep_float", "dry_run", "resume")
    else:
        _refuse("Without --auto-mixed no layer is chosen by its drop", named, "max_drop")


def _measure(run: Run, recipe: str | None, json_: bool, quiet: bool) -> None:
    from edgekd.progress import ConsoleProgress
    from edgekd.quantization.sensitivity import sensitivity
    from edgekd.report.terminal import print_json, print_sensitivity

    with options.interruptible(lambda: "Nothing was written."), ConsoleProgress(quiet) as progress:
        measured = sensitivity(run, recipe, progress)
    if json_:
        print_json({"run": str(run.folder), **measured.to_dict()})
    else:
        print_sensitivity(measured, run.folder)


def _refuse(reason: str, named: list[str], *unwanted: str, but: str | None = None) -> None:
    """Raise a `UsageError` that says which of the options `named` to leave out: the `unwanted`, or all `but` one."""
    from edgekd.errors import UsageError

    wrong = [name for name in named if name in unwanted or (but is not None and name != but)]
    if wrong:
        flags = ", ".join("--ptq/--qat" if name == "method" else f"--{name.replace('_', '-')}" for name in wrong)
        raise UsageError(f"{reason}: leave out {flags}.")

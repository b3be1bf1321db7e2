"""`edgekd`: joins the commands, and turns errors into one line and an exit code.

0 done; 1 a bug or an unforeseen failure; 2 wrong usage or configuration; 3 bad or missing input; 4 a gate refused;
130 interrupted. A traceback is shown only with EDGEKD_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgekd import __version__
from edgekd.cli import (
    boards,
    compare,
    data,
    demo,
    distill,
    doctor,
    export,
    predict,
    pretrain,
    profiler,
    quantize,
    students,
    teachers,
)
from edgekd.cli.options import is_first_process, processes
from edgekd.errors import InputError, UsageError, explained
from edgekd.escaping import terminal_text
from edgekd.process_setup import keep_freed_memory, set_up_threads

COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "distill": distill.distill,
    "pretrain": pretrain.pretrain,
    "quantize": quantize.quantize,
    "export": export.export,
    "profile": profiler.profile,
    "predict": predict.predict,
    "compare": compare.compare,
    "data": data.app,
    "targets": boards.targets,
    "students": students.students,
    "teachers": teachers.app,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}
SHARED = {"distill", "pretrain", "quantize"}  # what several processes do together, under torchrun
TRAINING = {*SHARED, "demo"}
WAIT_SECONDS = 30.0  # at most, of a process that lets another one of its run speak


class _BuiltWhenCalled(TyperGroup):
    """Has of each command what `--help` lists, and builds the one that is called from its signature.

    To build them all takes three times as long as to print the list.
    """

    def __init__(self, **settings: Any) -> None:
        listed = {name: TyperCommand(name, help=_help_of(command)) for name, command in COMMANDS.items()}
        super().__init__(**settings | {"commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        if processes() > 1 and name not in SHARED:
            raise UsageError(f"{name} is done by one process: start it without torchrun.")
        if name in TRAINING:
            keep_freed_memory()
        return name, _built(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # where a command says nothing itself
            if is_first_process():
                print("\nInterrupted.", file=sys.stderr)
            raise typer.Exit(130) from None
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            raise InputError(f"code of your own ended this command ({type(error).__name__}: {error}).") from error


def _help_of(command: Callable[..., None] | typer.Typer) -> str | None:
    return command.info.help if isinstance(command, typer.Typer) else getdoc(command)


def _built(name: str) -> Any:
    command = COMMANDS[name]
    if isinstance(command, typer.Typer):
        return typer.main.get_group(command)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(command)
    return typer.main.get_command(alone)


# Plain help and errors: they are read in logs and over slow serial lines too, and start-up stays instant.
app = typer.Typer(
    cls=_BuiltWhenCalled,
    name="edgekd",
    help="Distil acoustic classifiers into int8 students that run, verified, on edge devices.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of the `edgekd` script."""
    set_up_threads()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler would write of its steps
    try:
        app()
    except Exception as error:
        if os.environ.get("EDGEKD_DEBUG") == "1":
            raise
        line, exit_code = explained(error)
        if _is_ours_to_say(error):
            print(terminal_text(f"edgekd: {line}", sys.stderr), file=sys.stderr)
        else:  # torchrun ends all processes with the first to go, which is to be the one that says why
            time.sleep(WAIT_SECONDS)
        sys.exit(exit_code)


def _is_ours_to_say(error: Exception) -> bool:
    """Whether this process tells of the error, where `torchrun` started several: not what another one has told of, nor
    what all run into alike before they have joined."""
    joined = sys.modules.get("edgekd.processes")
    if joined is not None and isinstance(error, joined.FailedElsewhere):
        return False
    return is_first_process() or (joined is not None and joined.count() > 1)

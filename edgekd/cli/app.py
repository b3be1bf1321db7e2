"""`edgekd`: joins the commands, and turns errors into one line and an exit code.

0 done; 1 a bug or an unforeseen failure; 2 wrong usage or configuration; 3 bad or missing input; 4 a gate refused;
130 interrupted; 141 what reads its output has seen enough; 143 ended by SIGTERM. A traceback is shown only with
EDGEKD_DEBUG=1.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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
    detect,
    distill,
    doctor,
    export,
    predict,
    pretrain,
    profiler,
    quantize,
    score,
    students,
    teachers,
    thresholds,
)
from edgekd.cli.options import is_first_process, processes
from edgekd.errors import NO_SPACE, InputError, UsageError, explained
from edgekd.process_setup import keep_freed_memory, look_for_garbage_seldom, set_up_threads

COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "distill": distill.distill,
    "pretrain": pretrain.pretrain,
    "quantize": quantize.quantize,
    "export": export.export,
    "profile": profiler.profile,
    "predict": predict.predict,
    "detect": detect.detect,
    "compare": compare.compare,
    "thresholds": thresholds.thresholds,
    "score": score.score,
    "data": data.app,
    "targets": boards.targets,
    "students": students.students,
    "teachers": teachers.app,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}
SHARED = {"distill", "pretrain", "quantize"}  # what several processes do together, under torchrun
TRAINING = {*SHARED, "demo"}
OUTPUT_CLOSED = 141  # as a shell has it for a program that SIGPIPE ended
WAIT_SECONDS = 30.0  # at most, of a process that lets another one of its run speak


class _BuiltWhenCalled(TyperGroup):
    """Has of each command what `--help` lists, and builds the one that is called from its signature.

    To build them all takes three times as long as to print the list.
    """

    def __init__(self, **settings: Any) -> None:
        listed = {name: TyperCommand(name, help=_help_of(command)) for name, command in COMMANDS.items()}
        super().__init__(**settings | {"commands": listed})

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        try:
            return super().make_context(*arguments, **settings)  # where --help and --version print
        except BrokenPipeError:  # click would end with 1
            _let_go_of_output()
            raise typer.Exit(OUTPUT_CLOSED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        if processes() > 1 and name not in SHARED:
            raise UsageError(f"{name} is done by one process: start it without torchrun.")
        if name in (*TRAINING, "export"):
            keep_freed_memory()
        if name not in TRAINING:
            look_for_garbage_seldom()
        return name, _built(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # where a command says nothing itself
            if is_first_process():
                print("\nInterrupted.", file=sys.stderr)
            raise typer.Exit(130) from None
        except EOFError as failure:  # click would take it for a terminal that was closed, and say "Aborted!"
            raise RuntimeError(f"EOFError: {failure}") from failure
        except BrokenPipeError:  # click would end with 1
            _let_go_of_output()
            raise typer.Exit(OUTPUT_CLOSED) from None
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
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is not in UTF-8, or not in the terminal's letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can be said that it fails
    except BrokenPipeError:
        _let_go_of_output()
        sys.exit(OUTPUT_CLOSED)
    except Exception as error:
        if os.environ.get("EDGEKD_DEBUG") == "1":
            raise
        line, exit_code = explained(_of_output(error))
        if _is_ours_to_say(error):
            from edgekd.escaping import terminal_text

            print(terminal_text(f"edgekd: {line}", sys.stderr), file=sys.stderr)
        else:  # torchrun ends all processes with the first to go, which is to be the one that says why
            time.sleep(WAIT_SECONDS)
        sys.exit(exit_code)


def _of_output(error: Exception) -> Exception:
    """What is wrong with standard output, which has no name, where that is what failed; else the error itself."""
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in NO_SPACE:
        return error
    _let_go_of_output()
    return InputError(
        f"standard output (or a temporary file) cannot be written: {error.strerror}. Files that the command wrote are "
        "whole: make room, and look there."
    )


def _let_go_of_output() -> None:
    """Have Python write nothing more to standard output, nor complain of what it holds, when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_ours_to_say(error: Exception) -> bool:
    """Whether this process tells of the error, where `torchrun` started several: not what another one has told of, nor
    what all run into alike before they have joined."""
    joined = sys.modules.get("edgekd.processes")
    if joined is not None and isinstance(error, joined.FailedElsewhere):
        return False
    return is_first_process() or (joined is not None and joined.count() > 1)

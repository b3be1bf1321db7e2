"""`edgekd`: joins the commands, and turns errors into one line and an exit code.

0 done; 1 a bug or an unforeseen failure; 2 wrong usage or configuration; 3 bad or missing input; 4 a gate refused;
130 interrupted. A traceback is shown only with EDGEKD_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from edgekd import __version__
from edgekd.cli import boards, compare, data, demo, distill, doctor, export, predict, profile, quantize, teachers
from edgekd.errors import EdgekdError, InputError

# Plain help and errors: they are read in logs and over slow serial lines too, and start-up stays instant.
app = typer.Typer(
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


app.command("distill")(distill.distill)
app.command("quantize")(quantize.quantize)
app.command("export")(export.export)
app.command("profile")(profile.profile)
app.command("predict")(predict.predict)
app.command("compare")(compare.compare)
app.command("compare-worker", hidden=True)(compare.compare_worker)
app.add_typer(data.app, name="data")
app.command("targets")(boards.targets)
app.add_typer(teachers.app, name="teachers")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def main() -> None:
    """The entry point of the `edgekd` script."""
    # Read by OpenMP when torch is loaded. Threads that spin for long while they wait made training 12 times slower on a
    # machine with other work on it; ones that do not spin at all, twice as slow on an idle one.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler would write of its steps
    try:
        app()
    except Exception as error:
        if os.environ.get("EDGEKD_DEBUG") == "1":
            raise
        line, exit_code = _explain(error)
        print(f"edgekd: {line}", file=sys.stderr)
        sys.exit(exit_code)


def _explain(error: Exception) -> tuple[str, int]:
    """The line and the exit code for what ended a command."""
    if isinstance(error, EdgekdError):
        return f"error: {error}", error.exit_code
    if isinstance(error, OSError) and error.errno is not None:  # the machine refused; without errno, a library did
        where = f"{error.filename}: " if error.filename else ""
        advice = "Check the path, its permissions and the space on its disk."
        return f"error: {where}{error.strerror}. {advice}", InputError.exit_code
    return f"unforeseen failure: {type(error).__name__}: {error} (EDGEKD_DEBUG=1 shows where)", 1

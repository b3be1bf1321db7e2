"""`edgekd teachers`: which there are, and how to get their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgekd.cli import options


class _NamesAreCommands(TyperGroup):
    """`teachers NAME` means `teachers show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


app = typer.Typer(
    cls=_NamesAreCommands,
    help="List the teachers, show one (edgekd teachers NAME), or fetch its weights.",
    subcommand_metavar="[NAME | fetch NAME]",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def teachers(context: typer.Context, json_: options.Json = False) -> None:
    if context.invoked_subcommand is not None:
        return
    from edgekd.models.teachers.table import TEACHERS, teacher_facts
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_models import print_teachers

    if json_:
        print_json({"teachers": [teacher_facts(name) for name in TEACHERS]})
    else:
        print_teachers()


@app.command(hidden=True)
def show(
    name: Annotated[str, typer.Argument(help="A teacher of the list.")],
    json_: options.Json = False,
) -> None:
    """Show what is known about one teacher."""
    from edgekd.models.teachers.table import teacher_facts
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_models import print_teacher

    if json_:
        print_json(teacher_facts(name))
    else:
        print_teacher(name)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A teacher of the list.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the file; else the cache, where it is found.")] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="What the file must be, where no digest of it is published.")
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a teacher's published weights, checked against their pinned digest; a cut-off download is gone on with.

    'edgekd distill --teacher NAME' then finds them by itself, unless --out put them elsewhere.
    """
    from shlex import quote

    from edgekd.models.download import fetch as fetch_file
    from edgekd.models.download import teachers_folder
    from edgekd.models.teachers.table import published_file
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line, print_json

    file = published_file(name, sha256)
    folder = (out or teachers_folder()).expanduser()

    def advice() -> str:
        return "What has arrived is kept: the same command goes on from there."

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        path = fetch_file(file, folder, progress)
    if json_:
        print_json({"teacher": name, "path": str(path), "bytes": path.stat().st_size, "digest": file.digest})
        return
    line(f"{path}: {path.stat().st_size:,} bytes, {file.digest} as published.")
    weights = f" --teacher-weights {quote(str(path))}" if out is not None else ""
    line(f"Use it: edgekd distill --teacher {name}{weights} ...")

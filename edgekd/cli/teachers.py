"""`edgekd teachers`: which there are, and how to get their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.models.download import WeightsFile
    from edgekd.models.teachers.table import TeacherSpec


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
    from edgekd.models.teachers.table import TEACHERS
    from edgekd.number_formats import count
    from edgekd.report.terminal import print_json, table

    if json_:
        print_json({"teachers": [_facts(name, spec) for name, spec in TEACHERS.items()]})
        return
    table(
        ("teacher", "params", "input", "tap at 5 s", "licence", "weights"),
        [
            (
                name,
                count(spec.parameters),
                f"{spec.own_rate // 1000} kHz" if spec.own_rate else "any rate",
                " x ".join(map(str, spec.tap)),
                spec.licence,
                _weights(name, spec),
            )
            for name, spec in TEACHERS.items()
        ],
        numbers=("params",),
    )
    typer.echo("Your own: --teacher package.module:factory.")
    typer.echo("More: edgekd teachers NAME. Weights: edgekd teachers fetch NAME.")


@app.command(hidden=True)
def show(
    name: Annotated[str, typer.Argument(help="A teacher of the list.")],
    json_: options.Json = False,
) -> None:
    """Show what is known about one teacher."""
    from edgekd.models.teachers.table import fetched_weights
    from edgekd.number_formats import count
    from edgekd.report.terminal import print_json

    spec = _spec(name)
    if json_:
        print_json(_facts(name, spec))
        return
    rate = f"{spec.own_rate:,} Hz, resampled inside" if spec.own_rate else "the data's rate and front end"
    lines = [
        ("", f"{name}: {spec.summary}"),
        ("parameters", f"{count(spec.parameters)} below the head"),
        ("input", rate),
        ("tap", f"{' x '.join(map(str, spec.tap))} (channels x time x frequency) for a clip of 5 s"),
        ("licence", spec.licence),
        ("weights", spec.weights_from),
    ]
    if spec.file is not None:
        size = f", {spec.file.size:,} bytes" if spec.file.size else ""
        lines.append(("file", f"{spec.file.name}{size}, {spec.file.digest or 'no published digest'}"))
        lines.append(("from", spec.file.url))
        lines.append(("fetched", str(fetched_weights(name) or f"no: edgekd teachers fetch {name}")))
    for label, text in lines:
        typer.echo(f"  {label:<11}{text}" if label else text)


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
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json

    file = _pinned(name, _spec(name), sha256)
    folder = (out or teachers_folder()).expanduser()

    def advice() -> str:
        return "What has arrived is kept: the same command goes on from there."

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        path = fetch_file(file, folder, progress)
    if json_:
        print_json({"teacher": name, "path": str(path), "bytes": path.stat().st_size, "digest": file.digest})
        return
    typer.echo(f"{path}: {path.stat().st_size:,} bytes, {file.digest} as published.")
    weights = f" --teacher-weights {quote(str(path))}" if out is not None else ""
    typer.echo(f"Use it: edgekd distill --teacher {name}{weights} ...")


def _spec(name: str) -> TeacherSpec:
    from edgekd.errors import unknown_name
    from edgekd.models.teachers.table import TEACHERS

    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    return TEACHERS[name]


def _pinned(name: str, spec: TeacherSpec, sha256: str | None) -> WeightsFile:
    """The file to fetch. Raises `UsageError` where there is none, or none that could be told from another."""
    from dataclasses import replace
    from re import fullmatch

    from edgekd.errors import UsageError

    if spec.file is None:
        raise UsageError(f"Teacher '{name}' has no file to fetch. Its weights: {spec.weights_from}.")
    if sha256 is not None and not fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 {sha256}: a sha256 has 64 hexadecimal digits.")
    if sha256 is not None and spec.file.digest is not None:
        raise UsageError(f"--sha256: {spec.file.name} is pinned already ({spec.file.digest}). Leave it out.")
    if sha256 is None and spec.file.digest is None:
        raise UsageError(
            f"Teacher '{name}': no published digest of {spec.file.name} is known, so a download could not be checked. "
            f"Get it from {spec.file.url} yourself and pass --teacher-weights FILE, or pass the --sha256 you trust."
        )
    return replace(spec.file, digest=f"sha256:{sha256.lower()}") if sha256 else spec.file


def _weights(name: str, spec: TeacherSpec) -> str:
    from edgekd.models.teachers.table import fetched_weights

    if not spec.needs_weights:
        return "none needed"
    if spec.from_folder:
        return "a folder"
    if fetched_weights(name) is not None:
        return "fetched"
    return "to fetch" if spec.file is not None and spec.file.digest is not None else "a file"


def _facts(name: str, spec: TeacherSpec) -> dict[str, Any]:
    from edgekd.models.teachers.table import fetched_weights

    fetched = fetched_weights(name)
    return {
        "teacher": name,
        "summary": spec.summary,
        "parameters": spec.parameters,
        "input_rate": spec.own_rate,
        "tap_at_5_s": list(spec.tap),
        "needs_weights": spec.needs_weights,
        "licence": spec.licence,
        "weights": spec.weights_from,
        "file": None if spec.file is None else vars(spec.file),
        "fetched": None if fetched is None else str(fetched),
    }

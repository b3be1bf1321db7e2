"""`edgekd targets`: the boards that a bundle can be made for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgekd.cli import options
from edgekd.exporting.runtimes import RUNTIMES


def targets(
    name: Annotated[str | None, typer.Argument(help="One board, or a TOML file, in full.")] = None,
    json_: options.Json = False,
) -> None:
    """List the boards a bundle can be made for, or show one."""
    from edgekd.report.terminal import print_json, table

    if name is not None:
        from edgekd.exporting.targets import load_target

        target = load_target(name).model_dump(mode="json", exclude_none=True)
        if json_:
            print_json(target)
        else:
            from edgekd.toml_files import to_toml

            typer.echo(to_toml(target), nl=False)
        return
    if json_:
        from edgekd.exporting.targets import list_targets

        print_json({"targets": [board.model_dump(mode="json", exclude_none=True) for board in list_targets()]})
        return
    table(("target", "also", "runtime", "JetPack", "precisions"), [_line(board) for board in _shipped()])
    typer.echo("The first precision is what is exported; a TensorRT bundle holds the others too.")


def _shipped() -> list[dict[str, Any]]:
    """The shipped files as they are: to check them, as the tests do, takes longer than all else here."""
    import tomllib

    from edgekd.resources import named_resources

    return [tomllib.loads(path.read_text(encoding="utf-8")) for path in named_resources("targets").values()]


def _line(board: dict[str, Any]) -> tuple[str, ...]:
    runtime = RUNTIMES[board["runtime"]]
    settings = {} if runtime.settings is None else board[runtime.settings]
    what = f"{runtime.title} {settings['version']}" if "version" in settings else runtime.name
    if "core" in settings:
        what = f"{runtime.title} for {settings['core']}"
    also, precisions = ", ".join(board.get("aliases", ())), " ".join(board["precisions"])
    return board["name"], also, what, settings.get("jetpack", ""), precisions

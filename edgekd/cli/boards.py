"""`edgekd targets`: the boards that a bundle can be made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.export.targets import Target


def targets(
    name: Annotated[str | None, typer.Argument(help="One board, or a TOML file, in full.")] = None,
    json_: options.Json = False,
) -> None:
    """List the boards a bundle can be made for, or show one."""
    from edgekd.cli.show import print_json, table
    from edgekd.export.targets import list_targets, load_target

    if name is not None:
        target = load_target(name).model_dump(mode="json", exclude_none=True)
        if json_:
            print_json(target)
        else:
            from edgekd.training.run import to_toml

            typer.echo(to_toml(target), nl=False)
        return
    boards = list_targets()
    if json_:
        print_json({"targets": [board.model_dump(mode="json", exclude_none=True) for board in boards]})
        return
    table(
        ("target", "also", "runtime", "JetPack", "precisions"),
        [
            (board.name, ", ".join(board.aliases), _runtime(board), _jetpack(board), " ".join(board.precisions))
            for board in boards
        ],
    )
    typer.echo("The first precision is what is exported; a TensorRT bundle holds the others too.")


def _runtime(board: Target) -> str:
    return f"TensorRT {board.tensorrt.version}" if board.tensorrt else board.runtime


def _jetpack(board: Target) -> str:
    return (board.tensorrt and board.tensorrt.jetpack) or ""

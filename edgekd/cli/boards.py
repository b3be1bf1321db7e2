"""`edgekd targets` and `edgekd teachers`: what can be named."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli import options


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
        ("target", "also", "runtime", "board"),
        [(board.name, ", ".join(board.aliases), board.runtime, board.title) for board in boards],
    )


def teachers(json_: options.Json = False) -> None:
    """List the teachers, and where their weights come from."""
    from edgekd.cli.show import print_json
    from edgekd.models.teachers import TEACHERS

    rows = [
        {
            "teacher": name,
            "summary": spec.summary,
            "input_rate": spec.own_rate,
            "needs_weights": spec.needs_weights,
            "licence": spec.licence,
            "weights": spec.weights_from,
        }
        for name, spec in TEACHERS.items()
    ]
    if json_:
        print_json({"teachers": rows})
        return
    for row in rows:
        rate = f"{row['input_rate']} Hz" if row["input_rate"] else "the data's rate"
        typer.echo(f"{row['teacher']}: {row['summary']}")
        typer.echo(f"    input {rate}; weights ({row['licence']}): {row['weights']}")

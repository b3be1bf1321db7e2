"""Options that several commands share, and how a configuration is put together from file, environment and flags."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.config import DistillConfig, parse, read_toml
from edgekd.errors import UsageError, unknown_name

Config = Annotated[
    Path | None, typer.Option("--config", envvar="EDGEKD_CONFIG", help="TOML file with settings; flags override it.")
]
Seed = Annotated[int | None, typer.Option("--seed", envvar="EDGEKD_SEED", help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", envvar="EDGEKD_DEVICE", help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="EDGEKD_QUIET", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings as TOML and stop.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, e.g. --set augment.time_masks=0. Repeatable."),
]


def resolve(config_file: Path | None, flags: Mapping[str, Any], sets: Sequence[str] | None) -> DistillConfig:
    """The configuration from `config_file` under `flags` (dotted key -> value; None: not given) under `--set`."""
    values: dict[str, Any] = read_toml(config_file) if config_file is not None else {}
    if config_file is not None:
        parse(DistillConfig, values, str(config_file))  # so that a mistake in the file is told apart from one in a flag
    for key, value in flags.items():
        if value is not None:
            assign(values, key, value)
    for item in sets or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: write it as KEY=VALUE, e.g. --set training.epochs=30.")
        assign(values, key.strip(), _toml_value(text))
    return parse(DistillConfig, values, "settings")


def assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `values["a"]["b"]` for `a.b`. Raises `UsageError` when `a` is no section."""
    *sections, last = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {dotted}: '{section}' is a setting, not a section.")
        values = inner
    values[last] = value


def check_names(config: DistillConfig, quantized: bool) -> None:
    """Raise one `UsageError` for all the names in `config` that are in no table, before anything slow is done."""
    from edgekd.data import DATASETS
    from edgekd.models.students import STUDENTS
    from edgekd.models.teachers import TEACHERS
    from edgekd.quantization.calibration import load_recipe
    from edgekd.training.lesson import needs_teacher

    named: list[tuple[str, str | None, Collection[str]]] = [
        ("data set", config.data.dataset, DATASETS),
        ("student", config.student, STUDENTS),
    ]
    if needs_teacher(config.loss.terms):
        named.append(("teacher", config.teacher.name, TEACHERS))
    mistakes = [
        str(unknown_name(kind, name, table)) for kind, name, table in named if name is not None and name not in table
    ]
    if quantized:
        try:
            load_recipe(config.quantize.recipe)
        except UsageError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise UsageError(" ".join(mistakes))


@contextmanager
def interruptible(advice: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends with one line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. {advice()}", err=True)
        raise typer.Exit(130) from None


def _toml_value(text: str) -> Any:
    """A TOML value; what is none (`emd`, `a/path`) is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()

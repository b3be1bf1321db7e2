"""`edgekd compare`: methods x folds x seeds in one table, with statistics."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from edgekd.cli import options

Flag = typer.Option
MOST_SEEDS = 10_000


def compare(
    methods: Annotated[
        str,
        Flag(
            help="By comma, the first is what the others are compared with: labels, kd, embedding, "
            "kd-embedding, ssatkd, ssatkd-structural, ssatkd-statistical, or NAME=FILE.toml with the settings that "
            "your own method changes."
        ),
    ] = "labels,kd,ssatkd",
    folds: Annotated[str, Flag(help="Test folds: all, or some by comma.")] = "all",
    splits: Annotated[int, Flag(min=1, max=10_000, help="Number of splits by groups, where there are no folds.")] = 1,
    seeds: Annotated[str, Flag(help="How many, from --seed on; or which, by comma (5, has one).")] = "3",
    leave_out: Annotated[
        list[str] | None,
        Flag(metavar="CLASS", help="Not learned, to be told as unknown; repeatable, each in turn; all: every class."),
    ] = None,
    jobs: Annotated[int, Flag(min=1, max=1024, help="Cells trained at the same time.")] = 1,
    quantize: Annotated[bool, Flag("--quantize", help="Train and compare int8 students too.")] = False,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    unlabelled: options.Unlabelled = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    teacher: options.Teacher = None,
    teacher_weights: options.TeacherWeights = None,
    adaptation: options.Adaptation = None,
    student: options.Student = None,
    trust: options.Trust = None,
    student_weights: options.StudentWeights = None,
    width: options.Width = None,
    student_adaptation: options.StudentAdaptation = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    out: Annotated[Path, Flag(envvar="EDGEKD_OUT", help="Folder of the comparison.")] = Path("runs/compare"),
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    overwrite: Annotated[bool, Flag("--overwrite", help="Make cells of other settings anew.")] = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train every method on every fold with every seed, and say how sure their differences are.

    A finished cell is never trained again: the same command goes on where it was interrupted, and prints the table
    where all is done.
    """
    flags = {
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.unlabelled": unlabelled or None,
        "data.sample_rate": sample_rate,
        "data.clip_seconds": clip_seconds,
        "teacher.name": teacher,
        "teacher.weights": teacher_weights,
        "teacher.adaptation": adaptation,
        "student": student,
        "student_weights": student_weights,
        "width": width,
        "training.adaptation": student_adaptation,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "out": out,
        "seed": seed,
        "device": device,
    }
    from edgekd.experiments.names import check_names
    from edgekd.experiments.plan import plan_cells, plan_text
    from edgekd.report.terminal import line
    from edgekd.training.default_teacher import with_default_teacher
    from edgekd.training.new_teacher import settled

    combined = options.combine(config, flags, set_, trust)
    resolved, chosen = settled(combined), _methods(methods)
    numbers = _seeds(seeds, resolved.seed)
    tested = None if folds == "all" else _numbers("--folds", folds)
    cells = plan_cells(resolved, chosen, {"any": {}}, numbers[:1])
    if any(cell.teacher is not None for cell in cells):
        taught, why = with_default_teacher(combined)
        resolved = settled(taught)
        cells = plan_cells(resolved, chosen, {"any": {}}, numbers[:1])
        if why is not None and not quiet:
            line(why, err=True)
    for cell in cells:
        check_names(cell.config, int8=quantize)
    if dry_run:
        typer.echo(plan_text(resolved, chosen, tested, splits, numbers, leave_out or ()), nl=False)
        return

    from edgekd.experiments.compare import compare as compare_methods
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_comparison, print_json

    def advice() -> str:
        return f"What is finished is in {quote(str(resolved.out))}. Go on with the same command."

    with options.interruptible(advice), ConsoleProgress(quiet) as progress:
        comparison = compare_methods(
            resolved,
            chosen,
            folds=tested,
            splits=splits,
            seeds=numbers,
            leave_out="all" if leave_out == ["all"] else leave_out or (),
            jobs=jobs,
            quantize=quantize,
            overwrite=overwrite,
            progress=progress,
        )
    if json_:
        print_json(comparison.to_dict())
    else:
        print_comparison(comparison)
    for hole in comparison.failed:
        line(f"{hole.run} failed: {hole.error}", err=True)
    if comparison.failed:
        again = "The same command tries them again; what they wrote to standard error is in RUN.log."
        line(f"{len(comparison.failed)} of {len(comparison.cells)} cells failed. {again}", err=True)
        raise typer.Exit(comparison.failed[0].exit_code)


def _methods(text: str) -> dict[str, Any]:
    """The methods named in `--methods`, and the settings that each changes."""
    from edgekd.errors import UsageError
    from edgekd.experiments.plan import METHODS, method_settings
    from edgekd.toml_files import read_toml

    chosen: dict[str, Any] = {}
    for item in _items(text):
        name, equals, file = (part.strip() for part in item.partition("="))
        if name in chosen:
            raise UsageError(f"--methods: '{name}' is named twice.")
        if equals and (name in METHODS or not name.replace("-", "").replace("_", "").isalnum()):
            raise UsageError(f"--methods {item}: give it a name of its own, of letters, digits, '-' and '_'.")
        chosen[name] = read_toml(Path(file)) if equals else method_settings(name)
    if not chosen:
        raise UsageError("--methods: name at least one.")
    return chosen


def _seeds(text: str, first: int) -> list[int]:
    """`3` is how many, from `first` on; `5,` and `0,5` are which."""
    from edgekd.errors import UsageError, shown

    numbers = _numbers("--seeds", text)
    if "," in text:
        return numbers
    if not 1 <= numbers[0] <= MOST_SEEDS:
        raise UsageError(f"--seeds {shown(text)}: how many, from 1 to {MOST_SEEDS}.")
    return list(range(first, first + numbers[0]))


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers by comma, none twice."""
    from edgekd.errors import UsageError, shown

    items = _items(text)
    if not items or not all(item.isdecimal() and item.isascii() and len(item) < 19 for item in items):
        raise UsageError(f"{option} {shown(text)}: whole numbers by comma, such as 1,3.")
    return list(dict.fromkeys(map(int, items)))


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]

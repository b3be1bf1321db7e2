"""`edgekd data`: what is in a data set, does its split leak; decode it once and for all; a table from file names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.config import DistillConfig

app = typer.Typer(
    help="What is in a data set, does its split leak; decode it beforehand; a table from the names of files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Fold = Annotated[int | None, typer.Option("--fold", envvar="EDGEKD_FOLD", help="Test fold.")]
SplitSeed = Annotated[
    int | None, typer.Option("--split-seed", envvar="EDGEKD_SPLIT_SEED", help="Seed of a split by groups.")
]


@app.command("inspect")
def inspect(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG with a spectrogram a class [default: DATASET-spectrograms.png].")
    ] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw none.")] = False,
    config: options.Config = None,
    set_: options.Set = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Count clips, classes and formats; find silence, clipping, duplicates and broken files; draw a spectrogram a
    class; say with which flags to train on them."""
    from edgekd.checks.inspection import inspect_data
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line, print_json
    from edgekd.report.terminal_data import print_inspection

    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds)
    with options.interruptible(lambda: "Nothing was written."), ConsoleProgress(quiet) as progress:
        inspection, index = inspect_data(settings.data, progress)
        drawn = None if no_picture else picture or Path(f"{index.dataset}-spectrograms.png")
        if drawn is not None:
            from edgekd.report.spectrograms import draw_spectrograms

            draw_spectrograms(inspection, index, settings, drawn, progress)
    fitting = inspection.fitting
    given = {
        "--config": config,
        "--dataset": dataset,
        "--data-dir": data_dir,
        "--sample-rate": sample_rate,
        "--clip-seconds": None if fitting.clip_seconds else clip_seconds,
    }
    words = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    kept = [item for item in set_ or [] if not (fitting.clip_seconds and item.startswith("data.clip_seconds"))]
    words += [word for item in kept for word in ("--set", item)]
    command = shlex.join(["edgekd", "distill", *words, *fitting.flags])
    if json_:
        print_json({**inspection.to_dict(), "picture": None if drawn is None else str(drawn), "command": command})
        return
    print_inspection(inspection)
    if drawn is not None:
        line(f"Picture: {drawn}")
    line(f"With what fits this data: {command}")


@app.command("audit")
def audit(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    unlabelled: options.Unlabelled = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    fold: Fold = None,
    split_seed: SplitSeed = None,
    write_groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the groups that the findings ask for: groups.csv, to lie beside the recordings."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    set_: options.Set = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find audio with two labels, groups and near-duplicate audio on two sides of the split, what tells the class
    besides the sound, and what of the audio without labels training would leave out. Exit code 4 where training would
    refuse; 0 where it would warn, as it does of a published split."""
    from edgekd.checks.audit import audit_data, refuse
    from edgekd.checks.joined_groups import check_groups_file
    from edgekd.checks.joined_groups import write_groups as write
    from edgekd.checks.unlabelled_audit import audit_unlabelled_data
    from edgekd.data.clip_store import open_store
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line, print_json
    from edgekd.report.terminal_data import print_audit, print_joined_groups, print_unlabelled_audit

    flags = {"data.fold": fold, "data.split_seed": split_seed, "data.unlabelled": unlabelled or None}
    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds, flags).data
    if write_groups is not None:
        check_groups_file(write_groups, overwrite)
    with options.interruptible(lambda: "What was decoded is kept."), ConsoleProgress(quiet) as progress:
        audited, index = audit_data(settings, progress)
        beside = audit_unlabelled_data(settings, progress) if settings.unlabelled else None
        joined = None if write_groups is None else write(write_groups, index, open_store(index, settings), progress)
    if json_:
        told = {} if beside is None else {"unlabelled": beside.to_dict()}
        told |= {} if joined is None else {"written": joined.to_dict()}
        print_json({"dataset": index.dataset, "root": str(index.root), **audited.to_dict(), **told})
    else:
        print_audit(audited, index)
        if beside is not None:
            print_unlabelled_audit(beside)
        if joined is not None:
            print_joined_groups(joined)
    if refuse(audited, index, settings) and not json_:
        line("Training warns of this and goes on (--set data.near_duplicates=refuse refuses).")


@app.command("prepare")
def prepare(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    config: options.Config = None,
    set_: options.Set = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Decode and fingerprint every clip now, so that training and auditing start at once."""
    from edgekd.checks.prepare import prepare_data
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_data import print_preparation

    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds).data
    with options.interruptible(lambda: "What was decoded is kept: start it again."), ConsoleProgress(quiet) as progress:
        prepared = prepare_data(settings, progress)
    if json_:
        print_json(prepared.to_dict())
    else:
        print_preparation(prepared)


@app.command("manifest")
def manifest(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the recordings are, at any depth.")],
    pattern: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="How files are named: '{_}_{label}_{group}_{_}', '{label}/{group}_{_}.wav'. Fields: label, group, "
            "fold, split; {_} is anything.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The table [default: DIR/manifest.csv].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and stop.")] = False,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
) -> None:
    """Write a manifest (path, label, group, ...) from the names of files."""
    from edgekd.data.file_names import parse_pattern, read_names, write_manifest
    from edgekd.report.terminal import line, print_json
    from edgekd.report.terminal_data import print_named_files

    table = folder / "manifest.csv" if out is None else out
    named = read_names(folder, parse_pattern(pattern))
    if not dry_run:
        write_manifest(table, named, overwrite)
    if json_:
        print_json({**named.to_dict(), "written": None if dry_run else str(table)})
        return
    print_named_files(named)
    line("Nothing was written (--dry-run)." if dry_run else f"Written: {table}")


@app.command("times")
def times(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the recordings are, at any depth.")],
    time_pattern: options.TimePattern = None,
    time_zone: options.TimeZone = None,
    json_: options.Json = False,
) -> None:
    """When recordings began, by their names; gaps and overlaps, clocks that jump back, rates that change."""
    from edgekd.data.deployments import survey
    from edgekd.data.time_zones import parse_zone
    from edgekd.data.times_in_names import parse_time_pattern
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_data import print_times

    pattern = None if time_pattern is None else parse_time_pattern(time_pattern)
    named, found = survey(folder, pattern, None if time_zone is None else parse_zone(time_zone))
    if json_:
        print_json({"deployments": [each.to_dict() for each in found], "notes": list(named.notes)})
        return
    print_times(named, found)


def _settings(
    config: Path | None,
    sets: Sequence[str] | None,
    dataset: str | None,
    data_dir: Path | None,
    sample_rate: int | None,
    clip_seconds: float | None,
    flags: Mapping[str, Any] | None = None,
) -> DistillConfig:
    """The settings of a run on these data. Raises `UsageError` for a wrong one."""
    named = {
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.sample_rate": sample_rate,
        "data.clip_seconds": clip_seconds,
        **(flags or {}),
    }
    return options.combine(config, named, sets)

"""`edgekd data`: what is in a data set, does its split leak, and decode it once and for all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd import number_formats
from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.config import DistillConfig
    from edgekd.data.checks.audit import Audit
    from edgekd.data.checks.inspection import Inspection
    from edgekd.data.index import ClipIndex
    from edgekd.progress import Progress

app = typer.Typer(
    help="What is in a data set, does its split leak; decode it beforehand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
LISTED = 5  # findings of a kind on a terminal; --json has all

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
    class."""
    from edgekd.data.audio import tolerant
    from edgekd.data.checks.inspection import inspect as inspect_index
    from edgekd.data.load import load_index
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json

    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds)
    with options.interruptible(lambda: "Nothing was written."), ConsoleProgress(quiet) as progress:
        with tolerant() as unreadable:
            index = load_index(settings.data, progress)
        found = inspect_index(index, unreadable, progress)
        drawn = None if no_picture else picture or Path(f"{index.dataset}-spectrograms.png")
        if drawn is not None:
            _draw(found, index, settings, drawn, progress)
    if json_:
        print_json({**found.to_dict(), "picture": None if drawn is None else str(drawn)})
        return
    _print_inspection(found)
    if drawn is not None:
        typer.echo(f"Picture: {drawn}")


@app.command("audit")
def audit(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    fold: Fold = None,
    split_seed: SplitSeed = None,
    config: options.Config = None,
    set_: options.Set = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find groups and near-duplicate audio on two sides of the split (exit code 4), and what tells the class besides
    the sound."""
    from edgekd.data.checks.audit import audit as audit_split
    from edgekd.data.clip_store import open_store
    from edgekd.data.load import load_index
    from edgekd.data.splits import make_split
    from edgekd.errors import GateError
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json

    flags = {"data.fold": fold, "data.split_seed": split_seed}
    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds, flags).data
    with options.interruptible(lambda: "What was decoded is kept."), ConsoleProgress(quiet) as progress:
        index = load_index(settings, progress)
        split = make_split(index, settings)
        found = audit_split(index, split, open_store(index, settings, progress), settings, progress)
    if json_:
        print_json({"dataset": index.dataset, "root": str(index.root), **found.to_dict()})
    else:
        _print_audit(found, index)
    if found.leaks:
        raise GateError(f"{index.root}: the split leaks in {len(found.leaks)} place(s). {_what_to_do(index, settings)}")


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
    from edgekd.data.checks.fingerprint import near_duplicates
    from edgekd.data.clip_store import open_store
    from edgekd.data.load import load_index
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json

    settings = _settings(config, set_, dataset, data_dir, sample_rate, clip_seconds).data
    decoded = 0

    with options.interruptible(lambda: "What was decoded is kept: start it again."), ConsoleProgress(quiet) as progress:

        def counted(stage: str, done: int, total: int, /, **figures: float | str) -> None:
            nonlocal decoded
            if stage == "cache clips":
                decoded = done
            progress(stage, done, total, **figures)

        index = load_index(settings, progress)
        started = time.perf_counter()
        store = open_store(index, settings, counted)
        seconds = time.perf_counter() - started
        if settings.near_duplicates != "off":
            near_duplicates(store, [clip.group for clip in index], progress)
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    values = {
        "folder": str(store.folder),
        "clips": len(store),
        "decoded": decoded,
        "sample_rate": store.sample_rate,
        "clip_seconds": settings.clip_seconds,
        "bytes": size,
        "seconds": round(seconds, 3),
        "real_time_factor": round(seconds / (decoded * settings.clip_seconds), 6) if decoded else None,
    }
    if json_:
        print_json(values)
        return
    at = f"{len(store)} clips of {settings.clip_seconds:g} s at {store.sample_rate} Hz"
    if decoded:
        times = decoded * settings.clip_seconds / seconds
        typer.echo(f"{at}: {decoded} decoded in {seconds:.1f} s, {times:,.0f} times as fast as they play.")
    else:
        typer.echo(f"{at}: all there already, checked in {seconds:.1f} s.")
    typer.echo(f"Cache: {store.folder} ({number_formats.size(size)})")


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
    from edgekd.config import FrontendConfig

    named = {
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.sample_rate": sample_rate,
        "data.clip_seconds": clip_seconds,
        **(flags or {}),
    }
    if config is None and sample_rate is not None:  # only the picture has a band: it follows the rate
        named["frontend.f_max"] = min(FrontendConfig().f_max, sample_rate / 2)
    return options.combine(config, named, sets)


def _what_to_do(index: ClipIndex, data: Any) -> str:
    from edgekd.data.checks.audit import rule

    if rule(index, data) == "warn":
        return "Training warns of shared audio here, because the split is the data set's own."
    return "Put what belongs together into one group (groups.csv, or the column 'group' of a manifest)."


def _draw(found: Inspection, index: ClipIndex, settings: DistillConfig, out: Path, progress: Progress) -> None:
    """One log-mel spectrogram a class: of its clip of median level."""
    import torch

    from edgekd.data.audio import read_clip
    from edgekd.log_mel import LogMel
    from edgekd.runs.pictures import plot_spectrograms

    data = settings.data
    front_end = LogMel(settings.frontend, data.sample_rate)
    samples = round(data.clip_seconds * data.sample_rate)
    spectrograms = {}
    for done, each in enumerate(found.classes, 1):
        if each.example is not None:
            clip = index.clips[each.example]
            waveform = read_clip(
                clip.path, clip.start, clip.length, sample_rate=data.sample_rate, samples=samples, padding="zeros"
            )
            spectrograms[each.name] = front_end(torch.from_numpy(waveform)[None])[0, 0].numpy()
        progress("draw", done, len(found.classes))
    if spectrograms:
        weights = front_end.mel_weights
        bins = torch.linspace(0, data.sample_rate / 2, len(weights))
        centres = (weights * bins[:, None]).sum(0) / weights.sum(0)
        plot_spectrograms(spectrograms, centres.numpy(), settings.frontend.hop_length / data.sample_rate, out)


def _print_inspection(found: Inspection) -> None:
    from edgekd.data.checks.inspection import QUIET_DB
    from edgekd.report.terminal import table

    typer.echo(f"{found.dataset}: {found.root}")
    lengths = f"{found.median_s:.2f} s"
    if found.longest_s - found.shortest_s >= 0.005:
        lengths = f"{found.shortest_s:.2f} to {found.longest_s:.2f} s, median {lengths}"
    table(
        ("", "found"),
        [
            ("clips", f"{found.clips} from {found.groups} groups (recordings or vessels)"),
            ("lengths", lengths),
            ("files", f"{found.files}, {found.hours:.2f} hours"),
            ("rates", _counts(found.rates, " Hz")),
            ("channels", _counts(found.channels)),
            ("formats", _counts(found.formats)),
        ],
    )
    numbers = ("clips", "groups", "minutes", "share", "level dB")
    minutes = sum(each.minutes for each in found.classes)
    table(
        ("class", *numbers),
        [
            (
                each.name,
                str(each.clips),
                str(each.groups),
                f"{each.minutes:.1f}",
                f"{each.minutes / minutes:.1%}",
                "-" if each.level_db is None else f"{each.level_db:.0f}",
            )
            for each in found.classes
        ],
        numbers=numbers,
    )
    if found.imbalance is None:
        typer.echo("Balance: a class has nothing that can be read.")
    else:
        typer.echo(f"Balance: the largest class has {found.imbalance:.3g} times the minutes of the smallest.")
    silent = f" ({_some(found.silent)})" if found.silent else ""
    typer.echo(f"Silence: {len(found.silent)} clip(s) digital{silent}, {found.quiet} more below {QUIET_DB:.0f} dB.")
    typer.echo(
        f"Clipping: {found.clipped_share:.2%} of all samples at full scale; files above 0.1%: {len(found.clipped)}."
    )
    _list([f"{name}: {share:.1%}" for name, share in sorted(found.clipped.items(), key=lambda pair: -pair[1])])
    typer.echo(f"Duplicates: {len(found.duplicates)} set(s) of files that decode to the same samples.")
    _list(
        [
            " = ".join(each.files) + (f"  LABELS DIFFER: {', '.join(each.classes)}" if each.labels_differ else "")
            for each in sorted(found.duplicates, key=lambda each: not each.labels_differ)
        ]
    )
    typer.echo(f"Unreadable: {len(found.unreadable)} file(s).")
    _list([f"{name}: {why}" for name, why in found.unreadable.items()])


def _print_audit(found: Audit, index: ClipIndex) -> None:
    from edgekd.report.terminal import table

    sides = ", ".join(f"{side} {count}" for side, count in found.clips.items())
    typer.echo(f"{index.dataset}: {index.root}")
    typer.echo(f"Clips: {sides}; {found.groups} groups (recordings or vessels).")
    if found.attributes:
        numbers = ("values", "Cramer's V", "p", "tells class", "chance")
        table(
            ("attribute", *numbers),
            [
                (
                    each.name,
                    str(each.values),
                    f"{each.cramers_v:.2f}",
                    number_formats.p_value(each.p),
                    f"{each.share:.0%}",
                    f"{each.chance:.0%}",
                )
                for each in found.attributes
            ],
            numbers=numbers,
        )
    for heading, findings in (("Leak", found.leaks), ("Warning", found.warnings)):
        for kind in dict.fromkeys(each.kind for each in findings):
            lines = [each.message for each in findings if each.kind == kind]
            for line in lines[:LISTED]:
                typer.echo(f"{heading}: {line}")
            if lines[LISTED:]:
                typer.echo(f"  and {len(lines) - LISTED} more of this kind (--json lists all)")
    searched = "no group and no near-duplicate audio" if found.searched else "no group"
    if not found.leaks:
        typer.echo(f"No leak: {searched} is on two sides.")


def _counts(values: Mapping[Any, int], unit: str = "") -> str:
    if len(values) == 1:
        return f"{next(iter(values))}{unit}"
    common = sorted(values.items(), key=lambda pair: -pair[1])
    more = f" and {len(common) - LISTED} more" if common[LISTED:] else ""
    return ", ".join(f"{value}{unit} ({count})" for value, count in common[:LISTED]) + more


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if names[2:] else "")


def _list(lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        typer.echo(f"  {line}")
    if lines[LISTED:]:
        typer.echo(f"  and {len(lines) - LISTED} more (--json lists all)")

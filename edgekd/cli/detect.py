"""`edgekd detect`: what is heard in long recordings, from when to when, and how surely."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd import own_code
from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.detection.detect import Found
    from edgekd.detection.listening import Heard

Flag = typer.Option
_PIPE = "-"


def detect(
    model: Annotated[Path, typer.Argument(help="Run folder or bundle.", metavar="RUN|BUNDLE")],
    paths: Annotated[
        list[Path],
        typer.Argument(help="Recordings, folders, patterns; or - for standard input: WAV or samples.", metavar="PATH"),
    ],
    out: Annotated[
        Path | None,
        Flag(
            metavar="FILE|DIR",
            help="A table of all events (.csv, .jsonl, .txt: Raven), or a folder, for one a recording. Else JSON lines"
            " are printed.",
        ),
    ] = None,
    format_: Annotated[str | None, Flag("--format", help="raven, audacity, csv or jsonl, of the tables.")] = None,
    threshold: Annotated[
        list[str] | None,
        Flag(metavar="[CLASS=]SCORE", help="An event needs this score; instead of the model's own. Repeatable."),
    ] = None,
    hop: Annotated[
        float | None, Flag(min=0.001, callback=options.finite, help="Seconds from one window to the next.")
    ] = None,
    minimum: Annotated[
        float | None, Flag(min=0.0, max=1e6, callback=options.finite, metavar="S", help="Leave out shorter events.")
    ] = None,
    gap: Annotated[
        float | None,
        Flag(min=0.0, max=1e6, callback=options.finite, metavar="S", help="Join events of a class no further apart."),
    ] = None,
    time_pattern: options.TimePattern = None,
    time_zone: options.TimeZone = None,
    exclusive: Annotated[bool, Flag("--exclusive", help="One class at a time, the surest.")] = False,
    rate: Annotated[
        int | None, Flag(min=100, max=768_000, help="Hz, of samples on standard input [default: the model's].")
    ] = None,
    pcm: Annotated[str | None, Flag(help="What they are: s16 (the default), s24, s32, u8, f32.")] = None,
    channels: Annotated[int | None, Flag(min=1, max=64, help="How many are interleaved [default: 1].")] = None,
    trust: options.Trust = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find events in recordings of any length, by overlapping windows. The same command goes on where it was stopped.

    A recording that cannot be read is named, the others are listened to, and the exit code is 3.
    """
    from edgekd.errors import InputError, UsageError

    own_code.trust(trust or ())
    everywhere, by_class = options.thresholds(threshold or [])
    asked: dict[str, Any] = {
        "hop_s": hop,
        "thresholds": [*([] if everywhere is None else [(None, everywhere)]), *by_class.items()],
        "minimum_s": minimum,
        "gap_s": gap,
        "exclusive": exclusive or None,
    }
    piped = Path(_PIPE) in paths
    if piped and len(paths) > 1:
        raise UsageError("-: standard input is one recording; give nothing else.")
    for value, name in ((rate, "--rate"), (pcm, "--pcm"), (channels, "--channels")):
        if value is not None and not piped:
            raise UsageError(f"{name}: is of samples on standard input; name it as the recording: -")
    times = {"time_pattern": time_pattern, "time_zone": time_zone}
    if piped and (time_pattern or time_zone):
        raise UsageError("--time-pattern, --time-zone: standard input has no name that tells when it began.")
    if piped:
        heard, interrupted = _listen(model, out, format_, asked, overwrite, (rate, pcm, channels), json_, quiet)
    else:
        heard, interrupted = _read(model, paths, out, format_, asked | times, overwrite, json_, quiet), 0
    if interrupted:
        raise typer.Exit(128 + interrupted)
    if any(each.failed for each in heard):
        raise typer.Exit(InputError.exit_code)


def _read(
    model: Path,
    paths: list[Path],
    out: Path | None,
    format_: str | None,
    asked: dict[str, Any],
    overwrite: bool,
    json_: bool,
    quiet: bool,
) -> tuple[Heard, ...]:
    from edgekd.detection.detect import detect
    from edgekd.events.tables import event_json
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line

    def report(heard: Heard) -> None:
        _complain(heard)
        if out is None and not json_:
            for event in heard.events:
                line(event_json(event))

    def advice() -> str:
        return (
            "Nothing was written."
            if out is None
            else "The same command goes on where it was; recordings that are done are not listened to again."
        )

    with options.interruptible(advice), ConsoleProgress(quiet=quiet, audio=True) as progress:
        found = detect(
            model,
            paths,
            out,
            progress,
            format_=format_,
            overwrite=overwrite,
            report=report,
            tell=_notes(json_ or quiet),
            **asked,
        )
    _summarise(found, out, json_)
    return found.recordings


def _listen(
    model: Path,
    out: Path | None,
    format_: str | None,
    asked: dict[str, Any],
    overwrite: bool,
    pcm: tuple[int | None, str | None, int | None],
    json_: bool,
    quiet: bool,
) -> tuple[tuple[Heard, ...], int]:
    from edgekd.detection.detect import detect_piped
    from edgekd.errors import UsageError
    from edgekd.events.tables import event_json
    from edgekd.report.terminal import line

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("-: standard input is a terminal: arecord -q -t raw -f S16_LE -r 32000 | edgekd detect ...")

    def tell(event: Any) -> None:
        if out is None and not json_:
            line(event_json(event))
            sys.stdout.flush()

    found, interrupted = detect_piped(
        model,
        sys.stdin.fileno(),
        out,
        pcm=pcm,
        format_=format_,
        overwrite=overwrite,
        tell=tell,
        note=_notes(json_ or quiet),
        **asked,
    )
    for heard in found.recordings:
        _complain(heard)
    _summarise(found, out, json_)
    return found.recordings, interrupted


def _notes(silent: bool) -> Callable[[str], None]:
    """Prints a note, unless that is to be `silent`."""
    from edgekd.report.terminal import line

    return lambda words: None if silent else line(f"Note: {words}", err=True)


def _summarise(found: Found, out: Path | None, json_: bool) -> None:
    """What was found, and where it is written."""
    from edgekd.report.terminal import line, print_json

    if json_:
        print_json(found.to_dict())
    elif out is not None and found.tables:
        tables = f"{len(found.tables)} tables in {out}" if len(found.tables) > 1 else f"{out}"
        line(f"{len(found.events)} events in {found.seconds / 3600:.3g} h of audio: {tables}")


def _complain(heard: Heard) -> None:
    from edgekd.report.terminal import line

    if heard.missed is not None:
        line(f"edgekd: {'error: ' if heard.failed else ''}{heard.recording}: {heard.missed}", err=True)

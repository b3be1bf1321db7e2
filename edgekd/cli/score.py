"""`edgekd score`: how good detections are, beside the events that there were; anybody's tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.events.matching import Criterion

Flag = typer.Option


def score(
    detections: Annotated[
        Path, typer.Argument(metavar="DETECTIONS", help="Table of what was found, or a folder of tables.")
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Table of what there was, or a folder of tables.")],
    audio: Annotated[
        Path | None,
        Flag(
            metavar="DIR", help="All recordings that were listened to, those without an event too: for rates an hour."
        ),
    ] = None,
    hours: Annotated[
        float | None, Flag(min=0.0, callback=options.finite, help="How long they are together, without --audio.")
    ] = None,
    overlap: Annotated[
        float | None,
        Flag(
            min=0.001,
            max=1.0,
            callback=options.finite,
            metavar="SHARE",
            help="Right from this intersection over union on [default: 0.3].",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        Flag(
            min=0.0,
            callback=options.finite,
            metavar="S",
            help="Right where begin and end differ by so many seconds at most, instead of --overlap.",
        ),
    ] = None,
    tolerance_share: Annotated[
        float | None,
        Flag(
            min=0.0,
            max=1.0,
            callback=options.finite,
            metavar="SHARE",
            help="The end may differ by this share of the event's length, where that is more [default: 0.2].",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        Flag(metavar="[CLASS=]SCORE", help="Leave out detections with a lower score. Repeatable, for classes."),
    ] = None,
    class_: Annotated[
        list[str] | None, Flag("--class", metavar="CLASS", help="Score this class, and not all. Repeatable.")
    ] = None,
    test_of: Annotated[
        Path | None, Flag(metavar="RUN", help="Only recordings on the test side of this run: it has learnt the others.")
    ] = None,
    label: Annotated[
        str | None, Flag(metavar="COLUMN", help="Where DETECTIONS has its labels, if not in a known column.")
    ] = None,
    score_: Annotated[str | None, Flag("--score", metavar="COLUMN", help="Where it has its scores.")] = None,
    format_: Annotated[
        str | None, Flag("--format", help="raven, audacity, csv or jsonl; else told by what DETECTIONS holds.")
    ] = None,
    truth_label: Annotated[str | None, Flag(metavar="COLUMN", help="Where TRUTH has its labels.")] = None,
    truth_format: Annotated[str | None, Flag(help="Of TRUTH.")] = None,
    json_: options.Json = False,
) -> None:
    """Score detections beside true events: precision, recall, F1, false alarms an hour, at all thresholds.

    Tables are Raven's selections, Audacity's labels, CSV (also of BirdNET, opensoundscape, ketos) or JSON lines.
    """
    from edgekd.data.splits import recordings_on
    from edgekd.errors import UsageError
    from edgekd.events.tables import read_events
    from edgekd.report.terminal import print_json
    from edgekd.report.terminal_events import print_event_scores
    from edgekd.runs.run import Run
    from edgekd.scoring.event_tables import score_tables

    if audio is not None and hours is not None:
        raise UsageError("--audio, --hours: one of the two; --audio tells the hours.")
    everywhere, by_class = options.thresholds(threshold or [])
    scored = score_tables(
        read_events(detections, format_, label, score_, audio),
        read_events(truth, truth_format, truth_label, audio=audio),
        _criterion(overlap, tolerance, tolerance_share),
        audio=audio,
        hours=hours,
        threshold=everywhere,
        class_thresholds=by_class,
        classes=tuple(dict.fromkeys(class_ or ())),
        only=None if test_of is None else recordings_on(Run.open(test_of).folder / "splits.csv", "test"),
    )
    if json_:
        print_json({"detections": str(detections), "truth": str(truth), **scored.to_dict()})
    else:
        print_event_scores(scored)


def _criterion(overlap: float | None, tolerance: float | None, share: float | None) -> Criterion:
    from edgekd.errors import UsageError
    from edgekd.events.matching import Overlap, Tolerance

    if overlap is not None and tolerance is not None:
        raise UsageError("--overlap, --tolerance: a detection is right by one of the two.")
    if tolerance is None and share is not None:
        raise UsageError("--tolerance-share: goes with --tolerance SECONDS.")
    if tolerance is not None:
        return Tolerance(tolerance) if share is None else Tolerance(tolerance, share)
    return Overlap() if overlap is None else Overlap(overlap)

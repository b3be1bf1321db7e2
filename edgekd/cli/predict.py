"""`edgekd predict`: classify audio files with a run or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd import own_code
from edgekd.cli import options

if TYPE_CHECKING:
    from edgekd.exporting.predict import Prediction


def predict(
    model: Annotated[Path, typer.Argument(help="Run folder or bundle.", metavar="RUN|BUNDLE")],
    files: Annotated[list[Path], typer.Argument(help="Audio files, of any rate and length.", metavar="FILE")],
    top: Annotated[
        int | None,
        typer.Option(
            min=1, help="Classes shown for each file (3; of a classifier of several at once those that it answers)."
        ),
    ] = None,
    trust: options.Trust = None,
    json_: options.Json = False,
) -> None:
    """Classify audio files. A file longer than a clip gets the mean score of overlapping windows.

    "unknown" comes before the classes of a file that is not familiar enough, where RUN or BUNDLE was exported with
    --reject.

    A file that cannot be read is named, the others are classified, and the exit code is 3.
    """
    from edgekd.errors import InputError
    from edgekd.exporting.predict import predict_files
    from edgekd.report.terminal import line, print_json

    own_code.trust(trust or ())
    predictions: list[Prediction] = []
    notes: list[str] = []

    def tell(note: str) -> None:
        notes.append(note)
        if not json_:
            line(f"Note: {note}", err=True)

    for prediction in predict_files(model, files, tell):
        predictions.append(prediction)
        if prediction.error is not None:
            line(f"edgekd: error: {prediction.error}", err=True)
        elif not json_:
            unknown = "unknown, " if prediction.unknown else ""
            nothing = "" if prediction.several or prediction.answers != () else " (none reaches its threshold)"
            told = f"{unknown}{_told(prediction, top)}{' (silent)' if prediction.silent else ''}{nothing}"
            line(f"{prediction.file}: {told}")
    if json_:
        files_json = [prediction.to_dict() for prediction in predictions]
        print_json({"model": str(model), "notes": notes, "files": files_json})
    if any(prediction.error is not None for prediction in predictions):
        raise typer.Exit(InputError.exit_code)


def _told(prediction: Prediction, top: int | None) -> str:
    """The most probable classes, or all that are answered, with their scores."""
    shown = prediction.ranked[: top or 3]
    if prediction.several and prediction.answers is not None and top is None:
        shown = tuple((name, share) for name, share in prediction.ranked if name in prediction.answers)
        if not shown:
            name, share = prediction.ranked[0]
            return f"none of the classes (most of {name}, {share:.1%})"
    return ", ".join(f"{name} {share:.1%}" for name, share in shown)

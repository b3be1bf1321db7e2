"""`edgekd predict`: classify audio files with a run or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli import options


def predict(
    model: Annotated[Path, typer.Argument(help="Run folder or bundle.", metavar="RUN|BUNDLE")],
    files: Annotated[list[Path], typer.Argument(help="Audio files, of any rate and length.", metavar="FILE")],
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each file.")] = 3,
    json_: options.Json = False,
) -> None:
    """Classify audio files. A file longer than a clip gets the mean score of overlapping windows.

    A file that cannot be read is named, the others are classified, and the exit code is 3.
    """
    from edgekd.errors import InputError
    from edgekd.exporting.predict import open_predictor
    from edgekd.report.terminal import print_json

    predictor = open_predictor(model)
    results: list[dict[str, Any]] = []
    for file in files:
        try:
            scores = predictor.predict_file(file)
        except InputError as failure:
            typer.echo(f"edgekd: error: {failure}", err=True)
            results.append({"file": str(file), "error": str(failure)})
            continue
        ranked = sorted(zip(predictor.classes, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        results.append({"file": str(file), "scores": {name: round(score, 6) for name, score in ranked}})
        if not json_:
            typer.echo(f"{file}: " + ", ".join(f"{name} {score:.1%}" for name, score in ranked[:top]))
    if json_:
        print_json({"model": str(model), "files": results})
    if any("error" in result for result in results):
        raise typer.Exit(InputError.exit_code)

"""`edgekd predict`: classify audio files with a run or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import options


def predict(
    model: Annotated[Path, typer.Argument(help="Run folder or bundle.")],
    files: Annotated[list[Path], typer.Argument(help="Audio files, of any rate and length.")],
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each file.")] = 3,
    json_: options.Json = False,
) -> None:
    """Classify audio files. A file longer than a clip gets the mean score of overlapping windows."""
    from edgekd.cli.show import print_json
    from edgekd.export.predict import open_predictor

    predictor = open_predictor(model)
    results = []
    for file in files:
        scores = predictor.predict_file(file)
        ranked = sorted(zip(predictor.classes, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        results.append({"file": str(file), "scores": {name: round(score, 6) for name, score in ranked}})
        if not json_:
            typer.echo(f"{file}: " + ", ".join(f"{name} {score:.1%}" for name, score in ranked[:top]))
    if json_:
        print_json({"model": str(model), "files": results})

"""The outcome of a run: what a trained model says of the test side, and where that is written down."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekd import processes
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.pictures import plot_average_precision, plot_confusion, plot_curves
from edgekd.runs.predictions import write_predictions
from edgekd.runs.run import Run, Stage
from edgekd.scoring.label_scores import LabelScores
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.scored import AnyScores, read_scores, score_clips
from edgekd.scoring.scores import Scores

Probabilities = npt.NDArray[np.float32]


def predict_test(model: nn.Module, data: RunData, device: torch.device, progress: Progress = silent) -> Probabilities:
    """What a student or teacher says of the test side, `(N, K)`."""
    model.to(device).eval()
    return predict_probabilities(
        lambda waveforms: model(waveforms).logits,
        data.store,
        data.split.test,
        device=device,
        progress=progress,
        stage="test",
        task=data.index.task,
    )


def record_test(run: Run, subject: Stage, data: RunData, probabilities: Probabilities) -> None:
    """Put what `subject` says of the test side into `predictions.csv`, draw the pictures of the run again, and put its
    scores into `report.json`."""

    def record() -> None:
        test = data.side("test")
        scores = score_clips(probabilities, test.labels, test.groups, data.index.classes, run.config.seed)
        write_predictions(run.folder, subject, data.index, test.rows, probabilities)
        tested = {**run.report().get("test", {}), subject: scores.to_dict()}
        _draw(run, {name: read_scores(values) for name, values in tested.items()})
        plot_curves(run.folder / "metrics.csv", run.folder / "curves.png")
        run.update_report("test", {subject: tested[subject]})  # last: now it is finished

    processes.from_first(record)


def _draw(run: Run, tested: Mapping[str, AnyScores]) -> None:
    """The confusion matrices or, where clips may be of several classes, how well each class is ranked."""
    confusions = {name: scores.confusion for name, scores in tested.items() if isinstance(scores, Scores)}
    if confusions:
        plot_confusion(confusions, run.classes, run.folder / "confusion.png")
    ranked = {
        name: (scores.mean_average_precision, scores.average_precision)
        for name, scores in tested.items()
        if isinstance(scores, LabelScores)
    }
    if ranked:
        plot_average_precision(ranked, run.classes, run.folder / "average_precision.png")


def _stronger(run: Run) -> str:
    """What has not been tried for a better teacher."""
    teacher = run.config.teacher
    if teacher.adaptation != "full":
        return "a stronger one, or --adaptation full"
    return f"a stronger one, or more epochs of it than {teacher.epochs} (--set teacher.epochs=...)"


def warn_of_weaker_teacher(run: Run) -> None:
    """Put a warning into the run's report where its student knows more than the teacher it learned from."""
    sides = []
    best = {stage: run.metrics().best(stage, run.task) for stage in ("teacher", "student")}
    tested = run.report().get("test", {})
    for side, measures in (
        ("validation", best),
        ("test", {subject: tested[subject][run.task.measure] for subject in best if subject in tested}),
    ):
        teacher, student = measures.get("teacher"), measures.get("student")
        if teacher is not None and student is not None and teacher < student:
            sides.append(f"{teacher:.1%} against {student:.1%} on the {side} side")
    if sides:
        of = " in mAP" if run.task.several else ""
        run.warn(
            f"the teacher is worse than its student ({', '.join(sides)}{of}): it can teach little. "
            f"Try {_stronger(run)}."
        )

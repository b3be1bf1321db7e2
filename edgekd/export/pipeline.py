"""From a run to a bundle: build the graph, check its structure, verify its outputs, only then write."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import InputError
from edgekd.export.bundle import (
    Bundle,
    Classifier,
    GoldenExamples,
    Provenance,
    refuse_existing,
    write_bundle,
)
from edgekd.export.flavours import check_structure
from edgekd.export.onnx_graph import quantized_onnx
from edgekd.export.targets import Target, Tolerance
from edgekd.export.verify import MIN_CLIPS, graph_classifier, reference, session, verify
from edgekd.models.students import Student
from edgekd.quantization import load_int8
from edgekd.quantization.qat import quantized_network
from edgekd.training.evaluation import predict_probabilities
from edgekd.training.run import Run

GOLDEN_CLIPS = 12
GOLDEN_CANDIDATES = 48  # test clips they are chosen from
MAX_CLIPS = 512  # more take memory and time and tell no more
STEPS = 5


def export_run(run: Run, target: Target, out: Path, progress: Progress = silent, *, overwrite: bool = False) -> Bundle:
    """Export the int8 student of `run` for `target`, verified against the fake-quantised model on real clips.

    Raises `InputError` for an unfinished run, `UsageError` when `out` exists, `GateError` when the graph's
    structure, its agreement with the trained model or its size does not pass; no bundle is then left behind.
    """
    refuse_existing(out, overwrite)
    student = load_int8(run)
    network = quantized_network(student)
    trained = reference(student, network, target.flavour)
    index = run.index()
    split = run.split(index)
    rows = verification_rows(split)
    store = run.store(index)
    progress("export", 1, STEPS, step="graph")
    model = quantized_onnx(student, network, store.samples, target.flavour, target.opset)
    progress("export", 2, STEPS, step="structure")
    check_structure(model, target.flavour)
    progress("export", 3, STEPS, step="verify")
    parity = verify(model, trained, store.waveforms(rows), target.tolerance)
    progress("export", 4, STEPS, step="bundle")
    bundle = write_bundle(
        out,
        model,
        classifier=_classifier(run, student, store),
        provenance=_provenance(run, index, shipped_accuracy(model, index, split, store)),
        parity=parity,
        golden=_golden(trained, index, split, store, target.tolerance),
        target=target,
        overwrite=overwrite,
    )
    progress("export", 5, STEPS, step="done")
    return bundle


def verification_rows(split: Split) -> list[int]:
    """`MIN_CLIPS` to `MAX_CLIPS` rows: test clips evenly spaced, filled up from validation and training if too few."""
    spacing = max(1, ceil(len(split.test) / MAX_CLIPS))
    rows = list(split.test[::spacing])
    for side in (split.validation, split.train):
        rows += side[: max(0, MIN_CLIPS - len(rows))]
    if len(rows) < MIN_CLIPS:
        raise InputError(
            f"The data set has {len(rows)} clips; verifying an export takes {MIN_CLIPS} real ones. Add recordings."
        )
    return rows


def _golden(
    trained: Callable[[Tensor], Tensor], index: ClipIndex, split: Split, store: ClipStore, tolerance: Tolerance
) -> GoldenExamples:
    """Test clips, classes in turn, rounded to int16, with what the fake-quantised student says of the rounded clips.

    A clip whose two best classes are nearer than twice the tolerance may rightly fall to either of them on a device, so
    such clips come last, the least ambiguous first.
    """
    by_class: dict[int, list[int]] = {}
    for row in split.test:
        by_class.setdefault(index.clips[row].label, []).append(row)
    turns = [rows[turn] for turn in range(GOLDEN_CANDIDATES) for rows in by_class.values() if turn < len(rows)]
    rows = turns[:GOLDEN_CANDIDATES]
    waveforms = store.waveforms(rows).numpy()
    scale = np.maximum(np.abs(waveforms).max(axis=1), 1e-9).astype(np.float32)
    integers = np.round(waveforms / scale[:, None] * 32767).astype(np.int16)
    exact: NDArray[np.float32] = integers * scale[:, None] / np.float32(32767)
    probabilities = np.concatenate([trained(batch).numpy() for batch in torch.from_numpy(exact).split(GOLDEN_CLIPS)])
    second, best = np.sort(probabilities, axis=1)[:, -2:].T
    margin = np.minimum(best - second, 2 * tolerance.probability)
    chosen = np.argsort(-margin, kind="stable")[:GOLDEN_CLIPS]
    return GoldenExamples(
        waveform=integers[chosen],
        scale=scale[chosen],
        probabilities=probabilities[chosen],
        labels=np.array([index.clips[rows[number]].label for number in chosen], dtype=np.int64),
    )


def _classifier(run: Run, student: Student, store: ClipStore) -> Classifier:
    data = run.config.data
    return Classifier(
        student=student.name,
        classes=run.classes,
        sample_rate=data.sample_rate,
        clip_samples=store.samples,
        padding=data.padding,
        frontend=run.config.frontend,
        gain=float(student.gain),
    )


def shipped_accuracy(model: bytes, index: ClipIndex, split: Split, store: ClipStore) -> float:
    """Accuracy of the exported graph itself on the run's test side.

    The run's own int8 score is that of its arithmetic in training; a flavour whose integers reach further may differ.
    """
    predicted = predict_probabilities(graph_classifier(session(model)), store, split.test).argmax(axis=1)
    return float((predicted == np.array([index.clips[row].label for row in split.test])).mean())


def _provenance(run: Run, index: ClipIndex, test_accuracy: float) -> Provenance:
    folds = any(clip.fold is not None for clip in index.clips)
    return Provenance(
        run=str(run.folder),
        dataset=index.dataset,
        fold=run.config.data.fold if folds else None,
        seed=run.config.seed,
        test_accuracy=round(test_accuracy, 6),
    )

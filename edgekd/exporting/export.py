"""From a run to a bundle: build the graph, check its structure, verify its outputs, only then write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.data.index import Split
from edgekd.errors import InputError
from edgekd.exporting.budget import check_budget
from edgekd.exporting.bundle import (
    Bundle,
    Check,
    Classifier,
    Findings,
    GoldenExamples,
    Parity,
    Provenance,
    refuse_existing,
    write_bundle,
)
from edgekd.exporting.graph import Deployable, Form, float_onnx, quantized_onnx
from edgekd.exporting.operators import check_operators, check_opset
from edgekd.exporting.parser import parse_with_nvidia
from edgekd.exporting.qdq_checks import check_optimised, check_structure, float_operators
from edgekd.exporting.targets import Precision, Target, Tolerance, load_target
from edgekd.exporting.verify import (
    MIN_CLIPS,
    Probabilities,
    graph_classifier,
    in_onnxruntime,
    in_reference,
    reference,
    verify,
    verify_by_reference,
)
from edgekd.models.students.student import Student
from edgekd.progress import Progress, silent
from edgekd.quantization.int8_student import load_int8, quantized_network
from edgekd.quantization.prepare import check_finite
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.scoring.probabilities import predict_probabilities

GOLDEN_CLIPS = 12
GOLDEN_CANDIDATES = 48  # test clips they are chosen from
MAX_CLIPS = 512  # more take memory and time and tell no more
STEPS = 5


@dataclass(frozen=True)
class _Exported:
    """One graph, and the student it was made from as it computes in the end."""

    model: bytes
    student: Student
    trained: Probabilities
    float_layers: tuple[str, ...] = ()


def export(
    run: Run, target: Target | str, out: Path | None = None, progress: Progress = silent, *, overwrite: bool = False
) -> Bundle:
    """Export `run`'s student for `target`, in its first precision, verified against the trained one on real clips.

    `target`: a board, or the name or TOML file of one; `out`: the bundle folder, `run.folder/bundle-NAME` where None. A
    bundle for TensorRT also holds the target's other precisions. Raises `InputError` for an unfinished run,
    `UsageError` when `out` exists, `GateError` when a graph's structure, operators, agreement with the trained model or
    budget does not pass; no bundle is then left behind.
    """
    target = load_target(target) if isinstance(target, str) else target
    out = out or run.folder / f"bundle-{target.name}"
    refuse_existing(out, overwrite)
    precisions = target.precisions if target.runtime == "tensorrt" else target.precisions[:1]
    students = {precision: _trained(run, precision) for precision in precisions}
    data = run.open_data(progress)
    rows = verification_rows(data.split)
    progress("export", 1, STEPS, step="graph")
    exported = {
        precision: _export(precision, student, target, data.store.samples) for precision, student in students.items()
    }
    main = exported[target.precision]
    progress("export", 2, STEPS, step="structure")
    for precision, graph in exported.items():
        _check_graph(precision, graph, target)
    check_budget(
        main.model,
        target,
        student=main.student.name,
        width=main.student.width,
        num_classes=len(run.classes),
        frontend=run.config.frontend,
        sample_rate=run.config.data.sample_rate,
        clip_samples=data.store.samples,
    )
    progress("export", 3, STEPS, step="verify")
    waveforms = data.waveforms(rows)
    checks = [
        check for precision, graph in exported.items() for check in _verified(precision, graph, waveforms, target)
    ]
    parity = Parity.model_validate(checks[0].figures)
    progress("export", 4, STEPS, step="bundle")
    shipped = in_onnxruntime(main.model, main.student.front_end)
    bundle = write_bundle(
        out,
        {precision: graph.model for precision, graph in exported.items()},
        classifier=_classifier(run, main.student, target),
        provenance=_provenance(run, data, shipped_accuracy(shipped, data)),
        findings=Findings(parity, tuple(checks), float_operators(main.model)),
        golden=_golden(main.trained, reference(run.student()), data, target.tolerance),
        target=target,
        overwrite=overwrite,
    )
    progress("export", 5, STEPS, step="done")
    return bundle


def _trained(run: Run, precision: Precision) -> Student:
    student = load_int8(run) if precision == "int8" else run.student()
    check_finite(student)
    return student


def _export(precision: Precision, student: Student, target: Target, clip_samples: int) -> _Exported:
    form = Form(target.opset, target.frontend, target.batch)
    if precision == "int8":
        network = quantized_network(student)
        model = quantized_onnx(student, network, clip_samples, target.flavour, form)
        trained = reference(student, network, target.flavour)
        return _Exported(model, student, trained, tuple(network.float_layers()))
    model = float_onnx(student, clip_samples, form, half=precision == "fp16")
    return _Exported(model, student, reference(student))


def _check_graph(precision: Precision, graph: _Exported, target: Target) -> None:
    check_operators(graph.model, target)
    check_opset(graph.model, target)
    if precision == "int8":
        check_structure(graph.model, target.flavour, graph.float_layers)
        if target.flavour == "onnxruntime":
            check_optimised(graph.model)


def _verified(precision: Precision, graph: _Exported, waveforms: Tensor, target: Target) -> Iterator[Check]:
    """What ONNX Runtime, the standard's reference and, for TensorRT, NVIDIA's parser say of a graph."""
    import onnx
    import onnxruntime

    classify = in_onnxruntime(graph.model, graph.student.front_end)
    parity = verify(classify, graph.trained, waveforms, target.tolerance)
    yield Check(by=f"onnxruntime {onnxruntime.__version__}", precision=precision, figures=parity.model_dump())
    by_reference = in_reference(graph.model, graph.student.front_end)
    parity = verify_by_reference(by_reference, graph.trained, waveforms, target.tolerance)
    yield Check(by=f"onnx.reference {onnx.__version__}", precision=precision, figures=parity.model_dump())
    if target.runtime == "tensorrt":
        accepted = parse_with_nvidia(graph.model)
        by = "NVIDIA's ONNX parser and builder"
        if accepted is None:
            yield Check(by=by, precision=precision, not_run="the extra 'rtx' is not installed")
        else:
            by, found = (
                f"{by} (TensorRT for RTX {accepted.version})",
                {"layers": accepted.layers, "int8": accepted.rounded},
            )
            yield Check(by=by, precision=precision, figures=found)


def float_modules(run: Run, target: Target) -> dict[Precision, nn.Module]:
    """The classifier as PyTorch modules, in the floating-point precisions of a bundle for `target`."""
    student = run.student()
    return {
        precision: Deployable(student, student.network, target.frontend, half=precision == "fp16")
        for precision in target.precisions
        if precision != "int8"
    }


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
    trained: Probabilities,
    float_student: Probabilities,
    data: RunData,
    tolerance: Tolerance,
) -> GoldenExamples:
    """Test clips, classes in turn, rounded to int16, with what the students say of the rounded clips.

    A clip whose two best classes are nearer than twice the tolerance may rightly fall to either of them on a device, so
    such clips come last, the least ambiguous first.
    """
    by_class: dict[int, list[int]] = {}
    test = data.side("test")
    for row, label in zip(test.rows, test.labels.tolist(), strict=True):
        by_class.setdefault(label, []).append(row)
    turns = [rows[turn] for turn in range(GOLDEN_CANDIDATES) for rows in by_class.values() if turn < len(rows)]
    rows = turns[:GOLDEN_CANDIDATES]
    waveforms = data.waveforms(rows).numpy()
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
        labels=data.at([rows[number] for number in chosen]).labels,
        float_probabilities=float_student(torch.from_numpy(exact[chosen])).numpy(),
    )


def _classifier(run: Run, student: Student, target: Target) -> Classifier:
    data = run.config.data
    return Classifier(
        student=student.name,
        width=student.width,
        classes=run.classes,
        sample_rate=run.config.data.sample_rate,
        clip_samples=round(data.clip_seconds * data.sample_rate),
        padding=data.padding,
        input="waveform" if target.frontend == "graph" else "log_mel",
        batch=target.batch,
        frontend=run.config.frontend,
        gain=float(student.gain),
    )


def shipped_accuracy(shipped: Probabilities, data: RunData) -> float:
    """Accuracy of the exported graph itself on the run's test side.

    The run's own int8 score is that of its arithmetic in training; a flavour whose integers reach further may differ.
    """
    test = data.side("test")
    predicted = predict_probabilities(graph_classifier(shipped), data.store, test.rows).argmax(axis=1)
    return float((predicted == test.labels).mean())


def _provenance(run: Run, data: RunData, test_accuracy: float) -> Provenance:
    folds = any(clip.fold is not None for clip in data.index.clips)
    return Provenance(
        run=str(run.folder),
        dataset=data.index.dataset,
        fold=run.config.data.fold if folds else None,
        seed=run.config.seed,
        test_accuracy=round(test_accuracy, 6),
    )

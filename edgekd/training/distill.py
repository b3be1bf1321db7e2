"""`distill`: data, teacher, SSATKD student, test scores. Read from top to bottom, this is what a run does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from edgekd import own_code, processes
from edgekd.checks.audit import audit, check_audit
from edgekd.checks.unlabelled_audit import audit_unlabelled
from edgekd.config import DistillConfig
from edgekd.data.clip_length import check_clip_length
from edgekd.data.index import ClipIndex, Split
from edgekd.data.load import load_index
from edgekd.data.splits import check_no_leak, make_split, read_splits, write_splits
from edgekd.data.unlabelled import load_unlabelled
from edgekd.data.walk import told
from edgekd.errors import UsageError
from edgekd.files.whole import write_json
from edgekd.losses.terms import Need, check_classes, check_task, check_terms, check_unlabelled, needs_of, needs_teacher
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import check_models, new_student
from edgekd.models.students.cut import CutNetwork
from edgekd.models.students.names import cut_of, trains_head_alone
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.models.tracing import check_layers, trace
from edgekd.models.weights import taken_of_several
from edgekd.own_code import is_own
from edgekd.progress import Progress, silent
from edgekd.runs.at_work import makes_run
from edgekd.runs.data import RunData, UnlabelledClips, open_clips
from edgekd.runs.run import Run, check_folder, is_begun, to_resume
from edgekd.runs.unlabelled import FILE as UNLABELLED
from edgekd.runs.unlabelled import write_unlabelled
from edgekd.task import Task
from edgekd.training.adapt import adapted_teacher
from edgekd.training.averaging import averaged_weights
from edgekd.training.batches import check_shares, seed_all
from edgekd.training.cut_start import check_cut, take_layers
from edgekd.training.fill_cache import answers_of
from edgekd.training.head import fit_head
from edgekd.training.lent_teacher import borrow_teacher
from edgekd.training.loop import Stage, fit
from edgekd.training.new_teacher import check_teacher, new_teacher, settled
from edgekd.training.norm_statistics import settle_norms
from edgekd.training.outcome import predict_test, record_test, warn_of_weaker_teacher
from edgekd.training.shared_layers import share_layers
from edgekd.training.student_batches import student_batches, student_validation, waveform_gain
from edgekd.training.student_step import StudentStep, compiled_step
from edgekd.training.student_weights import check_origin, check_student_weights, load_student_weights
from edgekd.training.thresholds import settle_scores
from edgekd.training.validation import validate
from edgekd.training.views import draw_views


@makes_run
def distill(
    config: DistillConfig,
    progress: Progress = silent,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher_run: Run | None = None,
    quantized: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """Train a student as `config` says, into the run folder `config.out`, and score it and its teacher on the test
    side.

    `teacher_run`, a run whose teacher was adapted by the same settings (see `adapt_teacher`), lends that teacher and,
    through the cache, its answers: the outcome is the same, and sooner. `quantized`: an int8 student is to follow, so
    one of the user's own that cannot be made int8 is refused now. Several processes that `torchrun` started share the
    work (see `edgekd.processes`). `trust`: code of your own that may be imported,
    `[FOLDER/]package.module:factory` (see `edgekd.own_code`).

    Raises `UsageError` (names, an existing folder, one that another process writes, a teacher of other settings),
    `InputError` (data, weights) or `GateError` (a split that leaks).
    """
    own_code.trust(trust)
    taught = needs_teacher(config.loss.terms)
    begun = _begin(config, progress, taught, resume, overwrite, quantized)
    run, data, device = begun.run, begun.data, begun.device
    teacher = _teacher(begun, teacher_run, progress) if taught else None

    seed_all(config.seed, "student")
    student = run.new_student()
    cut = cut_of(config.student) is not None
    fresh = processes.from_first(lambda: not (run.folder / "student" / "last.pt").is_file())
    if not cut:
        student.gain = waveform_gain(data.store, data.split)
    elif fresh:
        take_layers(student, config, data, teacher, device, progress)
    weights = config.student_weights
    if weights is not None and fresh:
        processes.from_first(lambda: load_student_weights(student, weights))
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4 times as fast on a CPU
    processes.spread(student)
    share_layers(student)
    training = config.training
    epochs = trained_epochs(config)
    batches = student_batches(run, data, "student", student, teacher, epochs, device, progress)
    loss = SSATKDLoss.between(config.loss, student, teacher, run.task)
    loss.to(device)
    student.to(device)
    started = time.perf_counter()
    if cut and fresh:
        fit_head(student, batches, loss, device, progress)
        processes.spread(student)  # each has found it, up to rounding
    validation = student_validation(data, student, epochs, device, progress)
    fit(
        Stage(
            name="student",
            run=run,
            model=student,
            batches=batches,
            step=StudentStep(student, loss, config, device, compiled=compiled_step(run, device)),
            optimizer=make_optimizer(student, loss, training.learning_rate, training.weight_decay, training.layer_rate),
            validation=validation,
            device=device,
            epochs=epochs,
            patience=training.patience,
            loss=loss,
            keeps_start=cut,
            averaged=averaged_weights(student, training.weight_average),
        ),
        progress,
    )
    settled_norms = settle_norms(run, "student", student, batches, progress)
    summary: dict[str, Any] = {"name": config.student, "seconds": round(time.perf_counter() - started, 1)}
    if settled_norms:
        summary["norm_statistics"] = validate(student, validation, device).figures()
    if batches.teacher is not None:
        summary["teacher_cache"] = batches.teacher.summary()
    if batches.beside is not None and batches.beside.teacher is not None:
        summary["unlabelled_cache"] = batches.beside.teacher.summary()
    if weights is not None:
        summary["weights"] = str(weights)
    processes.from_first(lambda: run.update_report("training", {"student": summary}))
    settle_scores(run, "student", student, data, device, progress)
    record_test(run, "student", data, predict_test(student, data, device, progress))
    processes.from_first(lambda: warn_of_weaker_teacher(run))
    return run


@makes_run
def adapt_teacher(
    config: DistillConfig, progress: Progress = silent, *, resume: bool = False, overwrite: bool = False
) -> Run:
    """The teacher's part of `distill` alone: adapt it, score it, and ask it about every view of every training clip.

    What the run folder `config.out` then holds can be lent to any number of students. Raises as `distill` does.
    """
    begun = _begin(config, progress, True, resume, overwrite)
    teacher = _teacher(begun, None, progress)
    run, data = begun.run, begun.data
    views = draw_views(data.split.train, data.store.samples, config.augment, config.seed)
    # Students that learn from embeddings find them there, too.
    gives: dict[Need, bool] = {"logits": teacher.classifies, "embedding": teacher.embedding_size > 0}
    needs = [need for need, given in gives.items() if given]
    answers_of(run.config, teacher, begun.device, data.store, views, needs=needs, repeated=False, progress=progress)
    return run


def make_optimizer(
    student: nn.Module, loss: SSATKDLoss, learning_rate: float, weight_decay: float, layer_rate: float = 1.0
) -> torch.optim.AdamW:
    """AdamW over the student and what the loss learns; the loss's log-variances are not decayed towards 0.

    `layer_rate`: of the layers that a student cut from a teacher has from it, times `learning_rate`. All of it is one
    call of PyTorch's fused implementation: a thirtieth of a step of `hltdnn_ds` on a CPU.
    """
    groups = [{"params": list(student.parameters()), "weight_decay": weight_decay}]
    if isinstance(student, Student) and isinstance(student.network, CutNetwork):
        head = list(student.network.classifier.parameters())
        layers = [each for each in student.parameters() if all(each is not own for own in head)]
        groups = [
            {"params": head, "weight_decay": weight_decay},
            {"params": layers, "weight_decay": 0.0, "lr": layer_rate * learning_rate},
        ]
    return torch.optim.AdamW(
        [*groups, {"params": list(loss.parameters()), "weight_decay": 0.0}],
        lr=learning_rate,
        fused=True,
    )


def trained_epochs(config: DistillConfig) -> int:
    """Epochs of gradient descent; none where only the head of a student that is cut from a teacher is trained."""
    return 0 if trains_head_alone(config) else config.training.epochs


@dataclass(frozen=True)
class _Begun:
    """A run folder that was begun, its data, and the device."""

    run: Run
    data: RunData
    device: torch.device


def _begin(
    config: DistillConfig, progress: Progress, taught: bool, resume: bool, overwrite: bool, quantized: bool = False
) -> _Begun:
    """Check device, names, folder and data, in this order, and begin the run folder only then."""
    asked = settled(config)
    config = _as_begun(asked) if resume else asked
    device = processes.join(config.device)
    index, split = processes.from_first(lambda: _data(config, progress, taught, resume, overwrite, quantized))
    config = recorded(asked, index.task)
    data = RunData(index, split, open_clips(index, config.data, progress))
    without = processes.from_first(lambda: load_unlabelled(config.data, progress)) if config.data.unlabelled else None
    store = None if without is None else open_clips(without, config.data, progress)

    def create() -> tuple[Run, tuple[int, ...]]:
        audited = audit(index, split, data.store, config.data, progress)
        let_pass = check_audit(audited, index, config.data)
        beside = None
        if without is not None and store is not None:
            beside = audit_unlabelled(without, store, index, split, data.store, config.data, progress)
        unknown = None if resume else check_origin(config, data, progress)
        missing = told([*audited.left_out, *(beside.left_out if beside is not None else ())])
        left_out = f"left out of the data: {missing}." if missing else None
        cancelled = (each.message for each in audited.warnings if each.kind == "cancelled")
        notes = (note.message for note in index.notes if note.message not in audited.notes)
        files = [config.student_weights, *(each.weights for each in config.teacher.members() if taught)]
        taken = [taken_of_several(file) for file in files if not resume and file is not None and file.is_file()]
        with Run.beginning(config, index.classes, _devices(device), resume=resume) as run:
            write_splits(run.folder / "splits.csv", index, split)
            run.update_report("audit", audited.to_dict())
            if not quantized and not resume:
                write_json(run.folder / "report.json", {**run.report(), "only_float": True})
            for warning in (*let_pass, left_out, unknown, *notes, *cancelled, *taken):
                if warning is not None:
                    run.warn(warning)
            for note in audited.notes:
                run.warn(note, "notes")
            if without is None or beside is None:
                return run.begun(), ()
            write_unlabelled(run.folder / UNLABELLED, without, beside.dropped)
            run.update_report("audit", {"unlabelled": beside.to_dict()})
            return run.begun(), beside.rows

    run, rows = processes.from_first(create)
    if without is not None and store is not None:
        data = replace(data, unlabelled=UnlabelledClips(without, rows, store))
    return _Begun(run, data, device)


def _data(
    config: DistillConfig, progress: Progress, taught: bool, resume: bool, overwrite: bool, quantized: bool
) -> tuple[ClipIndex, Split]:
    """The clips and their sides, when what the configuration names has been found good."""
    check_terms([*config.loss.terms, *config.loss.weights])
    check_models(config, taught)
    check_classes(config.loss.terms)
    check_unlabelled(config.loss.terms, config.data.unlabelled)
    if not resume:
        check_student_weights(config)
    if taught:
        check_teacher(config.teacher, needs_of(config.loss.terms))
    check_cut(config)
    check_folder(config, resume, overwrite)
    index = load_index(config.data, progress)
    check_task(config.loss, index.task)
    check_clip_length(index, config.data)
    if taught and not resume:
        new_teacher(
            recorded(config, index.task), index.classes
        )  # weights or a factory that do not fit are found out now, not in an hour
    if not resume:  # likewise, or a log-mel too small for the student
        student = new_student(config, len(index.classes))
        if "embedding" in needs_of(config.loss.terms) and student.embedding_layer is None:
            raise UsageError(
                f"Student '{config.student}' gives no embedding to distil: its logits must be what an nn.Linear, "
                "called once, makes of one (B, E). Change it, or leave 'embedding' out of --terms."
            )
        if quantized and is_own(config.student):
            check_layers(f"Student '{config.student}'", trace(student.name, student.network))
    splits_file = to_resume(config.out) / "splits.csv"
    split = read_splits(splits_file, index) if resume and splits_file.is_file() else make_split(index, config.data)
    check_no_leak(index, split)
    check_shares("student", len(split.train), config.training.batch_size)
    if taught and config.teacher.adaptation == "full":
        check_shares("teacher", len(split.train), config.teacher.batch_size)
    return index, split


def _as_begun(config: DistillConfig) -> DistillConfig:
    """`config` with the labels read as the run that it is to go on with reads them, where there is one."""
    folder = to_resume(config.out)
    if config.data.labels is not None or not is_begun(folder):
        return config
    labels = Run.open(folder).task.labels
    return config.model_copy(update={"data": config.data.model_copy(update={"labels": labels})})


def recorded(config: DistillConfig, task: Task) -> DistillConfig:
    """`config` with what was found of the labels written down, where it is more than one a clip."""
    if not task.several:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"labels": task.labels})})


def _devices(device: torch.device) -> str:
    """What the run is computed on, for a person to read."""
    return str(device) if processes.count() == 1 else f"{processes.count()} x {device.type}"


def _teacher(begun: _Begun, lender: Run | None, progress: Progress) -> Teacher:
    """The adapted teacher, scored where it knows the classes: the run's own where it has one, else the lender's, else
    one adapted now."""
    run, data = begun.run, begun.data
    probabilities = None
    if lender is not None and not run.finished("teacher"):  # a cell of a grid: one process
        probabilities = borrow_teacher(run, data, lender)
    teacher = adapted_teacher(run, data, begun.device, progress)
    if not teacher.classifies:
        return teacher
    if probabilities is None:
        probabilities = predict_test(teacher, data, begun.device, progress)
    record_test(run, "teacher", data, probabilities)
    return teacher

"""`pretrain`: a student learns what a teacher makes of audio without labels, before it has classes.

It learns the teacher's embedding (the term `embedding`) and, where asked, its textures, in the loop and by the step of
distillation. What comes out is `student.safetensors`: a student for `--student-weights`, whose classifier is new there.

Nothing says how well it classifies, so the best epoch is the one with the least embedding loss on audio held out: a
share of the groups, `data.split`'s of validation. With a data set named (`data.data_dir`, `data.dataset`), whatever
shares a group or audio with any of its clips is left out: which of them are scored is for the runs to say that follow.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgekd import own_code, processes
from edgekd.checks.unlabelled_audit import UnlabelledAudit, audit_unlabelled
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import ClipIndex, Split
from edgekd.data.load import load_index
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import InputError, UsageError
from edgekd.files.whole import write_bytes
from edgekd.losses.terms import check_pretraining, check_terms
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import check_models, new_student
from edgekd.models.students.names import cut_of
from edgekd.progress import Progress, silent
from edgekd.runs.at_work import makes_run
from edgekd.runs.data import RunData, open_clips
from edgekd.runs.run import Run, check_folder
from edgekd.runs.unlabelled import FILE, write_unlabelled
from edgekd.section import Section
from edgekd.training.averaging import averaged_weights
from edgekd.training.batches import TrainingBatches, check_shares, seed_all, seeded
from edgekd.training.cut_start import check_cut, take_layers
from edgekd.training.distill import make_optimizer
from edgekd.training.loop import Stage, fit
from edgekd.training.new_teacher import check_teacher, new_teacher, settled
from edgekd.training.norm_statistics import settle_norms
from edgekd.training.shared_layers import share_layers
from edgekd.training.student_batches import student_batches, waveform_gain
from edgekd.training.student_step import StudentStep, compiled_step
from edgekd.training.student_weights import WEIGHTS

CLASSES = ("unlabelled",)
"""Models come with a classifier; here it has one class and learns nothing."""
PLAIN = AugmentConfig(time_shift=False, mixes_per_clip=0, time_masks=0, frequency_masks=0)


@makes_run
def pretrain(
    config: DistillConfig,
    progress: Progress = silent,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """Train the student of `config` on `config.data.unlabelled` into the folder `config.out`.

    Processes that `torchrun` started share the work. `trust`: code of your own that may be imported,
    `[FOLDER/]package.module:factory` (see `edgekd.own_code`).

    Raises `UsageError` (names, terms, an existing folder) and `InputError` (audio, weights, a student or teacher
    without an embedding).
    """
    own_code.trust(trust)
    device = processes.join(config.device)
    config = settled(config)
    index = processes.from_first(lambda: _checked(config, progress, resume, overwrite))
    store = open_clips(index, config.data, progress)

    def create() -> tuple[Run, Split]:
        audited = _audit(index, store, config, progress)
        split = held_out(index, audited.rows, config.data.split[1], config.seed)
        with Run.beginning(config, CLASSES, str(device), resume=resume) as run:
            write_unlabelled(run.folder / FILE, index, audited.dropped)
            told = {"train": len(split.train), "validation": len(split.validation)}
            run.update_report("audit", {"unlabelled": audited.to_dict(), "clips": told})
            return run.begun(), split

    run, split = processes.from_first(create)
    data = RunData(index, split, store)
    training = config.training
    shifts = min(config.augment.shifts_per_clip, training.epochs)  # a teacher need not hear what its student never does
    for rows in (split.train, split.validation):
        check_shares("pretrain", len(rows), training.batch_size)
    teacher = new_teacher(config, CLASSES)
    processes.spread(teacher)

    seed_all(config.seed, "student")
    student = run.new_student()
    cut = cut_of(config.student) is not None
    if not cut:
        student.gain = waveform_gain(store, split)
    elif processes.from_first(lambda: not (run.folder / "pretrain" / "last.pt").is_file()):
        take_layers(student, config, data, teacher, device, progress)
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    processes.spread(student)
    share_layers(student)
    batches = student_batches(
        _with(run, augment=config.augment.model_copy(update={"shifts_per_clip": shifts})),
        data,
        "pretrain",
        student,
        teacher,
        training.epochs,
        device,
        progress,
    )
    quiet = _with(run, augment=PLAIN, loss=config.loss.model_copy(update={"terms": ("embedding",)}))
    aside = RunData(index, Split(split.validation, (), ()), store)
    heard = student_batches(quiet, aside, "pretrain", student, teacher, training.epochs, device, progress)
    loss = SSATKDLoss.between(config.loss, student, teacher).to(device)
    step = StudentStep(student.to(device), loss, config, device, compiled=compiled_step(run, device))
    started = time.perf_counter()
    fit(
        Stage(
            name="pretrain",
            run=run,
            model=student,
            batches=batches,
            step=step,
            optimizer=make_optimizer(student, loss, training.learning_rate, training.weight_decay, training.layer_rate),
            validation=HeldOut(heard, step),
            device=device,
            epochs=training.epochs,
            patience=training.patience,
            loss=loss,
            keeps_start=cut,
            averaged=averaged_weights(student, training.weight_average),
        ),
        progress,
    )
    settle_norms(run, "pretrain", student, batches, progress)
    summary = {"name": config.student, "seconds": round(time.perf_counter() - started, 1)}
    if batches.teacher is not None:
        summary["teacher_cache"] = batches.teacher.summary()

    def finish() -> None:
        write_bytes(run.folder / WEIGHTS, run.weights("pretrain").read_bytes())
        run.update_report("training", {"pretrain": summary})

    processes.from_first(finish)
    return run


def _with(run: Run, **sections: Section) -> Run:
    return replace(run, config=run.config.model_copy(update=sections))


@dataclass(frozen=True)
class HeldOut:
    """The embedding loss on clips that are not learned from, by the step of training, unmasked and unshifted."""

    batches: TrainingBatches
    step: StudentStep

    @torch.no_grad()
    def __call__(self) -> float:
        """The mean over all clips of all processes, the model in eval mode."""
        step, loss = copy.copy(self.step), self.step.loss
        step.compiled = None  # what is compiled trains
        total = torch.zeros((), device=step.device)
        counted, loss.active = loss.active, ("embedding",)
        for batch in self.batches.epoch(1, loss.needs):
            with processes.batch(batch.size):
                total += step(batch).terms["embedding"] * len(batch)
        loss.active = counted
        return float(processes.summed(total)) / len(self.batches.rows)


def held_out(index: ClipIndex, rows: Sequence[int], share: float, seed: int) -> Split:
    """Of the clips `rows` the training side, and on the validation side at least `share` of them in whole groups drawn
    from `seed`; of a single group, its last clips. Raises `InputError` for fewer than two clips."""
    if len(rows) < 2:
        raise InputError(f"{index.root}: one clip to learn from, where some are to be held out. Give more audio.")
    wanted = max(1, round(share * len(rows)))
    sizes = Counter(index.clips[row].group for row in rows)
    groups = list(sizes)
    taken: set[str] = set()
    for place in torch.randperm(len(groups), generator=seeded(seed, "pretrain", "held out")).tolist():
        if sum(sizes[group] for group in taken) >= wanted or len(taken) == len(groups) - 1:
            break
        taken.add(groups[place])
    aside = [row for row in rows if index.clips[row].group in taken] or list(rows[-wanted:])
    kept = set(rows).difference(aside)
    return Split(tuple(row for row in rows if row in kept), tuple(aside), ())


def _checked(config: DistillConfig, progress: Progress, resume: bool, overwrite: bool) -> ClipIndex:
    """The clips, when what the configuration names has been found good."""
    check_terms([*config.loss.terms, *config.loss.weights])
    check_pretraining(config.loss.terms, config.data.unlabelled)
    if config.teacher.adaptation != "head":
        raise UsageError(
            f"teacher.adaptation = '{config.teacher.adaptation}': without labels no teacher is adapted. Leave it out; "
            "one that was adapted elsewhere is given with --teacher-weights."
        )
    if config.training.class_weights != "none" or config.training.sampling != "natural":
        raise UsageError("training.class_weights, training.sampling: there are no labels to balance. Leave them out.")
    check_models(config, taught=True)
    check_teacher(config.teacher)
    check_cut(config)
    check_folder(config, resume, overwrite)
    if new_student(config, len(CLASSES)).embedding_layer is None:
        raise UsageError(
            f"Student '{config.student}' gives no embedding to learn: its logits must be what an nn.Linear, called "
            "once, makes of one (B, E)."
        )
    return replace(load_unlabelled(config.data, progress), classes=CLASSES)


def _audit(index: ClipIndex, store: ClipStore, config: DistillConfig, progress: Progress) -> UnlabelledAudit:
    """What may teach; for the first process alone."""
    if config.data.dataset is None and config.data.data_dir is None:
        nothing = ClipIndex("nothing", Path(), (), ())
        quiet = config.data.model_copy(update={"near_duplicates": "off"})
        return audit_unlabelled(index, store, nothing, Split((), (), ()), store, quiet, progress)
    labelled = load_index(config.data, progress)
    everything = Split((), (), tuple(range(len(labelled))))
    opened = open_store(labelled, config.data, progress)
    return audit_unlabelled(index, store, labelled, everything, opened, config.data, progress)

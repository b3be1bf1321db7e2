"""The int8 student of a run: calibrated, and, unless that is all that is asked for, trained.

The network of the float student is folded and prepared (`prepare`), and its scales are set on training clips chosen by
a calibration recipe (`calibration`). Post-training quantisation (PTQ) ends there. Quantisation-aware training (QAT)
goes on at a low rate, taught by the same teacher with the same loss; in its last epochs the scales stand still, so that
the weights settle on the grid that ships.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgekd import own_code, processes
from edgekd.config import QuantizeConfig, differences
from edgekd.data.clip_store import ClipStore
from edgekd.errors import UsageError
from edgekd.files.folders import remove
from edgekd.files.whole import write_text
from edgekd.losses.terms import Need, needs_teacher
from edgekd.losses.total import SSATKDLoss
from edgekd.models.students.student import Student
from edgekd.models.weights import save_weights
from edgekd.progress import Progress, silent
from edgekd.quantization.calibration import CalibrationRecipe, calibrate, load_recipe, select_clips
from edgekd.quantization.fake_quant import set_frozen
from edgekd.quantization.int8_student import example_log_mel, settings_file, stored_settings
from edgekd.quantization.prepare import QuantizedNetwork, check_finite, prepare
from edgekd.runs.at_work import changes_run
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.toml_files import to_toml
from edgekd.training.adapt import finished_teacher
from edgekd.training.batches import Batch, seed_all
from edgekd.training.distill import make_optimizer
from edgekd.training.loop import Stage, StepOutput, fit
from edgekd.training.outcome import predict_test, record_test
from edgekd.training.saved_state import load_part, read_state
from edgekd.training.shared_layers import share_layers
from edgekd.training.student_batches import student_batches, student_validation
from edgekd.training.student_step import StudentStep, computes_in_kernels
from edgekd.training.thresholds import settle_scores


@changes_run
def quantize(
    run: Run,
    config: QuantizeConfig | None = None,
    progress: Progress = silent,
    *,
    resume: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """Make and score the int8 student of a finished `run`, with the run's own settings or other ones.

    An int8 student that is there already is replaced once its successor is calibrated, unless `resume` goes on with one
    that was interrupted, and with the settings it was begun with. `trust`: code of your own that may be imported,
    `[FOLDER/]package.module:factory` (see `edgekd.own_code`).
    Raises `InputError` when the run has no finished float student or calibration fails, `UsageError` for an unknown
    recipe or layer, and for a `config` other than that of the student to be resumed.
    """
    own_code.trust(trust)
    device = processes.join(run.config.device)

    def find() -> tuple[QuantizeConfig, CalibrationRecipe, Student]:
        settled = _settled(run, config, resume)
        return settled, load_recipe(settled.recipe), run.student()

    settled, recipe, student = processes.from_first(find)
    data = run.open_data(progress, unlabelled=True)
    seed_all(run.config.seed, "int8")
    started = time.perf_counter()
    student.to(device)
    network = calibrated_network(student, data, recipe, run.config.seed, settled.keep_float)
    processes.spread(network)
    student.network = network

    def begin() -> None:
        run.forget("only_float")
        if not resume:
            _give_up_old_student(run)
        write_text(run.stage_folder("int8") / "quantize.toml", to_toml(settled.model_dump(mode="json")))

    processes.from_first(begin)
    if settled.method == "qat":
        _train(run, settled, student, data, device, progress)
    else:
        processes.from_first(lambda: save_weights(run.weights("int8"), student.state_dict()))
    told = {"method": settled.method, "seconds": round(time.perf_counter() - started, 1)}
    processes.from_first(lambda: run.update_report("training", {"int8": told}))
    settle_scores(run, "int8", student, data, device, progress)
    record_test(run, "int8", data, predict_test(student, data, device, progress))
    return run


def calibrated_network(
    student: Student, data: RunData, recipe: CalibrationRecipe, seed: int, keep_float: Sequence[str] = ()
) -> QuantizedNetwork:
    """The network of a float `student`, prepared, its scales set on training clips; `student` is left as it is."""
    check_finite(student)
    network = prepare(student.network, example_log_mel(student, data.store.samples), keep_float)
    rows = select_clips(data.index.labels, data.split.train, recipe, seed)
    calibrate(network, log_mels(student, data.store, rows), recipe)
    return network


@torch.no_grad()
def log_mels(student: Student, store: ClipStore, rows: Sequence[int], batch_size: int = 16) -> Iterator[Tensor]:
    """The normalised log-mels of `rows`, `(B, 1, T, F)` a batch, on the device of `student`."""
    for start in range(0, len(rows), batch_size):
        yield student.log_mel(store.waveforms(rows[start : start + batch_size]).to(student.gain.device))


def _settled(run: Run, config: QuantizeConfig | None, resume: bool) -> QuantizeConfig:
    if not resume:
        return config or run.config.quantize
    begun = stored_settings(run)
    if config is not None and settings_file(run).is_file():
        changed = differences(begun.model_dump(mode="json"), config.model_dump(mode="json"))
        if changed:
            raise UsageError(
                f"{run.folder}: an int8 training goes on with the settings that it was begun with, but these differ: "
                f"{', '.join(changed)}. Leave them out, or begin anew (without resuming)."
            )
    return begun if config is None else config


def _give_up_old_student(run: Run) -> None:
    run.forget("test", "int8")  # first, so that a half-trained student is never taken for a finished one
    run.metrics().truncate("int8", 0)
    remove(run.folder / "int8")


class Int8Step:
    """The step of distillation, rounded: with the terms of its last epoch, the scales still in the last epochs."""

    def __init__(self, step: StudentStep, config: QuantizeConfig) -> None:
        self.step, self.config = step, config

    def begin(self, epoch: int) -> frozenset[Need]:
        """Get ready for an epoch of int8 training, from 1."""
        student = self.step.student
        set_frozen(student.network, epoch > self.config.epochs - self.config.frozen_epochs)
        student.norm.eval()  # folded into the front end at export, so its statistics stand still
        return self.step.begin(self.step.config.training.epochs)

    def __call__(self, batch: Batch) -> StepOutput:
        """The loss of the clips of `batch`, as a mean over them."""
        return self.step(batch)

    def gives_up(self, failure: Exception) -> bool:
        """See `Step`."""
        return self.step.gives_up(failure)


def _train(
    run: Run, config: QuantizeConfig, student: Student, data: RunData, device: torch.device, progress: Progress
) -> None:
    """Train a calibrated `student` into the run folder, and leave it with its best weights."""
    share_layers(student)
    computes_in_kernels(run, device)
    terms, epochs = run.config.loss.terms, run.config.training.epochs
    teacher = finished_teacher(run) if needs_teacher(terms) else None
    batches = student_batches(run, data, "int8", student, teacher, config.epochs, device, progress, begin=epochs)
    loss = SSATKDLoss.between(run.config.loss, student, teacher, run.task)
    loss.to(device)
    # What brings taps and embeddings together and the weights of the terms go on from where distillation left them.
    ended = run.folder / "student" / "last.pt"
    load_part(loss, processes.from_first(lambda: read_state(ended)), "loss", ended)
    student.to(device)
    fit(
        Stage(
            name="int8",
            run=run,
            model=student,
            batches=batches,
            # Multiples of a scale do not fit bfloat16.
            step=Int8Step(StudentStep(student, loss, run.config, device, mixed=False), config),
            optimizer=make_optimizer(student, loss, config.learning_rate, weight_decay=0.0),
            validation=student_validation(data, student, config.epochs, device, progress),
            device=device,
            epochs=config.epochs,
            patience=config.epochs,
            loss=loss,
        ),
        progress,
    )

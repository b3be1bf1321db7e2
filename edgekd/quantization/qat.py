"""The int8 student of a run: calibrated, and, unless that is all that is asked for, trained.

The network of the float student is folded and prepared (`prepare`), and its scales are set on training clips chosen by
a calibration recipe (`calibration`). Post-training quantisation (PTQ) ends there. Quantisation-aware training (QAT)
goes on at a low rate, taught by the same teacher with the same loss; in its last epochs the scales stand still, so that
the weights settle on the grid that ships.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd import processes
from edgekd.config import QuantizeConfig, differences, parse, read_toml, to_toml
from edgekd.data.clip_store import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import InputError, UsageError
from edgekd.files.whole import write_text
from edgekd.models.students.student import Student
from edgekd.models.weights import load_matching, read_weights, save_weights
from edgekd.processes import make_fabric
from edgekd.progress import Progress, silent
from edgekd.quantization.calibration import CalibrationRecipe, calibrate, load_recipe, select_clips
from edgekd.quantization.fake_quant import set_frozen
from edgekd.quantization.prepare import QuantizedNetwork, check_finite, prepare
from edgekd.runs.run import Run
from edgekd.training.adapt import finished_teacher
from edgekd.training.distill import make_optimizer, predict_test, record_test
from edgekd.training.lesson import needs_teacher, prepare_lesson
from edgekd.training.loop import Stage, fit, seed_all
from edgekd.training.shared_layers import share_layers


def quantize(
    run: Run, config: QuantizeConfig | None = None, progress: Progress = silent, *, resume: bool = False
) -> Run:
    """Make and score the int8 student of a finished `run`, with the run's own settings or other ones.

    An int8 student that is there already is replaced once its successor is calibrated, unless `resume` goes on with one
    that was interrupted, and with the settings it was begun with.
    Raises `InputError` when the run has no finished float student or calibration fails, `UsageError` for an unknown
    recipe or layer, and for a `config` other than that of the student to be resumed.
    """
    fabric = make_fabric(run.config.device, autocast=False)  # multiples of a scale do not fit bfloat16

    def find() -> tuple[QuantizeConfig, CalibrationRecipe, Student]:
        settled = _settled(run, config, resume)
        return settled, load_recipe(settled.recipe), run.student()

    settled, recipe, student = processes.from_first(find)
    data = run.open_data(progress)
    index, split, store = data.index, data.split, data.store
    seed_all(run.config.seed, "int8")
    started = time.perf_counter()
    student.to(fabric.device)
    network = calibrated_network(student, index, split, store, recipe, run.config.seed, settled.keep_float)
    processes.spread(network)
    student.network = network

    def begin() -> None:
        if not resume:
            _give_up_old_student(run)
        write_text(run.stage_folder("int8") / "quantize.toml", to_toml(settled.model_dump(mode="json")))

    processes.from_first(begin)
    if settled.method == "qat":
        _train(run, settled, student, index, split, store, fabric, progress)
    else:
        processes.from_first(lambda: save_weights(run.folder / "int8" / "best.safetensors", student.state_dict()))
    told = {"method": settled.method, "seconds": round(time.perf_counter() - started, 1)}
    processes.from_first(lambda: run.update_report("training", {"int8": told}))
    record_test(run, "int8", index, split, predict_test(student, split, store, fabric, progress))
    return run


def calibrated_network(
    student: Student,
    index: ClipIndex,
    split: Split,
    store: ClipStore,
    recipe: CalibrationRecipe,
    seed: int,
    keep_float: Sequence[str] = (),
) -> QuantizedNetwork:
    """The network of a float `student`, prepared, its scales set on training clips; `student` is left as it is."""
    check_finite(student)
    network = prepare(student.network, _example_log_mel(student, store.samples), keep_float)
    calibrate(network, log_mels(student, store, select_clips(index.labels, split.train, recipe, seed)), recipe)
    return network


def load_int8(run: Run) -> Student:
    """The int8 student of `run`, fake-quantised, in eval mode, on the CPU.

    Raises `InputError` where the run has none, or was interrupted while it was trained.
    """
    run.require_student()
    settings = stored_settings(run)
    if "int8" not in run.report()["test"]:
        done = run.metrics().last_epoch("int8")
        state = f"was interrupted after epoch {done} of its int8 training" if done else "has no int8 student"
        method = " --ptq" if settings.method == "ptq" else ""
        command = f"distill --out {run.folder} --resume" if done else f"quantize {run.folder}{method}"
        raise InputError(f"{run.folder}: this run {state}. First: edgekd {command}")
    student = run.new_student().eval()
    samples = round(run.config.data.clip_seconds * run.config.data.sample_rate)
    try:
        student.network = prepare(student.network, _example_log_mel(student, samples), settings.keep_float)
    except UsageError as failure:  # nobody's wrong setting now: the run is damaged
        raise InputError(f"{settings_file(run)}: keep_float: {failure}") from None
    path = run.folder / "int8" / "best.safetensors"
    load_matching(student, read_weights(path), path)
    set_frozen(student.network, True)
    return student.eval()


def quantized_network(student: Student) -> QuantizedNetwork:
    """The fake-quantised network of a student from `load_int8`."""
    assert isinstance(student.network, QuantizedNetwork)
    return student.network


def settings_file(run: Run) -> Path:
    """Where a run keeps the settings that its int8 student was made with."""
    return run.folder / "int8" / "quantize.toml"


def stored_settings(run: Run) -> QuantizeConfig:
    """The settings that the int8 student of `run` was made with; the run's own where it has none yet."""
    path = settings_file(run)
    if not path.is_file():
        return run.config.quantize
    try:
        return parse(QuantizeConfig, read_toml(path), str(path))
    except UsageError as failure:  # edgekd wrote it: the run is damaged
        raise InputError(str(failure)) from None


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
    if (run.folder / "int8").is_dir():
        shutil.rmtree(run.folder / "int8")


def _train(
    run: Run,
    config: QuantizeConfig,
    student: Student,
    index: ClipIndex,
    split: Split,
    store: ClipStore,
    fabric: Fabric,
    progress: Progress,
) -> None:
    """Train a calibrated `student` into the run folder, and leave it with its best weights."""
    network = quantized_network(student)
    share_layers(student)
    teacher = finished_teacher(run) if needs_teacher(run.config.loss.terms) else None
    # int8 training goes on as distillation ended: with the terms of its last epoch.
    begin = run.config.training.epochs
    lesson = prepare_lesson(
        run, index, split, store, teacher, student, config.epochs, fabric, progress, begin=begin, compiled=False
    )
    # The adapter between the taps and the weights of the terms go on from where distillation left them.
    ended = run.folder / "student" / "last.pt"
    last = processes.from_first(lambda: torch.load(ended, map_location="cpu", weights_only=True)["loss"])
    lesson.loss.load_state_dict(last)
    student.to(fabric.device)

    def on_epoch(epoch: int) -> None:
        set_frozen(network, epoch > config.epochs - config.frozen_epochs)
        student.norm.eval()  # folded into the front end at export, so its statistics stand still

    fit(
        Stage(
            name="int8",
            run=run,
            model=student,
            loss=lesson.loss,
            optimizer=make_optimizer(student, lesson.loss, config.learning_rate, weight_decay=0.0),
            draw=lesson.draw,
            step=lambda drawn, part: lesson.step(student, drawn, part),
            validate=lambda: lesson.validate(student),
            rows=split.train,
            epochs=config.epochs,
            batch_size=run.config.training.batch_size,
            patience=config.epochs,
            decay_power=run.config.training.decay_power,
            on_epoch=on_epoch,
        ),
        fabric,
        progress,
    )


def _example_log_mel(student: Student, samples: int) -> Tensor:
    with torch.no_grad():
        return student.log_mel(torch.zeros(1, samples, device=student.gain.device))

"""int8 quantisation-aware training: the float student, rounded, taught by the same teacher with the same loss.

The network is folded and prepared (`prepare`), its scales are set on training clips chosen by a calibration recipe
(`calibration`), and it is trained at a low rate; in the last epochs the scales stand still, so that the weights
settle on the grid that ships.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgekd.config import QuantizeConfig, parse, read_toml
from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore
from edgekd.errors import InputError
from edgekd.files import write_text
from edgekd.models import build_student
from edgekd.models.students import Student
from edgekd.models.weights import load_matching, read_weights
from edgekd.quantization.calibration import calibrate, load_recipe, select_clips
from edgekd.quantization.fake_quant import set_frozen
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from edgekd.training.distill import make_fabric, make_optimizer, predict_test, record_test
from edgekd.training.lesson import needs_teacher, prepare_lesson
from edgekd.training.loop import Stage, fit, seed_all
from edgekd.training.run import Run, to_toml


def quantize(
    run: Run, config: QuantizeConfig | None = None, progress: Progress = silent, *, resume: bool = False
) -> Run:
    """Train and score the int8 student of a finished `run`, with the run's own settings or other ones.

    An int8 student that is there already is replaced, unless `resume` goes on with one that was interrupted, and with
    the settings it was begun with.
    Raises `InputError` when the run has no finished float student, `UsageError` for an unknown recipe.
    """
    settings = run.folder / "int8" / "quantize.toml"
    if config is None and resume and settings.is_file():
        config = parse(QuantizeConfig, read_toml(settings), str(settings))
    config = config or run.config.quantize
    recipe = load_recipe(config.recipe)
    student = run.student()
    if not resume and (run.folder / "int8").is_dir():
        run.forget("profile")
        run.forget("test", "int8")  # first, so that a half-trained student is never taken for a finished one
        shutil.rmtree(run.folder / "int8")
    folder = run.stage_folder("int8")
    write_text(folder / "quantize.toml", to_toml(config.model_dump(mode="json")))

    fabric = make_fabric(run.config.device, autocast=False)  # multiples of a scale do not fit bfloat16
    index = run.index()
    split = run.split(index)
    store = run.store(index)
    seed_all(run.config.seed, "int8")
    student.to(fabric.device)
    network = prepare(student.network, _example_log_mel(student, store.samples).to(fabric.device))
    rows = select_clips(index.labels, split.train, recipe, run.config.seed)
    calibrate(network, _log_mels(student, store, rows), recipe)
    student.network = network

    teacher = run.teacher() if needs_teacher(run.config.loss.terms) else None
    # int8 training goes on as distillation ended: with the terms of its last epoch.
    begin = run.config.training.epochs
    lesson = prepare_lesson(run, index, split, store, teacher, student, config.epochs, fabric, progress, begin=begin)
    # The adapter between the taps and the weights of the terms go on from where distillation left them.
    last = torch.load(run.folder / "student" / "last.pt", map_location=fabric.device, weights_only=True)
    lesson.loss.load_state_dict(last["loss"])
    wrapped = fabric.setup_module(student)

    def on_epoch(epoch: int) -> None:
        set_frozen(network, epoch > config.epochs - config.frozen_epochs)
        student.norm.eval()  # folded into the front end at export, so its statistics stand still

    started = time.perf_counter()
    fit(
        Stage(
            name="int8",
            run=run,
            model=student,
            loss=lesson.loss,
            optimizer=make_optimizer(student, lesson.loss, config.learning_rate, weight_decay=0.0),
            step=lambda batch: lesson.step(wrapped, batch),
            validate=lambda: lesson.validate(wrapped),
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
    run.update_report("training", {"int8": {"seconds": round(time.perf_counter() - started, 1)}})
    record_test(run, "int8", index, split, predict_test(student, split, store, fabric, progress))
    return run


def load_int8(run: Run) -> Student:
    """The int8 student of `run`, fake-quantised, in eval mode, on the CPU.

    Raises `InputError` where the run has none, or was interrupted while it was trained.
    """
    run.require_student()
    if "int8" not in run.report()["test"]:
        done = run.metrics().last_epoch("int8")
        state = f"was interrupted after epoch {done} of its int8 training" if done else "has no int8 student"
        command = f"edgekd distill --out {run.folder} --resume" if done else f"edgekd quantize {run.folder}"
        raise InputError(f"{run.folder}: this run {state}. First: {command}")
    config = run.config
    student = build_student(config.student, len(run.classes), config.data.sample_rate, config.frontend).eval()
    samples = round(config.data.clip_seconds * config.data.sample_rate)
    student.network = prepare(student.network, _example_log_mel(student, samples))
    path = run.folder / "int8" / "best.safetensors"
    load_matching(student, read_weights(path), path)
    set_frozen(student.network, True)
    return student.eval()


def quantized_network(student: Student) -> QuantizedNetwork:
    """The fake-quantised network of a student from `load_int8`."""
    assert isinstance(student.network, QuantizedNetwork)
    return student.network


def _example_log_mel(student: Student, samples: int) -> Tensor:
    with torch.no_grad():
        return student.log_mel(torch.zeros(1, samples, device=student.gain.device))


@torch.no_grad()
def _log_mels(student: Student, store: ClipStore, rows: Sequence[int], batch_size: int = 16) -> Iterator[Tensor]:
    for start in range(0, len(rows), batch_size):
        yield student.log_mel(store.waveforms(rows[start : start + batch_size]).to(student.gain.device))

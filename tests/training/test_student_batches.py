from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgekd import processes
from edgekd.config import DistillConfig, LossConfig
from edgekd.data.clip_store import ClipStore
from edgekd.errors import UsageError
from edgekd.losses.ssatkd import kernels
from edgekd.losses.terms import needs_teacher
from edgekd.losses.total import SSATKDLoss
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.training import compiled, frozen_teacher, student_step
from edgekd.training.averaging import AveragedWeights
from edgekd.training.batches import Batch, TrainingBatches
from edgekd.training.compiled import Compiled
from edgekd.training.device_rows import DeviceClips, ResidentRows
from edgekd.training.loop import StepOutput, _State, accumulate
from edgekd.training.student_batches import (
    LogMelClips,
    student_batches,
    student_validation,
    textures_count,
    waveform_gain,
)
from edgekd.training.student_step import StudentStep, compiled_step
from edgekd.training.validation import ValidationClips, validate
from edgekd.training.views import Views

CPU = torch.device("cpu")


@dataclass
class Material:
    """All that a student of the tiny run is taught with."""

    run: Run
    data: RunData
    loss: SSATKDLoss
    batches: TrainingBatches
    validation: ValidationClips
    compiled: Compiled[StepOutput] | None

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher that is asked."""
        assert self.batches.teacher is not None
        return self.batches.teacher.teacher.module

    def step(self, student: nn.Module) -> StudentStep:
        return StudentStep(student, self.loss, self.run.config, CPU, compiled=self.compiled)  # type: ignore[arg-type]


Prepare = Callable[..., Material]


@pytest.fixture
def prepare(tiny_copy: Run, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`prepare(loss={...})`: what teaches, on the tiny run's data and teacher, with changed settings."""
    monkeypatch.setattr(frozen_teacher, "fast_precision", lambda _: "float32")  # whatever this processor can do

    def build(epochs: int = 1, **changes: Any) -> Material:
        values = tiny_copy.config.model_dump()
        for section, change in changes.items():
            values[section] |= change
        config = DistillConfig.model_validate(values)
        run = replace(tiny_copy, config=config)
        data, student = run.open_data(), run.student()
        teacher = run.teacher() if needs_teacher(config.loss.terms) else None
        loss = SSATKDLoss(config.loss, student.tap_channels, teacher.tap_channels if teacher is not None else 0)
        loss.count_textures(textures_count(config, 1))
        return Material(
            run,
            data,
            loss,
            student_batches(run, data, "student", student, teacher, epochs, CPU),
            student_validation(data, student, epochs, CPU),
            compiled_step(run, CPU),
        )

    return build


class Spy(nn.Module):
    """A student that remembers the waveforms it heard and what augmentation did to a log-mel of ones."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student, self.frontend = student, student.frontend
        self.heard: list[Tensor] = []
        self.hidden: list[Tensor] = []

    def front_end(self, waveform: Tensor) -> Tensor:
        self.heard.append(waveform)
        return self.student.front_end(waveform)

    def forward(self, log_mel: Tensor, augment: Callable[[Tensor], Tensor]) -> StudentOutput:
        self.hidden.append(augment(torch.ones(len(log_mel), 1, 32, 32)) == 0)
        return self.student(log_mel, augment)


def batch_of(material: Material, count: int = 6, epoch: int = 1) -> Batch:
    """The first clips of an epoch, about `count` of them, with what the terms that count need."""
    batches = replace(material.batches, batch_size=count)
    return next(iter(batches.epoch(epoch, material.loss.needs)))


def step(material: Material, student: nn.Module, epoch: int = 1) -> StepOutput:
    """One step with the whole of a batch."""
    return material.step(student)(batch_of(material, epoch=epoch))


def test_the_teachers_answers_are_about_what_the_student_hears_and_only_the_student_is_masked(
    prepare: Prepare, tiny_run: Run
) -> None:
    material, student = prepare(), Spy(tiny_run.student())
    batch = batch_of(material)
    material.step(student)(batch)
    (heard,) = student.heard
    assert torch.equal(heard, batch.waveforms)  # type: ignore[arg-type]
    plain = material.data.waveforms(batch.rows.tolist())
    moved = [not torch.equal(a, b) for a, b in zip(heard, plain, strict=True)]
    assert sum(moved) > 0, "some clip was shifted or mixed"
    assert batch.teacher is not None
    with torch.no_grad():
        torch.testing.assert_close(batch.teacher.logits, material.teacher(heard).logits)
        torch.testing.assert_close(batch.teacher.tap, material.teacher(heard).tap)
    assert student.hidden[0].any()


def test_what_is_kept_in_tables_teaches_what_hearing_it_anew_does(prepare: Prepare, tiny_run: Run) -> None:
    outputs = []
    for epochs in (1, 9):  # once, or more often than there are views
        material, student = prepare(epochs=epochs), Spy(tiny_run.student().eval())
        stored = material.batches
        assert stored.teacher is not None
        assert (stored.log_mels is not None, stored.teacher.mode) == (
            (True, "full") if epochs > 1 else (False, "logits")
        )
        torch.nn.init.ones_(material.loss.adapter[0].weight)  # type: ignore[index, arg-type]
        outputs.append(step(material, student))
        assert len(student.heard) == (epochs == 1)
    for term, value in outputs[0].terms.items():
        torch.testing.assert_close(outputs[1].terms[term], value, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(("mode", "tolerance"), [("logits", 1e-5), ("full", 1e-3)])
def test_what_is_kept_of_the_teacher_moves_no_loss_by_more_than_its_rounding(
    mode: str, tolerance: float, prepare: Prepare, tiny_run: Run
) -> None:
    losses = []
    for cache in ("off", mode):
        torch.manual_seed(0)  # of what the loss learns
        material, student = prepare(teacher={"cache": cache}), tiny_run.student().train()
        assert material.batches.teacher is not None
        assert material.batches.teacher.mode == cache
        torch.manual_seed(1)
        outputs = [step(material, student, epoch) for epoch in (1, 2, 3)]
        losses.append(torch.stack([output.terms[term] for output in outputs for term in output.terms]))
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=0)


def test_textures_count_in_the_share_of_the_epochs_that_was_asked_for(prepare: Prepare, tiny_run: Run) -> None:
    material = prepare(epochs=9, loss={"texture_share": 0.25}, training={"epochs": 8})
    taken = material.step(tiny_run.student())
    for epoch in range(1, 9):
        needs = taken.begin(epoch)
        assert needs == ({"logits", "tap"} if epoch <= 2 else {"logits"})
        batch = next(iter(material.batches.epoch(epoch, needs)))
        assert set(taken(batch).terms) == (
            set(LossConfig().terms) if epoch <= 2 else {"classification", "distillation"}
        )


def test_steps_leave_the_teacher_as_it_was(prepare: Prepare, tiny_run: Run) -> None:
    material, student = prepare(), tiny_run.student().train()
    teacher = material.teacher
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    step(material, student).total.backward()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in material.loss.parameters())


ABLATIONS = [
    ("classification",),
    ("classification", "statistical"),
    ("classification", "structural"),
    ("classification", "distillation"),
    ("classification", "statistical", "distillation"),
    LossConfig().terms,
]


@pytest.mark.parametrize("terms", ABLATIONS, ids="+".join)
def test_a_step_computes_the_terms_asked_for_and_no_others(
    terms: tuple[str, ...], prepare: Prepare, tiny_run: Run
) -> None:
    material = prepare(loss={"terms": terms})
    output = step(material, tiny_run.student())
    assert set(output.terms) == set(output.weights) == set(terms)
    assert (material.batches.teacher is None) == (terms == ("classification",))
    assert (material.loss.adapter is None) == (not {"statistical", "structural"} & set(terms))
    assert output.total.isfinite()
    output.total.backward()


def test_labels_alone_are_plain_cross_entropy_without_a_teacher(prepare: Prepare, tiny_run: Run) -> None:
    plain = {"time_shift": False, "mixes_per_clip": 0, "time_masks": 0, "frequency_masks": 0}
    material = prepare(loss={"terms": ("classification",)}, augment=plain)
    student, batch = tiny_run.student(), batch_of(material)
    rows = batch.rows.tolist()
    expected = cross_entropy(student(material.data.waveforms(rows)).logits, material.batches.labels[rows])
    torch.testing.assert_close(material.step(student)(batch).total, expected)
    assert material.batches.teacher is None


def grown(material: Material, student: Student) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a step, and everything that it left in the student and the loss."""
    torch.manual_seed(5)
    output = step(material, student.train())
    output.total.backward()
    gradients = {f"{n} gradient": p.grad for n, p in (*student.named_parameters(), *material.loss.named_parameters())}
    assert all(gradient is not None for gradient in gradients.values())
    values = torch.stack([output.total, *output.terms.values(), *output.weights.values()]).detach()
    return values, {**dict(student.named_buffers()), **gradients}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],  # traced; compiled, which takes minutes
)
def test_a_compiled_step_is_the_step(
    backend: str, prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setattr(compiled, "BACKEND", backend)
    found = []
    for how in ("off", "on"):
        torch.manual_seed(0)  # of what the loss learns
        material = prepare(training={"compile": how})
        found.append(grown(material, tiny_run.student()))
        assert (material.compiled is None) == (how == "off")
        assert not any("compiled" in warning for warning in material.run.report().get("warnings", []))
    (expected, left), (values, left_compiled) = found
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(left_compiled, left, rtol=1e-3, atol=1e-5)


def test_a_step_that_cannot_be_compiled_runs_as_it_is_and_the_report_says_so(
    prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here\nand a long explanation")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    steps = []
    for how in ("off", "on"):
        torch.manual_seed(0)
        material, student = prepare(training={"compile": how}), tiny_run.student()
        steps += [step(material, student, epoch).total for epoch in (1, 2)]
    assert torch.equal(steps[0], steps[2])
    assert torch.equal(steps[1], steps[3])
    (warning,) = [each for each in material.run.report()["warnings"] if "compiled" in each]
    assert "the student is not compiled but trained as it is" in warning
    assert warning.endswith("RuntimeError: no compiler here")
    assert "\n" not in warning


def test_one_of_several_processes_that_cannot_compile_ends_the_run(
    prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others, compiled, would wait for sums that it sends in another way."""

    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here\nand a long explanation")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    material = prepare(loss={"terms": ("classification",)}, training={"compile": "on"})
    learner = material.step(tiny_run.student())
    (batch, *_) = material.batches.epoch(1, learner.begin(1))
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(UsageError, match=r"cannot: RuntimeError: no compiler here\. Go on with --resume --set"):
        learner(batch)


def test_a_gradient_that_cannot_be_computed_as_compiled_is_as_it_is(
    prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, total: Tensor) -> Tensor:
            return total.clone()

        @staticmethod
        def backward(_ctx: Any, _gradient: Tensor) -> None:
            raise RuntimeError("expected another stride\nand a long explanation")

    material, student = prepare(training={"compile": "on"}), tiny_run.student()
    assert material.compiled is not None
    monkeypatch.setattr(material.compiled, "_compiled", lambda *inputs: _broken(material.compiled.function(*inputs)))
    learner = material.step(student)
    learner.begin(1)
    (batch, *_) = material.batches.epoch(1, learner.begin(1))

    def _broken(output: StudentOutput) -> StudentOutput:
        return output._replace(logits=Broken.apply(output.logits))

    stage = SimpleNamespace(step=learner, optimizer=torch.optim.SGD(student.parameters()), name="student")
    found = accumulate(stage, batch, _State())  # type: ignore[arg-type]
    assert found["total"].isfinite()
    (warning,) = [each for each in material.run.report()["warnings"] if "compiled" in each]
    assert warning.endswith("RuntimeError: expected another stride")
    assert not learner.gives_up(RuntimeError("what has another cause"))


def test_on_a_cpu_and_in_several_processes_only_who_asks_gets_a_compiled_step(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how, device, sharing, wanted in (
        ("auto", "cpu", 1, False),
        ("auto", "cuda", 1, True),
        ("auto", "cuda", 2, False),
        ("off", "cuda", 1, False),
        ("on", "cpu", 1, True),
    ):
        run = prepare(loss={"terms": ("classification",)}, training={"compile": how}).run
        with monkeypatch.context() as patch:
            patch.setattr(processes, "count", lambda sharing=sharing: sharing)
            made = compiled_step(run, torch.device(device))
        assert (made is not None) == wanted, (how, device, sharing)


def test_only_who_asks_gets_the_whole_step_compiled_with_kernels(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_on", set())
    monkeypatch.setattr(kernels, "_try", lambda _device: None)
    monkeypatch.setattr(student_step, "try_kernels", lambda _device: None)
    for how, whole in (("auto", False), ("on", True), ("auto", False)):  # runs of one process
        run = prepare(loss={"terms": ("classification",)}, training={"compile": how}).run
        made = compiled_step(run, torch.device("cuda"))
        assert made is not None
        assert (made.function is student_step._loss_of) == whole
        assert kernels.uses_kernels(torch.device("cuda")) == whole


class Transfers(TorchDispatchMode):
    """Notes every operation that takes tensors of one device and gives those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        if len({leaf.device for leaf in leaves if isinstance(leaf, Tensor)}) > 1:
            self.found.append(str(function))
        return result


@pytest.mark.parametrize("tables", [False, True], ids=["waveforms", "tables"])
def test_from_draw_to_loss_nothing_asks_a_device_for_an_answer(
    tables: bool, prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device, which has no answers: what would wait for a GPU fails there, or is seen to be copied."""
    device = torch.device("meta")
    terms = ("classification", "distillation") if tables else ("classification",)
    material = prepare(epochs=9 if tables else 1, loss={"terms": terms}, augment={"gain_db": 6.0})
    clips = DeviceClips.__new__(DeviceClips)
    clips.store, clips.device = tiny_run.open_data().store, device
    clips._place = torch.arange(len(clips.store))
    clips._levels = ResidentRows(torch.from_numpy(clips.store.clips).to(device))
    batches = replace(material.batches, clips=clips, batch_size=9)
    if tables:
        assert isinstance(batches.log_mels, ResidentRows)
        batches = replace(batches, log_mels=ResidentRows(batches.log_mels.values.to(device)))
        assert batches.teacher is not None
        batches.teacher.teacher.device = device
    student = tiny_run.student().to(device).train()
    # The transform is torch's own; the meta device has none.
    monkeypatch.setattr(student, "front_end", lambda heard: heard[:, :1024].view(9, 1, 32, 32))
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = None  # a count that the meta device cannot add to
    material.loss.to(device)
    average = AveragedWeights(student, 0.9)
    batch = next(iter(batches.epoch(1, material.loss.needs)))
    assert len(batch) == 9
    assert all(tensor.device == device for tensor in (batch.targets, *batch.masks))
    with Transfers() as transfers:
        output = StudentStep(student, material.loss, material.run.config, CPU)(batch)
        output.total.backward()
        average.update()
        with average.lent():
            pass
    assert output.total.device == device
    assert transfers.found == []
    assert (batch.waveforms is None) == tables


def test_validation_hears_stored_log_mels_where_it_hears_more_than_once(prepare: Prepare, tiny_run: Run) -> None:
    student, scores = tiny_run.student(), []
    for epochs in (1, 2):
        side = prepare(epochs=epochs, loss={"terms": ("classification",)}).validation
        assert isinstance(side.clips, LogMelClips) == (epochs > 1)
        assert tuple(side.rows) == tiny_run.open_data().split.validation
        scores.append(validate(student, side, CPU))
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-2)
    assert scores[0].measure == scores[1].measure


def test_gain_is_fitted_on_the_training_side_only(tiny_run: Run) -> None:
    """Against the recordings themselves, read and cut here."""
    data = tiny_run.open_data()
    index, split, store = data.index, data.split, data.store

    def loudest(rows: Sequence[int]) -> float:
        clips = [index.clips[row] for row in rows]
        return max(
            float(np.abs(soundfile.read(clip.path, start=clip.start, frames=clip.length)[0]).max()) for clip in clips
        )

    assert float(waveform_gain(store, split)) == pytest.approx(1 / loudest(split.train), rel=1e-3)
    louder = store.peaks.copy()
    louder[list(split.test + split.validation)] = 1e6
    other = ClipStore(store.folder, store.sample_rate, store.samples, louder, store.clips, store.figures)
    assert waveform_gain(other, split) == waveform_gain(store, split)
    assert tiny_run.student().gain == waveform_gain(store, split)


def test_views_are_the_same_each_time_a_run_is_prepared(prepare: Prepare, tmp_path: Path) -> None:
    first = prepare(loss={"terms": ("classification",)})
    torch.manual_seed(77)
    again = prepare(loss={"terms": ("classification",)}).batches.views
    views = first.batches.views
    assert isinstance(views, Views)
    assert isinstance(again, Views)
    assert torch.equal(again.shifts, views.shifts)
    assert views.shifts.shape == (45, 3)  # two shifts and a mixture

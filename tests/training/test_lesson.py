from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgekd.config import TERMS, DistillConfig
from edgekd.data.clip_store import ClipStore
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.runs.run import Run
from edgekd.training import compiled, frozen_teacher
from edgekd.training import lesson as lesson_module
from edgekd.training.device_rows import DeviceClips, Kept
from edgekd.training.lesson import Lesson, needs_teacher, prepare_lesson, validate, waveform_gain
from edgekd.training.loop import StepOutput


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


Prepare = Callable[..., Lesson]


@pytest.fixture
def prepare(tiny_copy: Run, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`prepare(loss={...})`: a lesson on the tiny run's data and teacher, with changed settings."""
    monkeypatch.setattr(frozen_teacher, "fast_precision", lambda _: "float32")  # whatever this processor can do

    def build(epochs: int = 1, **changes: Any) -> Lesson:
        values = tiny_copy.config.model_dump()
        for section, change in changes.items():
            values[section] |= change
        config = DistillConfig.model_validate(values)
        run = replace(tiny_copy, config=config)
        data = run.open_data()
        index = data.index
        teacher = run.teacher() if needs_teacher(config.loss.terms) else None
        split, store = data.split, data.store
        return prepare_lesson(run, index, split, store, teacher, run.student(), epochs, fabric)

    return build


class Spy(nn.Module):
    """A student that remembers the waveforms it heard and what augmentation did to a log-mel of ones."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.heard: list[Tensor] = []
        self.hidden: list[Tensor] = []

    def front_end(self, waveform: Tensor) -> Tensor:
        self.heard.append(waveform)
        return self.student.front_end(waveform)

    def forward(self, log_mel: Tensor, augment: Callable[[Tensor], Tensor]) -> StudentOutput:
        self.hidden.append(augment(torch.ones(len(log_mel), 1, 32, 32)) == 0)
        return self.student(log_mel, augment)


def step(lesson: Lesson, student: nn.Module, rows: Sequence[int], seed: int = 0) -> StepOutput:
    """One step with the whole of a batch."""
    drawn = lesson.draw(torch.tensor(rows), slice(0, len(rows)), torch.Generator().manual_seed(seed))
    return lesson.step(student, drawn, slice(0, len(rows)))  # type: ignore[arg-type]


def test_teacher_and_student_hear_the_same_views(
    prepare: Prepare, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson, student = prepare(), Spy(tiny_run.student())
    assert lesson.teacher is not None
    teacher = lesson.teacher.teacher.module
    heard: list[Tensor] = []
    tap = teacher.tap
    monkeypatch.setattr(teacher, "tap", lambda waveform: heard.append(waveform) or tap(waveform))
    answered: list[Tensor] = []
    forward = lesson.loss.forward
    monkeypatch.setattr(lesson.loss, "forward", lambda s, t, y: answered.append(t.logits) or forward(s, t, y))
    rows = lesson.split.train[3:9]
    step(lesson, student, rows)
    (seen,), (told,) = student.heard, answered
    assert torch.equal(seen, heard[0])
    plain = lesson.clips.ask(torch.tensor(rows))(slice(None))
    moved = [not torch.equal(a, b) for a, b in zip(seen, plain, strict=True)]
    assert sum(moved) > 0, "some clip was shifted or mixed"
    with torch.no_grad():
        torch.testing.assert_close(told, teacher(seen).logits)
    assert student.hidden[0].any()


def test_what_is_kept_in_tables_teaches_what_hearing_it_anew_does(prepare: Prepare, tiny_run: Run) -> None:
    outputs = []
    for epochs in (1, 9):  # once, or more often than there are views
        lesson, student = prepare(epochs=epochs), Spy(tiny_run.student().eval())
        assert lesson.teacher is not None
        assert (lesson.log_mels is not None, lesson.teacher.mode) == (
            (True, "full") if epochs > 1 else (False, "logits")
        )
        torch.nn.init.ones_(lesson.loss.adapter[0].weight)  # type: ignore[index, arg-type]
        outputs.append(step(lesson, student, lesson.split.train[:6]))
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
        lesson, student = prepare(teacher={"cache": cache}), tiny_run.student().train()
        assert lesson.teacher is not None
        assert lesson.teacher.mode == cache
        torch.manual_seed(1)
        outputs = [step(lesson, student, lesson.split.train[start : start + 6], seed=start) for start in (0, 6, 12)]
        losses.append(torch.stack([output.terms[term] for output in outputs for term in TERMS]))
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=0)


def test_textures_count_in_the_share_of_the_epochs_that_was_asked_for(prepare: Prepare, tiny_run: Run) -> None:
    lesson = prepare(epochs=9, loss={"texture_share": 0.25}, training={"epochs": 8})
    student, rows = tiny_run.student(), lesson.split.train[:6]
    for epoch in range(1, 9):
        lesson.begin_epoch(epoch)
        counted = set(step(lesson, student, rows).terms)
        assert counted == (set(TERMS) if epoch <= 2 else {"classification", "distillation"})


def test_steps_leave_the_teacher_as_it_was(prepare: Prepare, tiny_run: Run) -> None:
    lesson, student = prepare(), tiny_run.student().train()
    assert lesson.teacher is not None
    teacher = lesson.teacher.teacher.module
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    step(lesson, student, lesson.split.train[:6]).total.backward()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in lesson.loss.parameters())


ABLATIONS = [
    ("classification",),
    ("classification", "statistical"),
    ("classification", "structural"),
    ("classification", "distillation"),
    ("classification", "statistical", "distillation"),
    TERMS,
]


@pytest.mark.parametrize("terms", ABLATIONS, ids="+".join)
def test_a_step_computes_the_terms_asked_for_and_no_others(
    terms: tuple[str, ...], prepare: Prepare, tiny_run: Run
) -> None:
    lesson = prepare(loss={"terms": terms})
    output = step(lesson, tiny_run.student(), lesson.split.train[:6])
    assert set(output.terms) == set(output.weights) == set(terms)
    assert (lesson.teacher is None) == (terms == ("classification",))
    assert (lesson.loss.adapter is None) == (not {"statistical", "structural"} & set(terms))
    assert output.total.isfinite()
    output.total.backward()


def test_labels_alone_are_plain_cross_entropy_without_a_teacher(prepare: Prepare, tiny_run: Run) -> None:
    plain = {"time_shift": False, "mixes_per_clip": 0, "time_masks": 0, "frequency_masks": 0}
    lesson = prepare(loss={"terms": ("classification",)}, augment=plain)
    rows, student = list(lesson.split.train[:6]), tiny_run.student()
    waveforms = lesson.clips.ask(torch.tensor(rows))(slice(None))
    expected = cross_entropy(student(waveforms).logits, lesson.labels[rows])
    torch.testing.assert_close(step(lesson, student, rows).total, expected)
    assert lesson.teacher is None


def test_a_term_needs_a_teacher_unless_it_is_classification() -> None:
    assert not needs_teacher(("classification",))
    assert all(needs_teacher(("classification", term)) for term in TERMS[1:])


def grown(lesson: Lesson, student: Student) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a step, and everything that it left in the student and the loss."""
    torch.manual_seed(5)
    output = step(lesson, student.train(), lesson.split.train[:6])
    output.total.backward()
    gradients = {f"{n} gradient": p.grad for n, p in (*student.named_parameters(), *lesson.loss.named_parameters())}
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
        lesson = prepare(training={"compile": how})
        found.append(grown(lesson, tiny_run.student()))
        assert (lesson.compiled is None) == (how == "off")
        assert not any("compiled" in warning for warning in lesson.run.report().get("warnings", []))
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
        lesson, student = prepare(training={"compile": how}), tiny_run.student()
        steps += [step(lesson, student, lesson.split.train[:6]).total for _ in range(2)]
    assert torch.equal(steps[0], steps[2])
    assert torch.equal(steps[1], steps[3])
    (warning,) = [each for each in lesson.run.report()["warnings"] if "compiled" in each]
    assert "the student is not compiled but trained as it is" in warning
    assert warning.endswith("RuntimeError: no compiler here")
    assert "\n" not in warning


def test_on_a_cpu_and_in_several_processes_only_who_asks_gets_a_compiled_step(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(lesson_module, "Compiled", lambda _, device, __: made.append(device.type))
    for how, device, sharing, wanted in (
        ("auto", "cpu", 1, []),
        ("auto", "cuda", 1, ["cuda"]),
        ("auto", "cuda", 2, []),
        ("off", "cuda", 1, []),
        ("on", "cpu", 1, ["cpu"]),
    ):
        run = prepare(loss={"terms": ("classification",)}, training={"compile": how}).run
        made.clear()
        monkeypatch.setattr(lesson_module.processes, "count", lambda sharing=sharing: sharing)
        lesson_module._compiled(run, torch.device(device))
        monkeypatch.undo()
        monkeypatch.setattr(lesson_module, "Compiled", lambda _, device, __: made.append(device.type))
        assert made == wanted, (how, device, sharing)


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
    lesson = prepare(epochs=9 if tables else 1, loss={"terms": terms})
    lesson.fabric = SimpleNamespace(device=device, autocast=nullcontext)  # type: ignore[assignment]
    lesson.clips = clips = DeviceClips.__new__(DeviceClips)
    clips.store, clips.device = tiny_run.open_data().store, device
    clips._place, clips._levels = torch.arange(len(clips.store)), Kept(torch.from_numpy(clips.store.clips).to(device))
    if tables:
        assert isinstance(lesson.log_mels, Kept)
        lesson.log_mels = Kept(lesson.log_mels.values.to(device))
        assert lesson.teacher is not None
        lesson.teacher.teacher.device = device
    student = tiny_run.student().to(device).train()
    # The transform is torch's own; the meta device has none.
    monkeypatch.setattr(student, "front_end", lambda heard: heard[:, :1024].view(9, 1, 32, 32))
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = None  # a count that the meta device cannot add to
    lesson.loss.to(device)
    rows = lesson.split.train[:9]
    drawn = lesson.draw(torch.tensor(rows), slice(0, 9), torch.Generator().manual_seed(0))
    assert all(tensor.device == device for tensor in (drawn.targets, *drawn.masks))
    with Transfers() as transfers:
        output = lesson.step(student, drawn, slice(0, 9))
        output.total.backward()
    assert output.total.device == device
    assert transfers.found == []
    assert (drawn.waveforms is None) == tables


def test_validation_is_cross_entropy_and_accuracy_in_eval_mode(prepare: Prepare, tiny_run: Run) -> None:
    lesson, student = prepare(loss={"terms": ("classification",)}), tiny_run.student()
    rows = list(lesson.split.validation)
    with torch.no_grad():
        logits = student(lesson.validation.waveforms(rows)).logits
    student.train()
    found = lesson.validate(student)
    assert found.loss == pytest.approx(float(cross_entropy(logits, lesson.labels[rows])), rel=1e-4)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == lesson.labels[rows]).float().mean()))
    assert not student.training
    assert validate(student, lesson.validation, rows, lesson.labels, lesson.device) == found


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
    other = ClipStore(store.folder, store.sample_rate, store.samples, louder, store.clips)
    assert waveform_gain(other, split) == waveform_gain(store, split)
    assert tiny_run.student().gain == waveform_gain(store, split)


def test_views_are_the_same_each_time_a_run_is_prepared(prepare: Prepare, tmp_path: Path) -> None:
    first = prepare(loss={"terms": ("classification",)})
    torch.manual_seed(77)
    assert torch.equal(prepare(loss={"terms": ("classification",)}).views.shifts, first.views.shifts)
    assert first.views.shifts.shape == (45, 3)  # two shifts and a mixture

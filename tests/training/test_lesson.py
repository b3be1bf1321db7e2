from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd.config import TERMS, DistillConfig
from edgekd.data.cache import ClipStore
from edgekd.models.outputs import StudentOutput
from edgekd.models.students import Student
from edgekd.training import frozen_teacher
from edgekd.training.lesson import Lesson, needs_teacher, prepare_lesson, validate, waveform_gain
from edgekd.training.run import Run


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
        index = run.index()
        teacher = run.teacher() if needs_teacher(config.loss.terms) else None
        split, store = run.split(index), run.store(index)
        return prepare_lesson(run, index, split, store, teacher, run.student(), epochs, fabric)

    return build


class Spy(nn.Module):
    """A student that remembers the waveforms it saw and what augmentation did to a log-mel of ones."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.seen: list[Tensor] = []
        self.hidden: list[bool] = []

    def forward(self, waveform: Tensor, augment: Callable[[Tensor], Tensor]) -> StudentOutput:
        self.seen.append(waveform)
        self.hidden.append(bool((augment(torch.ones(len(waveform), 1, 32, 32)) == 0).any()))
        return self.student(waveform, augment)


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
    torch.manual_seed(0)
    rows = torch.tensor(lesson.split.train[3:9])
    lesson.step(student, rows)
    (seen,), (told,) = student.seen, answered
    assert torch.equal(seen, heard[0])
    plain = lesson.store.waveforms(rows.tolist())
    moved = [not torch.equal(a, b) for a, b in zip(seen, plain, strict=True)]
    assert sum(moved) > 0, "some clip was shifted or mixed"
    with torch.no_grad():
        torch.testing.assert_close(told, teacher(seen).logits)
    assert student.hidden == [True]


def test_what_is_kept_in_tables_teaches_what_hearing_it_anew_does(prepare: Prepare, tiny_run: Run) -> None:
    outputs = []
    for epochs in (1, 9):  # once, or more often than there are views
        lesson, student = prepare(epochs=epochs), Spy(tiny_run.student().eval())
        assert lesson.teacher is not None
        assert (lesson.log_mels is not None, lesson.teacher.mode) == (
            (True, "full") if epochs > 1 else (False, "logits")
        )
        torch.manual_seed(0)
        torch.nn.init.ones_(lesson.loss.adapter[0].weight)  # type: ignore[index, arg-type]
        outputs.append(lesson.step(student, torch.tensor(lesson.split.train[:6])))
        assert student.seen[0].ndim == (2 if epochs == 1 else 4)
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
        steps = [lesson.step(student, torch.tensor(lesson.split.train[start : start + 6])) for start in (0, 6, 12)]
        losses.append(torch.stack([step.terms[term] for step in steps for term in TERMS]))
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=0)


def test_textures_count_in_the_share_of_the_epochs_that_was_asked_for(prepare: Prepare, tiny_run: Run) -> None:
    lesson = prepare(epochs=9, loss={"texture_share": 0.25}, training={"epochs": 8})
    student, rows = tiny_run.student(), torch.tensor(lesson.split.train[:6])
    for epoch in range(1, 9):
        lesson.begin_epoch(epoch)
        counted = set(lesson.step(student, rows).terms)
        assert counted == (set(TERMS) if epoch <= 2 else {"classification", "distillation"})


def test_steps_leave_the_teacher_as_it_was(prepare: Prepare, tiny_run: Run) -> None:
    lesson, student = prepare(), tiny_run.student().train()
    assert lesson.teacher is not None
    teacher = lesson.teacher.teacher.module
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    lesson.step(student, torch.tensor(lesson.split.train[:6])).total.backward()
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
    output = lesson.step(tiny_run.student(), torch.tensor(lesson.split.train[:6]))
    assert set(output.terms) == set(output.weights) == set(terms)
    assert (lesson.teacher is None) == (terms == ("classification",))
    assert (lesson.loss.adapter is None) == (not {"statistical", "structural"} & set(terms))
    assert output.total.isfinite()
    output.total.backward()


def test_labels_alone_are_plain_cross_entropy_without_a_teacher(prepare: Prepare, tiny_run: Run) -> None:
    plain = {"time_shift": False, "mixes_per_clip": 0, "time_masks": 0, "frequency_masks": 0}
    lesson = prepare(loss={"terms": ("classification",)}, augment=plain)
    rows, student = list(lesson.split.train[:6]), tiny_run.student()
    expected = cross_entropy(student(lesson.store.waveforms(rows)).logits, lesson.labels[rows])
    torch.testing.assert_close(lesson.step(student, torch.tensor(rows)).total, expected)
    assert lesson.teacher is None


def test_a_term_needs_a_teacher_unless_it_is_classification() -> None:
    assert not needs_teacher(("classification",))
    assert all(needs_teacher(("classification", term)) for term in TERMS[1:])


def test_validation_is_cross_entropy_and_accuracy_in_eval_mode(prepare: Prepare, tiny_run: Run) -> None:
    lesson, student = prepare(loss={"terms": ("classification",)}), tiny_run.student()
    rows = list(lesson.split.validation)
    with torch.no_grad():
        logits = student(lesson.store.waveforms(rows)).logits
    student.train()
    found = lesson.validate(student)
    assert found.loss == pytest.approx(float(cross_entropy(logits, lesson.labels[rows])), rel=1e-4)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == lesson.labels[rows]).float().mean()))
    assert not student.training
    assert validate(student, lesson.store, rows, lesson.labels, lesson.device) == found


def test_gain_is_fitted_on_the_training_side_only(tiny_run: Run) -> None:
    """Against the recordings themselves, read and cut here."""
    index = tiny_run.index()
    split, store = tiny_run.split(index), tiny_run.store(index)

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

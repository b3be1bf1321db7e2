from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.outputs import TeacherOutput
from edgekd.training import teacher_cache
from edgekd.training.augment import shift
from edgekd.training.teacher_cache import TeacherCache, fill_cache

SAMPLES, CLASSES = 64, 3
CPU = torch.device("cpu")


class Store:
    """Twelve clips; row number r is a row of the index, not of a table."""

    def __init__(self) -> None:
        self.clips = torch.randn(12, SAMPLES, generator=torch.Generator().manual_seed(0))

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        return self.clips[list(rows)]


class Listener(nn.Module):
    """A teacher that remembers what it heard, how often, and in which mode."""

    tap_channels = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Sequential(nn.Conv1d(1, 2, 5, stride=4), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.head = nn.Linear(2 * 15, CLASSES)
        self.heard: list[Tensor] = []
        self.stems = 0

    def tap(self, waveform: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.stems += 1
        return self.stem(waveform[:, None]).unsqueeze(3)

    def forward(self, waveform: Tensor) -> TeacherOutput:
        self.heard += list(waveform)
        tap = self.tap(waveform)
        return TeacherOutput(self.head(tap.flatten(1)), tap)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def teacher() -> Listener:
    return Listener().train()


ROWS = (11, 2, 5, 7, 3)
SHIFTS = torch.tensor([[0, 9], [0, 1], [0, 63], [0, 30], [0, 17]])
NONE = torch.zeros(5, 1, dtype=torch.long)


def fill(teacher: Listener, store: Store, shifts: Tensor, saved: Path, needs_tap: bool = True) -> TeacherCache:
    return fill_cache(teacher, store, ROWS, shifts, CPU, needs_tap, saved, batch_size=2)  # type: ignore[arg-type]


def test_the_teacher_hears_each_clip_once_at_each_shift(teacher: Listener, store: Store, tmp_path: Path) -> None:
    fill(teacher, store, SHIFTS, tmp_path / "logits.safetensors")
    expected = shift(store.waveforms(ROWS).repeat_interleave(2, 0), SHIFTS.flatten())
    heard = torch.stack(teacher.heard)
    assert heard.shape == expected.shape
    assert {tuple(clip) for clip in heard.tolist()} == {tuple(clip) for clip in expected.tolist()}


def test_the_teacher_is_frozen_and_in_eval_mode(teacher: Listener, store: Store, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    cache = fill(teacher, store, SHIFTS, tmp_path / "logits.safetensors")
    output = cache(torch.tensor(ROWS), torch.ones(5, dtype=torch.long), shift(store.waveforms(ROWS), SHIFTS[:, 1]))
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not output.logits.requires_grad
    assert not output.tap.requires_grad


@pytest.mark.parametrize("shifts", [SHIFTS, NONE])
def test_answers_are_those_of_the_teacher_for_the_clip_and_the_shift_asked_about(
    shifts: Tensor, teacher: Listener, store: Store, tmp_path: Path
) -> None:
    cache = fill(teacher, store, shifts, tmp_path / "logits.safetensors")
    asked, choices = torch.tensor([7, 11, 2]), torch.tensor([1, 0, 1]) % shifts.shape[1]
    places = torch.tensor([ROWS.index(int(row)) for row in asked])
    waveforms = shift(store.waveforms(asked.tolist()), shifts[places, choices])
    output = cache(asked, choices, waveforms)
    with torch.no_grad():
        expected = teacher(waveforms)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.tap, expected.tap, rtol=1e-3, atol=1e-3)  # kept in float16
    assert output.tap.dtype == torch.float32


def test_taps_of_clips_that_are_not_shifted_are_computed_once(teacher: Listener, store: Store, tmp_path: Path) -> None:
    cache = fill(teacher, store, NONE, tmp_path / "logits.safetensors")
    stems = teacher.stems
    cache(torch.tensor([2, 3]), torch.zeros(2, dtype=torch.long), store.waveforms((2, 3)))
    assert teacher.stems == stems
    shifted = fill(teacher, store, SHIFTS, tmp_path / "others.safetensors")
    stems, heard = teacher.stems, len(teacher.heard)
    shifted(torch.tensor([2, 3]), torch.zeros(2, dtype=torch.long), store.waveforms((2, 3)))
    assert (teacher.stems, len(teacher.heard)) == (stems + 1, heard), "the stem alone, not the layers above it"


def test_taps_too_large_to_keep_are_computed_again(
    teacher: Listener, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * 15 * 2  # bytes of a clip's tap in float16
    for budget, kept in ((5 * size, True), (5 * size - 1, False)):
        monkeypatch.setattr(teacher_cache, "TAP_BUDGET", budget)
        cache = fill(teacher, store, NONE, tmp_path / f"{budget}.safetensors")
        assert (cache.taps is not None) == kept
        waveforms = store.waveforms((5, 3))
        output = cache(torch.tensor([5, 3]), torch.zeros(2, dtype=torch.long), waveforms)
        with torch.no_grad():
            torch.testing.assert_close(output.tap, teacher.tap(waveforms), rtol=1e-3, atol=1e-3)


def test_a_resumed_run_reads_the_same_answers_to_the_last_bit(teacher: Listener, store: Store, tmp_path: Path) -> None:
    saved = tmp_path / "logits.safetensors"
    first = fill(teacher, store, SHIFTS, saved)
    heard = len(teacher.heard)
    again = fill(teacher, store, SHIFTS, saved)
    assert len(teacher.heard) == heard
    assert torch.equal(again.logits, first.logits)
    saved.unlink()
    assert torch.equal(fill(teacher, store, SHIFTS, saved).logits, first.logits)


def test_stored_answers_do_not_cost_a_resumed_run_its_taps(teacher: Listener, store: Store, tmp_path: Path) -> None:
    saved = tmp_path / "logits.safetensors"
    fill(teacher, store, NONE, saved, needs_tap=False)
    assert fill(teacher, store, NONE, saved).taps is not None


def test_taps_are_not_kept_where_no_term_needs_them(teacher: Listener, store: Store, tmp_path: Path) -> None:
    assert fill(teacher, store, NONE, tmp_path / "logits.safetensors", needs_tap=False).taps is None


def test_progress_counts_every_clip_and_shift(teacher: Listener, store: Store, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        told.append((done, total))

    fill_cache(teacher, store, ROWS, SHIFTS, CPU, True, tmp_path / "l.safetensors", 2, progress)  # type: ignore[arg-type]
    assert told == [(done, 10) for done in (2, 4, 5, 7, 9, 10)]

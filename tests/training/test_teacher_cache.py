from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import AugmentConfig
from edgekd.models.outputs import TeacherOutput
from edgekd.training import teacher_cache
from edgekd.training.augment import Views, draw_views
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
SHIFTS = AugmentConfig(shifts_per_clip=2, mixes_per_clip=0)
MIXES = AugmentConfig(shifts_per_clip=1, mixes_per_clip=2)
NONE = AugmentConfig(time_shift=False, mixes_per_clip=0)


def views_of(config: AugmentConfig) -> Views:
    return draw_views(ROWS, SAMPLES, config, seed=3)


def fill(teacher: Listener, store: Store, config: AugmentConfig, saved: Path, keep: bool = True) -> TeacherCache:
    return fill_cache(teacher, store, views_of(config), CPU, keep, saved, batch_size=2)  # type: ignore[arg-type]


def heard_by(store: Store, config: AugmentConfig, places: Sequence[int], choices: Sequence[int]) -> Tensor:
    return views_of(config).waveforms(store, torch.tensor(places), torch.tensor(choices))  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [SHIFTS, MIXES])
def test_the_teacher_hears_each_clip_once_in_each_view(
    config: AugmentConfig, teacher: Listener, store: Store, tmp_path: Path
) -> None:
    fill(teacher, store, config, tmp_path / "logits.safetensors")
    views = len(views_of(config))
    numbers = range(5 * views)
    expected = heard_by(store, config, [n % 5 for n in numbers], [n // 5 for n in numbers])
    heard = torch.stack(teacher.heard)
    assert heard.shape == expected.shape
    assert {tuple(clip) for clip in heard.tolist()} == {tuple(clip) for clip in expected.tolist()}


def test_the_teacher_is_frozen_and_in_eval_mode(teacher: Listener, store: Store, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    cache = fill(teacher, store, SHIFTS, tmp_path / "logits.safetensors", keep=False)
    choices = torch.ones(5, dtype=torch.long)
    output = cache(torch.arange(5), choices, heard_by(store, SHIFTS, range(5), [1] * 5), CPU)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not output.logits.requires_grad
    assert not output.tap.requires_grad


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("config", [SHIFTS, MIXES, NONE])
def test_answers_are_those_of_the_teacher_for_the_view_asked_about(
    config: AugmentConfig, keep: bool, teacher: Listener, store: Store, tmp_path: Path
) -> None:
    cache = fill(teacher, store, config, tmp_path / "logits.safetensors", keep=keep)
    last = len(views_of(config)) - 1
    places, choices = [3, 0, 1], [last, 0, last]
    waveforms = heard_by(store, config, places, choices)
    output = cache(torch.tensor(places), torch.tensor(choices), None if keep else waveforms, CPU)
    with torch.no_grad():
        expected = teacher(waveforms)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.tap, expected.tap, rtol=1e-3, atol=1e-3)  # kept in float16
    assert output.tap.dtype == torch.float32


def test_taps_that_are_kept_are_computed_once_and_others_without_the_layers_above(
    teacher: Listener, store: Store, tmp_path: Path
) -> None:
    asked, choices = torch.tensor([1, 4]), torch.zeros(2, dtype=torch.long)
    cache = fill(teacher, store, SHIFTS, tmp_path / "logits.safetensors")
    stems = teacher.stems
    cache(asked, choices, None, CPU)
    assert teacher.stems == stems
    anew = fill(teacher, store, SHIFTS, tmp_path / "others.safetensors", keep=False)
    stems, heard = teacher.stems, len(teacher.heard)
    anew(asked, choices, heard_by(store, SHIFTS, [1, 4], [0, 0]), CPU)
    assert (teacher.stems, len(teacher.heard)) == (stems + 1, heard)


def test_taps_too_large_to_keep_are_computed_again(
    teacher: Listener, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * 15 * 2  # bytes of a clip's tap in float16
    for budget, kept in ((10 * size, True), (10 * size - 1, False)):
        monkeypatch.setattr(teacher_cache, "TAP_BUDGET", budget)
        saved = tmp_path / f"{budget}.safetensors"
        for _ in range(2):  # the second time with the logits of the first
            cache = fill(teacher, store, SHIFTS, saved)
            assert (cache.taps is not None) == kept


def test_a_resumed_run_reads_the_same_answers_to_the_last_bit(teacher: Listener, store: Store, tmp_path: Path) -> None:
    saved = tmp_path / "logits.safetensors"
    first = fill(teacher, store, SHIFTS, saved)
    heard = len(teacher.heard)
    again = fill(teacher, store, SHIFTS, saved)
    assert len(teacher.heard) == heard, "only the layers below the tap run again"
    assert torch.equal(again.logits, first.logits)
    assert again.taps is not None
    assert first.taps is not None
    assert torch.equal(again.taps, first.taps)
    saved.unlink()
    assert torch.equal(fill(teacher, store, SHIFTS, saved).logits, first.logits)


def test_no_tap_is_computed_where_no_term_needs_it(teacher: Listener, store: Store, tmp_path: Path) -> None:
    cache = fill(teacher, store, NONE, tmp_path / "logits.safetensors", keep=False)
    stems = teacher.stems
    output = cache(torch.tensor([0, 2]), torch.zeros(2, dtype=torch.long), None, CPU)
    assert (cache.taps, output.tap.numel(), teacher.stems) == (None, 0, stems)


def test_progress_counts_every_view_of_every_clip(teacher: Listener, store: Store, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        told.append((done, total))

    views, saved = views_of(SHIFTS), tmp_path / "l.safetensors"
    fill_cache(teacher, store, views, CPU, True, saved, 3, progress)  # type: ignore[arg-type]
    assert told == [(done, 10) for done in (3, 6, 9, 10)]

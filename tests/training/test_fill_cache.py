from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import AugmentConfig, CacheMode, DistillConfig, TeacherConfig
from edgekd.data import clip_store as data_cache
from edgekd.errors import InputError
from edgekd.losses.terms import Need
from edgekd.models.outputs import TeacherOutput
from edgekd.progress import Progress, silent
from edgekd.training import fill_cache as fill_module
from edgekd.training.fill_cache import fill_cache
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.teacher_cache import TeacherCache
from edgekd.training.views import Views, draw_views

SAMPLES, CLASSES = 64, 3
TAP_BYTES = 2 * 15 * 2  # of a clip in float16
CPU = torch.device("cpu")
ROWS = (11, 2, 5, 7, 3, 0, 4, 9)
SHIFTS = AugmentConfig(shifts_per_clip=3, mixes_per_clip=0)
MIXES = AugmentConfig(shifts_per_clip=1, mixes_per_clip=2)
NONE = AugmentConfig(time_shift=False, mixes_per_clip=0)


@dataclass
class Store:
    """Twelve clips; row number r is a row of the index, not of a table."""

    folder: Path = Path("twelve-clips")
    clips: Tensor = field(default_factory=lambda: torch.randn(12, SAMPLES, generator=torch.Generator().manual_seed(0)))

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        return self.clips[list(rows)]


class Listener(nn.Module):
    """A teacher that remembers what it heard, how often, and in which mode."""

    tap_channels = 2

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv1d(1, 2, 5, stride=4), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.head = nn.Linear(2 * 15, CLASSES)
        self.heard: list[tuple[float, ...]] = []
        self.stems = 0
        self.loudness = 1.0

    def tap(self, waveform: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.stems += 1
        return self.loudness * self.stem(waveform[:, None]).unsqueeze(3)

    def forward(self, waveform: Tensor) -> TeacherOutput:
        self.heard += [tuple(clip) for clip in waveform.tolist()]
        tap = self.tap(waveform)
        return TeacherOutput(self.head(tap.flatten(1)), tap, tap.flatten(1))


@pytest.fixture
def teacher() -> Listener:
    return Listener().train()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder."""
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def views_of(augment: AugmentConfig = SHIFTS, seed: int = 3) -> Views:
    return draw_views(ROWS, SAMPLES, augment, seed)


def fill(
    teacher: Listener,
    mode: CacheMode = "full",
    views: Views | None = None,
    *,
    name: str = "listener",
    needs: Collection[Need] = ("logits", "tap"),
    repeated: bool = True,
    store: Store | None = None,
    progress: Progress = silent,
) -> TeacherCache:
    config = DistillConfig(teacher=TeacherConfig(name=name, cache=mode))
    frozen = FrozenTeacher(teacher, CPU, "float32")  # type: ignore[arg-type]
    store = store or Store()
    return fill_cache(
        config,
        frozen,
        store,  # type: ignore[arg-type]
        views or views_of(),
        needs=needs,
        repeated=repeated,
        progress=progress,
    )


def tensor(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def answers(
    cache: TeacherCache, needs: Collection[Need] = ("logits", "tap"), views: Views | None = None
) -> TeacherOutput:
    """To one question about three clips, with the waveforms only where they are needed."""
    views = views or views_of()
    last = len(views) - 1
    places, choices = tensor(3, 0, 7), tensor(last, 0, last)
    waveforms = views.waveforms(Store(), places, choices)  # type: ignore[arg-type]
    needed = cache.needs_waveforms(needs)
    return cache.request(places, choices, needs).outputs(waveforms if needed else None)


# What is asked


@pytest.mark.parametrize("mode", ["logits", "full"])
@pytest.mark.parametrize("augment", [SHIFTS, MIXES])
def test_the_teacher_hears_each_clip_once_in_each_view(
    augment: AugmentConfig, mode: CacheMode, teacher: Listener
) -> None:
    views = views_of(augment)
    fill(teacher, mode, views)
    places, choices = torch.arange(8).repeat(len(views)), torch.arange(len(views)).repeat_interleave(8)
    expected = views.waveforms(Store(), places, choices)  # type: ignore[arg-type]
    assert sorted(teacher.heard) == sorted(tuple(clip) for clip in expected.tolist())
    fill(teacher, mode, views)
    assert len(teacher.heard) == 8 * len(views) + fill_module.PROBES, "another run reads what is there"


@pytest.mark.parametrize("mode", ["off", "logits", "full", "auto"])
@pytest.mark.parametrize("augment", [SHIFTS, MIXES, NONE])
def test_answers_are_those_of_the_teacher_for_the_view_asked_about(
    augment: AugmentConfig, mode: CacheMode, teacher: Listener
) -> None:
    views = views_of(augment)
    for _ in range(2):  # filled, and read back
        found = answers(fill(teacher, mode, views), views=views)
        expected = answers(fill(teacher, "off", views), views=views)
        torch.testing.assert_close(found.logits, expected.logits)
        half = {"rtol": 2**-11, "atol": 1e-7} if mode in ("full", "auto") else {}
        torch.testing.assert_close(found.tap.float(), expected.tap, **half)  # type: ignore[arg-type]
        assert found.logits.dtype == torch.float32


def test_each_mode_runs_no_more_of_the_teacher_than_it_says(teacher: Listener) -> None:
    for mode, forwards, stems in (("off", 3, 1), ("logits", 0, 1), ("full", 0, 0)):
        cache = fill(teacher, mode)  # type: ignore[arg-type]
        assert cache.mode == mode
        teacher.heard, teacher.stems = [], 0
        answers(cache)
        assert (len(teacher.heard), teacher.stems) == (forwards, stems), mode


@pytest.mark.parametrize("mode", ["logits", "full"])
def test_no_tap_is_computed_where_no_term_needs_it(mode: CacheMode, teacher: Listener) -> None:
    cache = fill(teacher, mode, needs=("logits",))
    teacher.stems = 0
    assert not cache.needs_waveforms(("logits",))
    assert answers(cache, ("logits",)).tap.numel() == 0
    assert (cache.mode, teacher.stems) == ("logits", 0)


def test_taps_are_added_to_logits_without_the_layers_above(teacher: Listener) -> None:
    logits = answers(fill(teacher, "logits"), ("logits",)).logits
    teacher.heard = []
    found = answers(fill(teacher, "full"))
    assert len(teacher.heard) == fill_module.PROBES
    assert torch.equal(found.logits, logits)
    torch.testing.assert_close(found.tap.float(), answers(fill(teacher, "off")).tap, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("mode", ["off", "logits", "full"])
def test_embeddings_are_kept_where_a_term_needs_them(mode: CacheMode, teacher: Listener) -> None:
    needs: tuple[Need, ...] = ("embedding", "tap")
    for _ in range(2):  # filled, and read back
        cache = fill(teacher, mode, needs=needs)
        teacher.heard = []
        found = answers(cache, needs).embedding
        assert ("embedding" in cache.tables, len(teacher.heard)) == ((False, 3) if mode == "off" else (True, 0))
        expected = answers(fill(teacher, "off"), needs).embedding
        assert found is not None and expected is not None
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=2**-11, atol=1e-7)
    assert "embedding" not in fill(teacher, mode).tables


def test_embeddings_are_added_to_a_cache_that_has_none(teacher: Listener, folder: Path) -> None:
    before = answers(fill(teacher, "full"))
    files = {path: path.read_bytes() for path in folders(folder)[0].iterdir()}
    teacher.heard = []
    after = answers(fill(teacher, "full", needs=("logits", "embedding", "tap")), ("logits", "embedding", "tap"))
    assert len(teacher.heard) == 24
    assert torch.equal(before.logits, after.logits) and torch.equal(before.tap, after.tap)
    assert all(path.read_bytes() == content for path, content in files.items()), "rows that are there stay"
    assert {path.name for path in folders(folder)[0].iterdir()} == {path.name for path in files} | {
        "embeddings.f16",
        "embeddings.f16.crc",
    }


def test_a_tap_beyond_the_range_of_float16_is_cut_off(teacher: Listener) -> None:
    teacher.loudness = 1e6
    for _ in range(2):
        tap = answers(fill(teacher)).tap
        assert tap.isfinite().all()
        assert tap.abs().max() == torch.finfo(torch.float16).max
    assert len(teacher.heard) == 24 + 2 * fill_module.PROBES - 2


# What `auto` does


def test_auto_keeps_taps_that_are_heard_more_than_once(teacher: Listener) -> None:
    once, often = fill(teacher, "auto", repeated=False), fill(teacher, "auto", repeated=True)
    assert (once.mode, often.mode) == ("logits", "full")
    assert once.warning == often.warning == ""
    assert fill(teacher, "full", repeated=False).mode == "full", "asked for by name"


def test_auto_keeps_no_more_than_its_share_of_the_space_with_all_caches(
    teacher: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 24 * TAP_BYTES
    monkeypatch.setattr(fill_module, "AUTO_BYTES", 2 * size)
    assert fill(teacher, "auto").mode == "full"
    assert fill(teacher, "auto", views_of(seed=4)).mode == "full"
    third = fill(teacher, "auto", views_of(seed=5))
    assert third.mode == "logits"
    assert "not kept but computed for every batch: with the 0 MB of other caches" in third.warning
    assert "--teacher-cache full" in third.warning
    assert fill(teacher, "auto", views_of(seed=4)).mode == "full", "those that are there go on being used"


def test_auto_keeps_no_more_than_a_tenth_of_the_free_space(teacher: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caches take counts as free, or they would shrink their own share."""
    size = 24 * TAP_BYTES
    fill(teacher, views=views_of(seed=4))
    for free, mode in ((19 * size - 10, "logits"), (19 * size, "full")):
        usage = shutil.disk_usage("/")._replace(free=free)
        monkeypatch.setattr(fill_module.shutil, "disk_usage", lambda _, found=usage: found)
        assert fill(teacher, "auto").mode == mode


def test_what_is_kept_is_told(teacher: Listener, folder: Path) -> None:
    told: list[tuple[int, int, str]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        if stage == "teacher outputs":
            told.append((done, total, str(figures["kept"])))

    found = fill(teacher, progress=progress).summary()
    assert told == [(done, 24, "full, 0.0 MB") for done in (2, 18, 24)]
    assert found == {"mode": "full", "megabytes": 0.0, "folder": str(folders(folder)[0])}
    assert sum((folders(folder)[0] / name).stat().st_size for name in ("logits.f32", "taps.f16")) == 24 * (60 + 12)
    assert fill(teacher, "off").summary() == {"mode": "off", "megabytes": 0.0}
    told.clear()
    fill(teacher, progress=progress)
    assert told == [(24, 24, "full, 0.0 MB")]


# Whose answers they are


def test_whatever_decides_the_answers_has_a_cache_of_its_own(
    teacher: Listener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[Callable[[], object]] = [
        lambda: fill(teacher),
        lambda: fill(teacher, views=views_of(seed=4)),
        lambda: fill(teacher, views=views_of(MIXES)),
        lambda: fill(Listener(seed=2)),
        lambda: fill(teacher, name="another"),
        lambda: fill(teacher, store=Store(Path("other-clips"))),
        lambda: monkeypatch.setattr(fill_module, "FORMAT", 2) or fill(teacher),  # type: ignore[func-returns-value]
    ]
    for number, change in enumerate(changes, 1):
        change()
        assert len(folders(folder)) == number
    with torch.no_grad():
        teacher.get_buffer("stem.1.running_mean").add_(0.01)
    fill(teacher)
    assert len(folders(folder)) == len(changes) + 1


def test_a_cache_of_another_version_is_left_alone(
    teacher: Listener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(teacher)
    (old,) = folders(folder)
    kept = {path.name: path.read_bytes() for path in old.iterdir()}
    monkeypatch.setattr(fill_module, "FORMAT", 2)
    fill(teacher)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == kept


def test_a_teacher_whose_code_has_changed_is_asked_again(teacher: Listener, folder: Path) -> None:
    """Its parameters, and so the name of the cache, are the same."""
    fill(teacher)
    teacher.loudness = 3.0
    found = answers(fill(teacher))
    torch.testing.assert_close(found.tap.float(), answers(fill(teacher, "off")).tap, rtol=2**-11, atol=1e-7)
    assert len(folders(folder)) == 1


# What may befall it


class Killed(Exception):
    pass


@pytest.mark.parametrize("mode", ["logits", "full"])
def test_a_fill_that_was_ended_goes_on_where_it_stopped(mode: CacheMode, teacher: Listener, folder: Path) -> None:
    def kill(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        if done >= 18:
            raise Killed

    with pytest.raises(Killed):
        fill(teacher, mode, progress=kill)
    assert len(teacher.heard) == 18
    found = fill(teacher, mode)
    assert len(teacher.heard) == 18 + 2 + 6
    unbroken = {path.name: path.read_bytes() for path in folders(folder)[0].iterdir()}
    shutil.rmtree(folder)
    fill(teacher, mode)
    assert {path.name: path.read_bytes() for path in folders(folder)[0].iterdir()} == unbroken, "to the last bit"
    assert found.mode == mode


@pytest.mark.parametrize(("table", "asked", "stems"), [("logits.f32", 16, 0), ("taps.f16", 0, 1)])
def test_damaged_answers_are_asked_again(table: str, asked: int, stems: int, teacher: Listener, folder: Path) -> None:
    fill(teacher)
    path = folders(folder)[0] / table
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[len(damaged) // 24 * 9 + 1] ^= 255
    path.write_bytes(damaged)
    teacher.heard, teacher.stems = [], 0
    fill(teacher)
    assert len(teacher.heard) == fill_module.PROBES + asked
    assert teacher.stems == 1 + (asked > 0) + stems
    assert path.read_bytes() == good


# No space


def refuse(monkeypatch: pytest.MonkeyPatch, at_least: int) -> None:
    """Let reserving `at_least` bytes or more fail as a full disk does."""
    reserve = os.posix_fallocate

    def reserved(file: int, offset: int, size: int) -> None:
        if size >= at_least:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(file, offset, size)

    monkeypatch.setattr(data_cache.os, "posix_fallocate", reserved)


def test_without_space_full_is_refused_and_leaves_nothing_behind(
    teacher: Listener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 24 * TAP_BYTES)
    with pytest.raises(InputError) as refusal:
        fill(teacher, "full")
    line = str(refusal.value)
    assert line.startswith(f"{folder}: no space left for the teacher cache: 0.0 MB of taps are to be kept, ")
    assert all(advice in line for advice in ("EDGEKD_CACHE_DIR", "--teacher-cache logits"))
    assert not list(folder.glob("*/taps*"))
    assert fill(teacher, "logits").mode == "logits"


def test_without_space_auto_keeps_the_logits_and_says_so(teacher: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, 24 * TAP_BYTES)
    found = fill(teacher, "auto")
    assert found.mode == "logits"
    assert "there is no space for them" in found.warning
    torch.testing.assert_close(answers(found).tap, answers(fill(teacher, "off")).tap)


def test_space_that_ends_while_the_taps_are_written_costs_auto_the_taps_alone(
    teacher: Listener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system cannot reserve."""
    write = os.pwrite

    def written(file: int, data: bytes, offset: int) -> int:
        if len(data) == 16 * TAP_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, offset)

    monkeypatch.setattr(data_cache.os, "pwrite", written)
    found = fill(teacher, "auto")
    assert (found.mode, found.warning != "") == ("logits", True)
    assert not list(folder.glob("*/taps*"))
    assert sorted(set(teacher.heard)) == sorted(set(teacher.heard[:24]))


def test_without_space_for_logits_off_is_named(teacher: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, 24 * 4)
    for mode in ("logits", "auto"):
        with pytest.raises(InputError, match=r"no space left for the teacher cache: .* or pass --teacher-cache off"):
            fill(teacher, mode, needs=("tap",) if mode == "auto" else (), repeated=False)  # type: ignore[arg-type]
    assert fill(teacher, "off").mode == "off"


def test_a_cache_folder_that_is_a_file_is_named(teacher: Listener, folder: Path) -> None:
    folder.touch()
    with pytest.raises(InputError, match=r"cache: the teacher's answers cannot be kept .*EDGEKD_CACHE_DIR"):
        fill(teacher)


def test_a_level_is_another_question_and_none_is_the_old_one(folder: Path) -> None:
    teacher = Listener()
    plain, louder = views_of(), views_of(SHIFTS.model_copy(update={"gain_db": 10.0}))
    fill(teacher, views=plain)
    (first,) = folders(folder)
    fill(teacher, views=louder)
    assert len(folders(folder)) == 2
    fill(teacher, views=replace(louder, gains=None))
    assert len(folders(folder)) == 2, "views without gains find what was answered before there were any"
    assert first in folders(folder)
    kept = fill(teacher, views=louder)
    places = torch.arange(len(ROWS))
    heard = louder.waveforms(Store(), places, torch.ones_like(places))  # type: ignore[arg-type]
    with torch.inference_mode():
        said = teacher.eval()(heard)
    given = kept.request(places, torch.ones_like(places), ("logits",)).outputs(None)
    torch.testing.assert_close(given.logits, said.logits)

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.runs.run import Run

TAUGHT = [
    *("--terms", "classification,structural", "--teacher", "convnet", "--adaptation", "full", "--epochs", "2"),
    *("--set", "teacher.epochs=1", "--set", "teacher.batch_size=8", "--set", "augment.shifts_per_clip=1"),
    *("--set", "loss.texture_share=1.0", "--no-quantize"),
]


@pytest.fixture
def taught(quick: Callable, recordings: Path) -> Callable:
    """`edgekd distill` of a student that a teacher teaches by its tap."""
    return lambda *arguments: quick(*TAUGHT, "--data-dir", recordings, *arguments)


def test_the_setting_is_checked_and_shown(taught: Callable, tmp_path: Path) -> None:
    line = taught("--teacher-cache", "everything", "--out", tmp_path / "run").refusal(2)
    assert "teacher.cache = 'everything'" in line
    assert "'auto', 'off', 'logits' or 'full'" in line
    for given, cache in ((["--teacher-cache", "logits"], "logits"), ([], "auto")):
        shown = taught(*given, "--dry-run", "--out", tmp_path / "run")
        assert f'\ncache = "{cache}"\n' in shown.out


def test_full_without_space_is_refused_and_the_run_goes_on_with_less(
    taught: Callable,
    edgekd: Callable,
    tmp_path: Path,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, out = small_disk(300), tmp_path / "run"
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(disk / "cache"))
    line = taught("--teacher-cache", "full", "--out", out).refusal(3)
    assert line.startswith(f"{disk / 'cache'}: no space left for the teacher cache: 0.")
    assert "--teacher-cache logits" in line
    assert not list(disk.glob("cache/teacher-*/taps*"))
    done = edgekd("distill", "--out", out, "--resume", "--teacher-cache", "auto", "--no-quantize", "--quiet")
    assert done.code == 0, done.err
    report = Run.open(out).report()
    assert report["training"]["student"]["teacher_cache"]["mode"] == "logits"
    (warning,) = (text for text in report["warnings"] if "taps" in text)
    assert "are not kept but computed for every batch" in warning
    gc.collect()  # what is mapped keeps the disk busy

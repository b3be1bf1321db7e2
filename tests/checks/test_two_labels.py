"""The same samples under two labels, and nothing else, is a contradiction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from edgekd.checks.two_labels import under_two_labels
from edgekd.config import DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.index import Clip, ClipIndex

RATE = 8_000
CONFIG = DataConfig(sample_rate=RATE, clip_seconds=1.0)


def found(tmp_path: Path, clips: list[Clip]) -> list[tuple[list[str], int]]:
    index = ClipIndex("sounds", tmp_path, ("a", "b", "c"), tuple(clips))
    return [
        ([index.name(index.clips[row]) for row in rows], count)
        for rows, count in under_two_labels(index, open_store(index, CONFIG))
    ]


def test_files_are_named_once_however_many_clips_they_share(tmp_path: Path) -> None:
    sounds = (np.random.default_rng(seed).integers(-9_000, 9_000, 3 * RATE, dtype=np.int16) for seed in range(2))
    same, other = (sound.reshape(-1, 1) for sound in sounds)
    silent = np.zeros((3 * RATE, 1), np.int16)
    names = (
        "1.wav",
        "2.flac",
        "3.aiff",
        "same-class.wav",
        "other.wav",
        "silent-a.wav",
        "silent-b.wav",
        "unlabelled.wav",
    )
    contents = (same, same, np.repeat(same, 2, axis=1), same, other, silent, silent, same)
    labels = (0, 1, 2, 0, 1, 0, 1, -1)
    for name, content in zip(names, contents, strict=True):
        soundfile.write(tmp_path / name, content, RATE)
    clips = [
        Clip(tmp_path / name, label, "one group for all", None, start * RATE, RATE)
        for name, label in zip(names, labels, strict=True)
        for start in range(3)
    ]
    assert found(tmp_path, clips) == [(["1.wav", "2.flac", "3.aiff", "same-class.wav"], 3)]
    assert found(tmp_path, [clip for clip in clips if clip.label in (-1, 0)]) == []


def test_a_recording_with_a_region_of_each_class_does_not_contradict_its_copy(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).integers(-9_000, 9_000, 2 * RATE, dtype=np.int16)
    for name in ("1.wav", "2.wav"):
        soundfile.write(tmp_path / name, sound, RATE)
    regions = [
        Clip(tmp_path / name, second, name, None, second * RATE, RATE)
        for name in ("1.wav", "2.wav")
        for second in (0, 1)
    ]
    assert found(tmp_path, regions) == []

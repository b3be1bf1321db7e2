"""Audio without labels that shares recordings with what a student is scored on: slices, re-encoded, at other rates."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import signal

from edgekd.audio.read import resample
from edgekd.checks.unlabelled_audit import UnlabelledAudit, audit_unlabelled
from edgekd.config import DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.index import Clip, ClipIndex, Split
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import InputError

RATE = 16_000
SPLIT = Split(train=(0, 1), validation=(2,), test=(3, 4))


def sound(seed: int, seconds: float = 6.0) -> NDArray[np.float32]:
    """Bursts of noise of changing colour: an outdoor recording of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * RATE:
        length = rng.integers(RATE // 10, RATE // 2)
        noise = signal.lfilter([1], [1, -rng.uniform(-0.9, 0.9)], rng.standard_normal(length))
        parts.append(rng.uniform(0.02, 0.2) * noise / noise.std())
    return np.concatenate(parts)[: round(seconds * RATE)].astype(np.float32)


@pytest.fixture
def labelled(tmp_path: Path) -> ClipIndex:
    """Five clips of 3 s, each from the middle of a recording of its own, which is its group."""
    clips = []
    for seed in range(5):
        path = tmp_path / "labelled" / f"{seed}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(seed)[RATE : 4 * RATE], RATE)
        clips.append(Clip(path, seed % 2, f"source {seed}", None, 0, 3 * RATE))
    return ClipIndex("test", tmp_path / "labelled", ("a", "b"), tuple(clips))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    return tmp_path / "more"


def sliced(path: Path, seed: int, start: float, stop: float, rate: int = 11_025) -> None:
    """From `start` to `stop` of a recording, at half the level and another rate, coded anew."""
    cut = 0.5 * sound(seed)[round(start * RATE) : round(stop * RATE)]
    soundfile.write(path, resample(cut, RATE, rate), rate)


def audited(labelled: ClipIndex, *folders: Path, near_duplicates: str | None = None) -> UnlabelledAudit:
    config = DataConfig.model_validate(
        {"sample_rate": RATE, "clip_seconds": 3.0, "unlabelled": folders, "near_duplicates": near_duplicates}
    )
    unlabelled = load_unlabelled(config)
    stores = open_store(unlabelled, config), open_store(labelled, config)
    return audit_unlabelled(unlabelled, stores[0], labelled, SPLIT, stores[1], config)


def test_slices_of_held_out_recordings_are_dropped_and_those_of_the_training_side_are_not(
    labelled: ClipIndex, folder: Path
) -> None:
    sliced(folder / "of-test.ogg", 3, 3.0, 5.5)  # a second of it is in the clip
    sliced(folder / "of-train.ogg", 0, 3.0, 5.5)
    sliced(folder / "of-validation.ogg", 2, 0.0, 2.2, 22_050)
    sliced(folder / "other.ogg", 9, 0.0, 2.5)
    found = audited(labelled, folder)
    assert found.dropped == ("audio", "", "audio", "")
    assert found.rows == (1, 3)
    assert [(each.file, each.of, each.side) for each in found.shared] == [
        ("of-test.ogg", "3.wav", "test"),
        ("of-validation.ogg", "2.wav", "validation"),
    ]
    assert found.shared[0].offset_s == pytest.approx(2.0, abs=0.01)
    assert found.to_dict()["dropped"] == {"audio": 2}


def test_all_clips_of_a_recording_are_dropped_with_the_one_that_is_shared(labelled: ClipIndex, folder: Path) -> None:
    long = np.concatenate([sound(7, 7.0), sound(4), sound(8, 7.0)])
    soundfile.write(folder / "long.flac", long, RATE)
    sliced(folder / "other.ogg", 9, 0.0, 2.5)
    found = audited(labelled, folder)
    assert found.dropped == ("audio",) * 7 + ("",)
    assert [each.side for each in found.shared] == ["test"]


def test_a_named_source_is_dropped_whether_its_audio_overlaps_or_not(labelled: ClipIndex, folder: Path) -> None:
    sliced(folder / "before.ogg", 3, 0.0, 0.9)
    sliced(folder / "train.ogg", 0, 0.0, 0.9)
    (folder / "groups.csv").write_text("path,group\nbefore.ogg,source 3\ntrain.ogg,source 0\n")
    found = audited(labelled, folder)
    assert found.dropped == ("group", "")
    assert [(each.why, each.group, each.of, each.side) for each in found.shared] == [
        ("group", "source 3", "3.wav", "test")
    ]


def test_with_near_duplicates_off_groups_alone_decide(labelled: ClipIndex, folder: Path) -> None:
    sliced(folder / "of-test.ogg", 3, 3.0, 5.5)
    assert audited(labelled, folder, near_duplicates="off").dropped == ("",)


def test_silence_is_dropped_and_with_nothing_left_the_run_ends(labelled: ClipIndex, folder: Path) -> None:
    soundfile.write(folder / "silence.wav", np.zeros(3 * RATE), RATE)
    sliced(folder / "other.ogg", 9, 0.0, 2.5)
    assert audited(labelled, folder).dropped == ("", "silence")
    (folder / "other.ogg").unlink()
    with pytest.raises(InputError, match=r"more: every clip is left out \(silence 1\)\. Pass other"):
        audited(labelled, folder)


def test_street_sounds_cut_from_the_recordings_of_esc10_are_found(shared: Path, esc10: Path) -> None:
    """17 files share a Freesound number with an ESC-10 clip. An exhaustive search over all offsets finds audio in
    common in nine of them (in phase by 0.54 and more; the other eight by 0.13 at most, slices from elsewhere)."""
    from edgekd.data.load import load_index

    folder = shared / "data" / "unlabelled"
    if not folder.is_dir():
        pytest.skip("needs the audio without labels in ../shared")
    config = DataConfig(data_dir=esc10, unlabelled=(folder,), sample_rate=16_000)
    with open(folder / "ATTRIBUTION.csv", newline="") as file:
        numbers = {line["file"]: line["freesound_id"] for line in csv.DictReader(file)}
    index, unlabelled = load_index(config), load_unlabelled(config)
    sources = {clip.group for clip in index}
    assert sum(number in sources for number in numbers.values()) == 17
    everything = Split(train=(), validation=(), test=tuple(range(len(index))))
    stores = open_store(unlabelled, config), open_store(index, config)
    found = audit_unlabelled(unlabelled, stores[0], index, everything, stores[1], config)
    dropped = {clip.path.name for clip, why in zip(unlabelled, found.dropped, strict=True) if why}
    assert dropped == {f"clip-{n:04d}.ogg" for n in (42, 125, 561, 624, 1008, 1425, 1448, 1523, 2087)}
    assert all(numbers[name] in sources for name in dropped)

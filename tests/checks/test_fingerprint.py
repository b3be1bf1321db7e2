from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import ndimage, signal

from edgekd.audio.read import resample
from edgekd.checks import fingerprint
from edgekd.checks import landmarks as marks
from edgekd.checks.fingerprint import Match, correlate, near_duplicates
from edgekd.checks.landmarks import RATE, described, landmarks, levels, rows_of
from edgekd.config import DataConfig
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import Clip, ClipIndex
from edgekd.progress import silent

Sound = NDArray[np.float32]
SECONDS = 3.0


def engine(seed: int, seconds: float = SECONDS, rate: int = RATE) -> Sound:
    """Noise of a machine: its own noise, of the same spectrum as any other's, on the lines that all share."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    noise = signal.lfilter([1], [1, -0.9], rng.standard_normal(len(time)))
    lines = sum(np.sin(2 * np.pi * 50 * order * time + rng.uniform(0, 7)) for order in range(1, 7))
    return (0.05 * (noise + 2 * lines)).astype(np.float32)


def stored(folder: Path, sounds: list[Sound], rate: int = RATE) -> ClipStore:
    """A store of a file a sound."""
    folder.mkdir()
    clips = []
    for number, sound in enumerate(sounds):
        path = folder / f"{number:03d}.wav"
        soundfile.write(path, sound, rate, subtype="FLOAT")
        clips.append(Clip(path, 0, str(number), None, 0, len(sound)))
    index = ClipIndex("sounds", folder, ("one",), tuple(clips))
    return open_store(index, DataConfig(sample_rate=rate, clip_seconds=SECONDS, padding="zeros"))


def found(store: ClipStore) -> tuple[Match, ...]:
    """Near-duplicates where every clip is a group of its own."""
    return near_duplicates(store, [str(row) for row in range(len(store))])


def codec(sound: Sound, kind: str) -> Sound:
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format=kind)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def noisy(sound: Sound) -> Sound:
    noise = np.random.default_rng(99).standard_normal(len(sound)) * np.sqrt(np.mean(sound**2)) / 10
    return (sound + noise).astype(np.float32)


COPIES: dict[str, tuple[Callable[[Sound], Sound], float]] = {  # what was done, and where the original begins then
    "12 dB down": (lambda sound: sound * 10 ** (-12 / 20), 0.0),
    "the other polarity": (lambda sound: -sound, 0.0),
    "ogg": (lambda sound: codec(sound, "OGG"), 0.0),
    "mp3": (lambda sound: codec(sound, "MP3"), 0.0),
    "0.37 s later": (lambda sound: sound[round(0.37 * RATE) :], -0.37),
    "half a hop later": (lambda sound: sound[64:], -0.008),
    "half of it": (lambda sound: sound[len(sound) // 2 :], -SECONDS / 2),
    "noise at 20 dB": (noisy, 0.0),
    "another rate": (lambda sound: resample(resample(sound, RATE, 11_025), 11_025, RATE), 0.0),
    "all of it": (lambda sound: codec(noisy(sound[round(0.37 * RATE) :] * 0.25), "OGG"), -0.37),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found_whatever_was_done_to_it(tmp_path: Path, copy: str) -> None:
    change, offset = COPIES[copy]
    sounds = [engine(seed) for seed in range(4)]
    (match,) = found(stored(tmp_path / "sounds", [*sounds, change(sounds[2])]))
    assert match.rows == (2, 4)
    assert match.offset_s == pytest.approx(offset, abs=2e-3)
    assert match.correlation > 0.5


def test_machines_on_one_mains_are_not_copies_of_each_other(tmp_path: Path) -> None:
    assert found(stored(tmp_path / "sounds", [engine(seed) for seed in range(30)])) == ()


def test_a_click_at_the_same_time_makes_no_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sounds = []
    for _ in range(12):
        sound = 1e-3 * rng.standard_normal(round(SECONDS * RATE))
        sound[8437] += 1
        sounds.append(sound.astype(np.float32))
    assert found(stored(tmp_path / "sounds", sounds)) == ()
    assert correlate(sounds[0], sounds[1], 0)[1] < 0.25


def test_silence_is_no_copy_of_silence(tmp_path: Path) -> None:
    silence = np.zeros(round(SECONDS * RATE), np.float32)
    store = stored(tmp_path / "sounds", [silence, silence, engine(1)])
    assert found(store) == ()
    assert levels(store).tolist()[:2] == [-np.inf, -np.inf]


def test_a_copy_too_plain_for_landmarks_is_found_by_its_samples(tmp_path: Path) -> None:
    click = np.zeros(round(SECONDS * RATE), np.float32)
    click[5000] = 1
    assert len(landmarks(click)[0]) < 4
    (match,) = found(stored(tmp_path / "sounds", [click, engine(1), click / 2]))
    assert (match.rows, match.offset_s, match.correlation) == ((0, 2), 0.0, 1.0)


def test_clips_of_one_group_are_not_compared(tmp_path: Path) -> None:
    sound = engine(1)
    store = stored(tmp_path / "sounds", [sound, sound, engine(2)])
    assert near_duplicates(store, ["a", "a", "b"]) == ()
    assert [match.rows for match in near_duplicates(store, ["a", "b", "b"])] == [(0, 1)]


def test_overlapping_windows_of_one_recording_are_one_match_of_two_groups(tmp_path: Path) -> None:
    recording, window = engine(1, seconds=9.0), round(SECONDS * RATE)
    cut = [recording[start : start + window] for start in range(0, len(recording) - window + 1, window // 2)]
    store = stored(tmp_path / "sounds", [*cut, engine(2)])
    (match,) = near_duplicates(store, [*("even" if row % 2 == 0 else "odd" for row in range(len(cut))), "other"])
    assert match.clips == len(cut) - 1
    assert abs(match.offset_s) == pytest.approx(SECONDS / 2, abs=2e-3)


def test_more_copies_than_a_landmark_has_votes_are_all_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_NEIGHBOURS", 2)
    sound = engine(1)
    matches = found(stored(tmp_path / "sounds", [sound * (1 + row / 10) for row in range(6)]))
    assert {(row, row + 1) for row in range(5)} <= {match.rows for match in matches}


def test_counting_in_small_blocks_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [engine(seed) for seed in range(6)]
    store = stored(tmp_path / "sounds", [*sounds, *(sound[4000:] for sound in sounds)])
    whole = found(store)
    assert [match.rows for match in whole] == [(row, row + 6) for row in range(6)]
    for kept in store.folder.glob("duplicates-*"):
        kept.unlink()
    monkeypatch.setattr(fingerprint, "_PAIRS_A_BLOCK", 50)
    assert found(store) == whole


def test_what_is_known_is_kept_beside_the_clips_whatever_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = engine(1)
    store = stored(tmp_path / "sounds", [sound, sound[900:], engine(2)])
    first, loudness = found(store), levels(store)

    def again(_waveform: Sound) -> None:
        raise AssertionError("fingerprinted twice")

    monkeypatch.setattr(marks, "landmarks", again)
    assert found(store) == first
    assert near_duplicates(store, ["a", "b", "b"]) == first
    np.testing.assert_array_equal(levels(store), loudness)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-100], lambda data: data[::-1]])
@pytest.mark.parametrize("name", ["fingerprints.npz", "landmarks.u64"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: Callable[[bytes], bytes], name: str) -> None:
    sound = engine(1)
    store = stored(tmp_path / "sounds", [sound, sound[900:], engine(2)])
    first = found(store)
    for kept in [*store.folder.glob("duplicates-*"), store.folder / name]:
        kept.write_bytes(damage(kept.read_bytes()))
    assert found(store) == first


def test_level_is_the_rms_of_the_recording(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * RATE)) / RATE).astype(np.float32)
    store = stored(tmp_path / "sounds", [tone / 10, tone / 1000])
    np.testing.assert_allclose(levels(store), [-23.01, -63.01], atol=0.01)


def test_the_lag_is_where_scipy_finds_it() -> None:
    sound = engine(5)
    first, second = sound[2000:20_000], sound[:18_000]
    expected = int(signal.correlate(second, first).argmax()) - (len(first) - 1)
    assert expected == 2000
    assert correlate(first, second, 2000 + 150) == (2000, pytest.approx(1, abs=0.02))


def test_peaks_are_those_of_a_maximum_filter() -> None:
    values = np.random.default_rng(0).standard_normal((50, 37)).astype(np.float32)
    for reach in (1, 4, 8, 10):
        expected = ndimage.maximum_filter(values, size=(1, 2 * reach + 1), mode="constant", cval=-np.inf)
        np.testing.assert_array_equal(marks._running_max(values, reach), expected)


def test_clips_too_short_to_compare_are_not_compared() -> None:
    assert len(landmarks(engine(1)[:200])[0]) == 0
    assert correlate(engine(1)[:900], engine(1)[:900], 0) == (0, 0.0)


TIME = np.arange(8000) / RATE
STEADY = (0.1 * np.sin(2 * np.pi * 1000 * TIME) + 0.1 * np.sin(2 * np.pi * 2000 * TIME)).astype(np.float32)


@pytest.mark.parametrize("sound", [np.zeros(8000, np.float32), np.full(8000, 0.5, np.float32), STEADY])
def test_what_does_not_change_has_no_landmarks(sound: Sound) -> None:
    assert len(landmarks(sound)[0]) == 0


def test_landmarks_stay_in_a_file_and_only_a_few_numbers_a_clip_are_read(tmp_path: Path) -> None:
    store = stored(tmp_path / "sounds", [engine(seed) for seed in range(8)])
    for _ in range(2):  # made, then found
        known = described(store, silent)
        assert isinstance(known.landmarks, np.memmap)
        assert len(known.landmarks) == known.counts.sum() > 50 * len(store)
        assert sum(numbers.nbytes for numbers in known[:-1]) == 28 * len(store)
    first, count = known.first[3], known.counts[3]
    assert set(rows_of(known.landmarks[first : first + count]).tolist()) == {3}

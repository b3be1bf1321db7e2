"""Simulated recordings: their ratio of signal to noise, what is in the folder, and how hard the classes are."""

from __future__ import annotations

import csv
import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal, stats

from edgekd.config import SimulationConfig
from edgekd.data.simulation import sonar
from edgekd.data.simulation.sonar import CLASSES, Vessel
from edgekd.errors import InputError

RATE = 8000


def a_vessel(class_name: str, seed: int = 0, **traits: object) -> Vessel:
    return replace(sonar.vessel(class_name, np.random.default_rng(seed)), **traits)


@pytest.mark.parametrize("snr_db", [-9.0, 0.0, 12.0])
@pytest.mark.parametrize("rate", [RATE, 32_000])
def test_signal_to_noise_ratio_is_the_one_stated(snr_db: float, rate: int):
    ship = a_vessel("passengership", 4)
    scene = sonar.scene(ship, (snr_db, snr_db), 16.0, np.random.default_rng(5))
    noise = sonar.render(None, scene, rate, 16.0, np.random.default_rng(6)).astype(np.float64)
    passing = sonar.render(ship, scene, rate, 16.0, np.random.default_rng(6)) - noise
    band = signal.butter(8, (1000, min(4000, 0.45 * rate)), "band", fs=rate, output="sos")
    middle = slice(6 * rate, 10 * rate)
    ratio = np.mean(signal.sosfilt(band, passing)[middle] ** 2) / np.mean(signal.sosfilt(band, noise)[middle] ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.7)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def small(**changes: object) -> SimulationConfig:
    return SimulationConfig(**{"vessels_per_class": 5, "windows_per_vessel": 2} | changes)


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path: Path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        sonar.simulate(tmp_path / name, small(seed=seed), 4000, 0.5)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_vessel_does_not_depend_on_how_many_others_there_are(tmp_path: Path):
    sonar.simulate(tmp_path / "few", small(), 4000, 0.5)
    sonar.simulate(tmp_path / "many", small(vessels_per_class=7), 4000, 0.5)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    recordings = [name for name in few if name.endswith(".wav")]
    assert len(recordings) == 25
    assert all(few[name] == many[name] for name in recordings)


@pytest.mark.parametrize(("rate", "clip_seconds"), [(2000, 0.5), (22_050, 1.0), (32_000, 0.7)])
def test_recordings_are_whole_and_the_truth_lies_beside_them(tmp_path: Path, rate: int, clip_seconds: float):
    seen: list[tuple[int, int]] = []
    sonar.simulate(
        tmp_path / "sim",
        small(),
        rate,
        clip_seconds,
        lambda stage, done, total, /, **figures: seen.append((done, total)),
    )
    assert seen == [(done, 25) for done in range(1, 26)]
    with open(tmp_path / "sim" / "recordings.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [name for name in CLASSES for _ in range(5)]
    for row in rows:
        info = soundfile.info(str(tmp_path / "sim" / row["file"]))
        assert (info.samplerate, info.channels, info.subtype) == (rate, 1, "PCM_16")
        assert info.frames == round(2 * clip_seconds * rate)
        if row["class"] == "background":
            assert row["shaft_hz"] == row["snr_db"] == row["range_m"] == ""
        else:
            assert -12 <= float(row["snr_db"]) <= 8 and float(row["range_m"]) > 0 and float(row["shaft_hz"]) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["sim"]


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "sim").mkdir()
    with pytest.raises(InputError, match="already exists"):
        sonar.simulate(tmp_path / "sim", small(), 4000, 0.5)
    assert not list((tmp_path / "sim").iterdir())


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        sonar.simulate(tmp_path / "sim", small(), 4000, 0.5)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips `(N, samples)`, labels and vessel numbers of a small data set: 12 vessels a class, 2 windows of 2 s."""
    folder = tmp_path_factory.mktemp("corpus") / "sim"
    sonar.simulate(folder, small(vessels_per_class=12, seed=1), RATE, 2.0)
    clips, labels, vessels = [], [], []
    for label, name in enumerate(CLASSES):
        for vessel, path in enumerate(sorted((folder / name).glob("*.wav"))):
            recording = soundfile.read(path)[0]
            clips += [recording[: 2 * RATE], recording[2 * RATE :]]
            labels += [label, label]
            vessels += [vessel, vessel]
    return np.array(clips), np.array(labels), np.array(vessels)


def nearest_centroid(features: np.ndarray, labels: np.ndarray, vessels: np.ndarray) -> float:
    """Accuracy of the nearest class mean, standardised, leaving out one vessel of each class at a time."""
    right = 0
    for held_out in np.unique(vessels):
        train, test = vessels != held_out, vessels == held_out
        scaled = (features - features[train].mean(0)) / features[train].std(0)
        centres = np.array([scaled[train & (labels == label)].mean(0) for label in range(len(CLASSES))])
        distance = ((scaled[test][:, None] - centres) ** 2).sum(-1)
        right += int((distance.argmin(1) == labels[test]).sum())
    return right / len(labels)


def test_level_alone_tells_no_class(corpus: tuple[np.ndarray, np.ndarray, np.ndarray]):
    clips, labels, vessels = corpus
    level = 10 * np.log10(np.mean(clips**2, axis=1))
    assert nearest_centroid(level[:, None], labels, vessels) < 0.4
    groups = [level[(labels == label)][::2] for label in range(len(CLASSES))]
    assert stats.kruskal(*groups).pvalue > 0.01


def test_classes_can_be_learned_but_not_easily(corpus: tuple[np.ndarray, np.ndarray, np.ndarray]):
    clips, labels, vessels = corpus
    _, _, spectrogram = signal.stft(clips, RATE, nperseg=256, noverlap=192)
    bands = np.stack([band.mean(1) for band in np.array_split(np.abs(spectrogram[:, 2:]) ** 2, 16, axis=1)], axis=1)
    log_power = 10 * np.log10(bands + 1e-12)
    texture = np.concatenate([log_power.std(-1), np.abs(np.diff(log_power, axis=-1)).mean(-1)], axis=1)
    accuracy = nearest_centroid(texture, labels, vessels)
    assert 0.3 < accuracy < 0.85, accuracy

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.audio.read import probe, tolerant
from edgekd.checks.inspection import Inspection, _examine, inspect_data
from edgekd.config import DataConfig
from edgekd.data.index import Clip
from edgekd.errors import InputError

RATE = 8_000


def noise(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def inspected(root: Path, clip_seconds: float = 1.0) -> Inspection:
    inspection, index = inspect_data(DataConfig(dataset="folder", data_dir=root, clip_seconds=clip_seconds))
    assert (index.dataset, index.root) == (inspection.dataset, Path(inspection.root)) == ("folder", root)
    return inspection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class 'a' of three files of a second, class 'b' of one of two."""
    for name, seconds in (("a/0", 1), ("a/1", 1), ("a/2", 1), ("b/0", 2)):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise(sum(map(ord, name)), seconds), RATE)
    return tmp_path


def test_clips_groups_hours_and_balance_are_counted(root: Path) -> None:
    found = inspected(root)
    assert (found.clips, found.groups, found.files) == (5, 4, 4)
    assert found.hours == pytest.approx(5 / 3600)
    assert (found.rates, found.channels, found.formats) == ({RATE: 4}, {1: 4}, {"wav PCM_16": 4})
    a, b = found.classes
    assert (a.name, a.clips, a.groups, a.minutes) == ("a", 3, 3, 0.05)
    assert (b.clips, b.groups) == (2, 1)
    assert found.imbalance == pytest.approx(0.05 / b.minutes)
    assert a.level_db == pytest.approx(-20, abs=0.3)
    assert (found.silent, found.quiet, found.clipped, found.duplicates, found.unreadable) == ((), 0, {}, (), {})


def test_rates_channels_and_formats_are_told_apart(root: Path) -> None:
    soundfile.write(root / "a" / "3.flac", np.stack([noise(7, rate=44_100)] * 2, 1), 44_100, subtype="PCM_24")
    found = inspected(root)
    assert found.rates == {RATE: 4, 44_100: 1}
    assert found.channels == {1: 4, 2: 1}
    assert found.formats == {"flac PCM_24": 1, "wav PCM_16": 4}


def test_the_same_samples_are_duplicates_under_any_name_and_format(root: Path) -> None:
    sound, rate = soundfile.read(root / "a" / "0.wav", dtype="int16")
    soundfile.write(root / "b" / "copy.flac", sound, rate)
    (pair,) = inspected(root).duplicates
    assert pair.files == ("a/0.wav", "b/copy.flac")
    assert pair.labels_differ
    assert pair.classes == ("a", "b")
    soundfile.write(root / "b" / "copy.flac", sound, 2 * rate)
    assert inspected(root).duplicates == (), "at another rate it is another sound"


def test_silence_is_told_from_quiet_and_is_no_duplicate(root: Path) -> None:
    for name in ("none", "none2"):
        soundfile.write(root / "a" / f"{name}.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "a" / "quiet.wav", noise(1) * 3e-3, RATE, subtype="PCM_24")
    found = inspected(root)
    assert found.silent == ("a/none.wav", "a/none2.wav")
    assert (found.quiet, found.duplicates) == (1, ())


def test_clipping_is_the_share_of_samples_at_full_scale(root: Path) -> None:
    loud = noise(1)
    loud[:400], loud[400:800] = 1, -1
    soundfile.write(root / "a" / "loud.wav", loud, RATE)
    one_peak = noise(2)
    one_peak[7] = 1
    soundfile.write(root / "a" / "peak.wav", one_peak, RATE)
    found = inspected(root)
    assert found.clipped == {"a/loud.wav": 0.1}
    assert found.clipped_share == pytest.approx(801 / (7 * RATE))


def test_broken_files_are_findings(root: Path) -> None:
    (root / "a" / "empty.wav").touch()
    (root / "a" / "text.wav").write_text("not audio")
    whole = (root / "a" / "0.wav").read_bytes()
    (root / "a" / "cut.wav").write_bytes(whole[:5000])
    soundfile.write(root / "a" / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    found = inspected(root)
    assert set(found.unreadable) == {"a/empty.wav", "a/text.wav", "a/cut.wav", "a/nan.wav"}
    assert "truncated" in found.unreadable["a/cut.wav"]
    assert "NaN" in found.unreadable["a/nan.wav"]
    assert not any("wav: " in why for why in found.unreadable.values()), "the name is said once"
    assert (found.files, found.clips, found.classes[0].clips) == (4, 5, 3)


def test_nothing_readable_is_an_error(root: Path) -> None:
    for path in root.rglob("*.wav"):
        path.write_text("not audio")
    with pytest.raises(InputError, match="none of 4 files can be read"):
        inspected(root)


def test_a_class_that_cannot_be_read_has_no_balance(root: Path) -> None:
    (root / "b" / "0.wav").write_text("not audio")
    found = inspected(root)
    assert found.imbalance is None
    assert (found.classes[1].clips, found.classes[1].level_db, found.classes[1].example) == (0, None, None)


def test_a_file_is_read_a_block_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inspected(root, clip_seconds=0.3)
    monkeypatch.setattr("edgekd.audio.recording.BLOCK", 1000)
    blocks = inspected(root, clip_seconds=0.3)
    assert blocks.to_dict() == whole.to_dict()


def test_levels_are_those_of_each_clip(root: Path) -> None:
    sound = np.concatenate([noise(1), noise(2) / 50])
    soundfile.write(root / "b" / "0.wav", sound, RATE, subtype="FLOAT")
    assert inspected(root).quiet == 0
    soundfile.write(root / "b" / "0.wav", sound / 20, RATE, subtype="FLOAT")
    assert inspected(root).quiet == 1


def test_the_example_of_a_class_is_of_middle_level(root: Path) -> None:
    for number, gain in enumerate((1e-3, 1, 1e-2)):
        soundfile.write(root / "a" / f"{number}.wav", noise(number) * gain, RATE, subtype="FLOAT")
    assert inspected(root).classes[0].example == 2


def test_only_within_its_block_are_broken_files_tolerated(root: Path) -> None:
    broken = root / "a" / "0.wav"
    broken.write_text("not audio")
    with tolerant() as unreadable:
        assert probe(broken).frames > 0
    assert list(unreadable) == [broken]
    with pytest.raises(InputError):
        probe(broken)


def test_an_inspection_is_written_as_json(root: Path) -> None:
    sound, rate = soundfile.read(root / "a" / "0.wav")
    soundfile.write(root / "b" / "copy.wav", sound, rate)
    values = json.loads(json.dumps(inspected(root).to_dict(), allow_nan=False))
    assert values["duplicates"][0]["labels_differ"] is True
    assert values["rates"] == {str(RATE): 5}


def test_windows_in_any_order_that_overlap_each_have_their_own_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.audio.recording.BLOCK", 300)
    samples = noise(1, 2.0).astype(np.float32)
    path = tmp_path / "one.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    cuts = [(900, 5000), (0, 400), (250, 100), (0, len(samples)), (7000, 1000), (299, 2)]
    clips = [Clip(path, 0, "one", None, start, length) for start, length in cuts]
    power = [heard.power for heard in _examine(path, clips, DataConfig()).clips]
    np.testing.assert_allclose(power, [np.mean(samples[start : start + length] ** 2) for start, length in cuts], 1e-5)

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edgekd.checks.audit import Audit, audit, audit_data, check_audit, refuse, rule
from edgekd.config import DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.index import Clip, ClipIndex, Split
from edgekd.errors import GateError

RATE = 8_000
CONFIG = DataConfig(sample_rate=RATE, clip_seconds=1.0)
Sound = NDArray[np.float64]


def noise(seed: int, rate: int = RATE) -> Sound:
    return 0.1 * np.random.default_rng(seed).standard_normal(rate)


def dataset(folder: Path, sounds: list[Sound], rates: list[int] | None = None, fold: int | None = None) -> ClipIndex:
    """A file a sound, each its own group; classes 'a' and 'b' in turns."""
    folder.mkdir(exist_ok=True)
    clips = []
    for number, sound in enumerate(sounds):
        path, rate = folder / f"{number:02d}.wav", RATE if rates is None else rates[number]
        soundfile.write(path, sound, rate)
        clips.append(Clip(path, number % 2, f"group{number}", fold, 0, len(sound)))
    return ClipIndex("sounds", folder, ("a", "b"), tuple(clips))


def audited(index: ClipIndex, split: Split, config: DataConfig = CONFIG) -> Audit:
    return audit(index, split, open_store(index, config), config)


def in_thirds(count: int) -> Split:
    rows = tuple(range(count))
    return Split(rows[: count // 3], rows[count // 3 : 2 * count // 3], rows[2 * count // 3 :])


def test_distinct_recordings_leave_nothing_to_say(tmp_path: Path) -> None:
    found = audited(dataset(tmp_path / "data", [noise(seed) for seed in range(12)]), in_thirds(12))
    assert (found.leaks, found.warnings) == ((), ())
    assert found.clips == {"train": 4, "validation": 4, "test": 4}
    assert (found.groups, found.searched) == (12, True)


def test_a_group_on_two_sides_leaks(tmp_path: Path) -> None:
    index = dataset(tmp_path / "data", [noise(seed) for seed in range(6)])
    clips = [Clip(**{**vars(clip), "group": "ship"}) if row in (0, 5) else clip for row, clip in enumerate(index)]
    index = ClipIndex(index.dataset, index.root, index.classes, tuple(clips))
    (leak,) = audited(index, in_thirds(6)).leaks
    assert leak.message == "group 'ship' is on train (1 clips) and test (1 clips)."
    for allowed in (None, "warn", "off"):
        config = CONFIG.model_copy(update={"near_duplicates": allowed})
        with pytest.raises(GateError, match="group 'ship' is on train"):
            check_audit(audited(index, in_thirds(6), config), index, config)


@pytest.fixture
def leaking(tmp_path: Path) -> ClipIndex:
    """Clip 4 is clip 0, quieter and under another label."""
    sounds = [noise(seed) for seed in range(6)]
    sounds[5] = sounds[0] / 3
    return dataset(tmp_path / "data", sounds)


def test_audio_on_two_sides_is_refused_by_name(leaking: ClipIndex) -> None:
    found = audited(leaking, in_thirds(6))
    (leak,) = found.leaks
    assert (leak.about["files"], leak.about["sides"]) == (["00.wav", "05.wav"], ["train", "test"])
    with pytest.raises(GateError) as refused:
        check_audit(found, leaking, CONFIG)
    for words in ("00.wav (train) and 05.wav (test)", "labelled 'a' and 'b'", "groups.csv", "near_duplicates=warn"):
        assert words in str(refused.value)


def test_audio_on_one_side_is_a_warning(leaking: ClipIndex) -> None:
    found = audited(leaking, Split((0, 5, 1), (2, 3), (4,)))
    assert found.leaks == ()
    assert "00.wav and 05.wav (both train) hold the same audio" in found.warnings[0].message
    assert check_audit(found, leaking, CONFIG) == ()


def test_what_is_done_about_shared_audio_can_be_chosen(leaking: ClipIndex) -> None:
    warned = CONFIG.model_copy(update={"near_duplicates": "warn"})
    found = audited(leaking, in_thirds(6), warned)
    assert found.leaks == ()
    (line,) = check_audit(found, leaking, warned)
    assert line.startswith("the split leaks: 00.wav (train) and 05.wav (test)")

    off = CONFIG.model_copy(update={"near_duplicates": "off"})
    unsearched = audited(leaking, in_thirds(6), off)
    assert (unsearched.leaks, unsearched.searched) == ((), False)
    assert check_audit(unsearched, leaking, off) == ()


def test_a_published_split_is_warned_of_and_our_own_refused(tmp_path: Path) -> None:
    sounds = [noise(seed) for seed in range(6)]
    sounds[5] = sounds[0][40:]
    index = dataset(tmp_path / "data", sounds, fold=1)
    found = audited(index, in_thirds(6))
    assert len(found.leaks) == 1
    (line,) = check_audit(found, index, CONFIG)
    assert "00.wav (train) and 05.wav (test)" in line
    assert refuse(found, index, CONFIG), "and the command ends with 0"
    ours = CONFIG.model_copy(update={"given_split": False})
    assert (rule(index, CONFIG), rule(index, ours)) == ("warn", "refuse")
    for refusal in (check_audit, refuse):
        with pytest.raises(GateError):
            refusal(found, index, ours)


def test_the_same_samples_under_two_labels_come_first_on_whichever_side(tmp_path: Path) -> None:
    sounds = [noise(seed) for seed in range(6)]
    sounds[5] = sounds[0]
    index = dataset(tmp_path / "data", sounds)
    samples, _ = soundfile.read(tmp_path / "data" / "05.wav", dtype="int16")
    soundfile.write(tmp_path / "data" / "05.flac", samples, RATE)  # the same, packed otherwise
    clips = (*index.clips[:5], replace(index.clips[5], path=tmp_path / "data" / "05.flac"))
    index = replace(index, clips=clips)
    said = "00.wav ('a') and 05.flac ('b') hold the same samples: one label is wrong."
    for split in (in_thirds(6), Split((0, 5, 1), (2, 3), (4,))):
        found = audited(index, split)
        (finding,) = found.contradictions
        assert (finding.kind, finding.message) == ("two labels", said)
        assert finding.about == {"files": ["00.wav", "05.flac"], "classes": ["a", "b"], "clips": 1}
        with pytest.raises(GateError, match=r"audio has two labels: .* Take out the one with the wrong label, or"):
            check_audit(found, index, CONFIG)
        with pytest.raises(GateError, match=r"audio has two labels in 1 place\(s\)"):
            refuse(found, index, CONFIG)
    warned = CONFIG.model_copy(update={"near_duplicates": "warn"})
    assert check_audit(audited(index, split, warned), index, warned) == (f"audio has two labels: {said}",)
    off = CONFIG.model_copy(update={"near_duplicates": "off"})
    assert audited(index, split, off).contradictions == ()


def test_audio_that_is_alike_under_two_labels_comes_before_that_under_one(tmp_path: Path) -> None:
    sounds = [noise(seed) for seed in range(8)]
    sounds[2], sounds[7] = sounds[0][30:], sounds[4][30:]
    found = audited(dataset(tmp_path / "data", sounds), Split(tuple(range(8)), (), ()))
    assert [each.about["files"] for each in found.warnings] == [["04.wav", "07.wav"], ["00.wav", "02.wav"]]


def test_windows_are_named_by_where_they_begin(tmp_path: Path) -> None:
    long = np.concatenate([noise(1), noise(2), noise(3)])
    index = dataset(tmp_path / "data", [long, noise(2), noise(9)])
    first = index.clips[0]
    clips = (Clip(first.path, 0, "long", None, RATE, RATE), *index.clips[1:])
    found = audited(ClipIndex("sounds", index.root, index.classes, clips), Split((0,), (2,), (1,)))
    assert found.leaks[0].message.startswith("00.wav at 1 s (train) and 01.wav (test) hold the same audio")


def test_silence_is_a_warning_and_no_leak(tmp_path: Path) -> None:
    sounds = [noise(seed) for seed in range(6)]
    sounds[0] = sounds[5] = np.zeros(RATE)
    found = audited(dataset(tmp_path / "data", sounds), in_thirds(6))
    assert found.leaks == ()
    assert found.warnings[0].message == "2 clips are silent (digital silence, or one value throughout): 00.wav, ..."


def test_a_class_with_a_rate_of_its_own_is_told_by_it(tmp_path: Path) -> None:
    rates = [16_000 if number % 2 else RATE for number in range(20)]
    index = dataset(tmp_path / "data", [noise(seed, rate) for seed, rate in enumerate(rates)], rates)
    found = audited(index, in_thirds(20))
    (rate,) = [each for each in found.attributes if each.name == "sample rate"]
    assert rate.confounded
    assert (rate.share, rate.chance) == (1.0, 0.5)
    assert rate.cramers_v > 0.9
    (warning,) = [each for each in found.warnings if each.about["attribute"] == "sample rate"]
    assert "8000 Hz in 100% of 'a', in 0% of the rest" in warning.message
    assert warning.message.endswith("At data.sample_rate = 8000 all have the same band.")
    assert found.leaks == ()


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((48_000, 11_025), "The lowest rate makes their bands alike: --sample-rate 11025."),
        ((48_000, 1_000), "Nothing makes their bands alike: 1000 Hz is below the 2000 Hz that --sample-rate can be."),
    ],
)
def test_a_rate_that_tells_the_class_comes_with_the_flag_to_paste(
    tmp_path: Path, rates: tuple[int, int], words: str
) -> None:
    of_files = [rates[number % 2] for number in range(12)]
    index = dataset(tmp_path / "data", [noise(seed, rate) for seed, rate in enumerate(of_files)], of_files)
    messages = [each.message for each in audited(index, in_thirds(12), DataConfig(clip_seconds=1.0)).warnings]
    assert [message.endswith(words) for message in messages if "sample rate" in message] == [True]


def test_a_louder_class_is_told_by_its_level_but_not_by_windows_of_one_recording(tmp_path: Path) -> None:
    loud = [noise(seed) * (1 if seed % 2 else 0.05) for seed in range(24)]
    found = audited(dataset(tmp_path / "data", loud), in_thirds(24))
    assert [each.about["attribute"] for each in found.warnings] == ["level"]

    index = dataset(tmp_path / "data", loud)
    groups = tuple(Clip(**{**vars(clip), "group": f"recording{clip.label}"}) for clip in index)
    found = audited(ClipIndex("sounds", index.root, index.classes, groups), in_thirds(24))
    assert not any(each.kind == "confounded" for each in found.warnings), "two recordings tell nothing"


def test_clips_without_a_label_tell_nothing_of_the_classes(tmp_path: Path) -> None:
    sounds = [noise(seed) * (0.1 if seed in (1, 3) else 1) for seed in range(6)]
    sounds[3] = sounds[1]  # on one side
    index = dataset(tmp_path / "data", sounds)
    split = Split((1, 3, 4, 5), (0,), (2,))
    for unlabelled in ((3,), range(6)):
        clips = [replace(clip, label=-1) if row in unlabelled else clip for row, clip in enumerate(index)]
        found = audited(ClipIndex(index.dataset, index.root, index.classes, tuple(clips)), split)
        (warning,) = found.warnings
        assert "01.wav and 03.wav (both train) hold the same audio (" in warning.message
        assert warning.about["classes"][1] is None
        assert bool(found.attributes) == (len(unlabelled) == 1)


def test_digital_silence_that_tells_the_class_is_named_with_what_takes_it_away(tmp_path: Path) -> None:
    sounds = [noise(seed) for seed in range(24)]
    for number, sound in enumerate(sounds):
        if number % 2 and number < 20:  # ten of class b
            sound[-400 - 100 * number :] = 0
    index = dataset(tmp_path / "data", sounds)
    found = audited(index, in_thirds(24))
    (warning,) = (each for each in found.warnings if each.about.get("attribute") == "digital silence at the end")
    assert "0.00 s in 100% of 'a', in 17% of the rest. It alone tells the class of 92%" in warning.message
    assert warning.message.endswith("Leave it out: --set data.trim_silence=true.")
    trimmed = audited(index, in_thirds(24), CONFIG.model_copy(update={"trim_silence": True}))
    assert not any("digital silence" in each.message for each in trimmed.warnings)
    assert "digital silence at the end" not in [each.name for each in trimmed.attributes]


def test_an_audit_is_written_as_json(leaking: ClipIndex) -> None:
    values = json.loads(json.dumps(audited(leaking, in_thirds(6)).to_dict(), allow_nan=False))
    assert values["leaks"][0]["about"]["files"] == ["00.wav", "05.wav"]
    names = {"clips", "groups", "searched", "leaks", "warnings", "attributes", "contradictions", "left_out", "notes"}
    assert set(values) == names


def test_a_data_set_is_loaded_split_and_audited_in_one_call(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "data" / ("a", "b")[number % 2] / f"{number:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(number), RATE)
    config = CONFIG.model_copy(update={"data_dir": tmp_path / "data"})
    found, index = audit_data(config)
    assert (index.dataset, len(index), found.groups, found.leaks) == ("folder", 12, 12, ())
    assert not refuse(found, index, config)
    for number in range(1, 6):
        soundfile.write(tmp_path / "data" / "a" / f"{2 * number:02d}.wav", noise(0)[100 * number :], RATE)
    found, index = audit_data(config)
    words = rf"data: the split leaks in {len(found.leaks)} place\(s\)\. Put both into one group"
    with pytest.raises(GateError, match=words):
        refuse(found, index, config)


def test_the_official_folds_of_esc10_share_one_crying_baby(esc10: Path) -> None:
    from edgekd.data.load import load_index

    config = DataConfig(dataset="esc10", data_dir=esc10, sample_rate=RATE, fold=3)
    whole = load_index(config)
    names = ("3-151080-A-20.ogg", "5-151085-A-20.ogg", "4-167077-A-20.ogg", "4-167077-B-20.ogg")
    index = ClipIndex("esc10", whole.root, whole.classes, tuple(clip for clip in whole if clip.path.name in names))
    folds = [clip.fold for clip in index]
    assert folds == [3, 4, 4, 5]
    found = audit(index, Split((3,), (1, 2), (0,)), open_store(index, config), config)
    (leak,) = found.leaks
    assert leak.about["files"] == ["audio/3-151080-A-20.ogg", "audio/5-151085-A-20.ogg"]
    assert leak.about["offset_s"] == pytest.approx(-0.649, abs=0.002)
    assert len(check_audit(found, index, config)) == 1

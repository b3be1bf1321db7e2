from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.layouts import urbansound8k
from edgekd.data.load import load_index
from edgekd.data.splits import make_split
from edgekd.errors import EdgekdError, GateError, InputError, UsageError

CONFIG = DataConfig()
HEADER = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
# What people uploaded: rate, channels, subtype, seconds.
FORMATS = [
    *((44_100, 2, "PCM_16", 4.0), (96_000, 2, "PCM_24", 0.5), (8_000, 1, "PCM_U8", 1.0), (48_000, 1, "FLOAT", 0.3)),
    *((8_000, 1, "MS_ADPCM", 0.5), (96_000, 1, "PCM_32", 0.05), (44_100, 6, "PCM_16", 0.2), (48_000, 2, "ULAW", 0.1)),
]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same tone in each of `FORMATS`."""
    folder = tmp_path_factory.mktemp("uploads")
    for number, (rate, channels, subtype, seconds) in enumerate(FORMATS):
        tone = 0.3 * np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * 440 / rate)
        soundfile.write(folder / f"{number}.wav", np.repeat(tone[:, None], channels, axis=1), rate, subtype=subtype)
    return sorted(folder.iterdir())


def record(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(100), 8_000, format="WAV")
    return path


def rows_of(audio: Path) -> list[list[object]]:
    """The lines of the table for the files in a folder of folds."""
    rows: list[list[object]] = []
    for path in sorted(audio.glob("fold*/[0-9]*.wav")):
        source, target, *_ = path.stem.split("-")
        name = urbansound8k.CLASSES[int(target)]
        rows.append([path.name, source, 0.5, 4.5, 1, path.parent.name.removeprefix("fold"), target, name])
    return rows


def write_table(table: Path, rows: list[list[object]], header: tuple[str, ...] = HEADER) -> Path:
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return table


@pytest.fixture
def root(tmp_path: Path, uploads: list[Path]) -> Path:
    """Ten folds with a recording of each of three classes, the dog's with two slices; no table."""
    formats = cycle(uploads)
    for fold in range(1, 11):
        folder = tmp_path / "audio" / f"fold{fold}"
        folder.mkdir(parents=True)
        for target, number in ((3, 0), (3, 1), (0, 0), (8, 0)):
            shutil.copy(next(formats), folder / f"{100 * fold + target}-{target}-0-{number}.wav")
    (tmp_path / "audio" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "audio" / "fold1" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "audio" / "fold1" / "._101-8-0-0.wav").write_bytes(b"\0")
    (tmp_path / "UrbanSound8K_README.txt").write_text("read me")
    return tmp_path


@pytest.fixture
def table(root: Path) -> Path:
    return write_table(root / "metadata" / "UrbanSound8K.csv", rows_of(root / "audio"))


def test_names_of_files_say_all_there_is(root: Path) -> None:
    index = urbansound8k.load(root, CONFIG)
    assert (index.dataset, index.classes) == ("urbansound8k", ("air_conditioner", "dog_bark", "siren"))
    assert [(index.name(clip), clip.label, clip.group, clip.fold) for clip in index][4:8] == [
        ("audio/fold2/200-0-0-0.wav", 0, "200", 2),
        ("audio/fold2/203-3-0-0.wav", 1, "203", 2),
        ("audio/fold2/203-3-0-1.wav", 1, "203", 2),
        ("audio/fold2/208-8-0-0.wav", 2, "208", 2),
    ]
    assert [clip.fold for clip in index] == sorted(4 * list(range(1, 11)))


def test_the_table_adds_nothing_but_names(root: Path, table: Path) -> None:
    with_table = urbansound8k.load(root, CONFIG)
    table.unlink()
    assert with_table == replace(urbansound8k.load(root, CONFIG), tables=(table,))


def test_classes_have_the_names_of_the_table(root: Path, table: Path) -> None:
    table.write_text(table.read_text().replace("dog_bark", "Hund"))
    assert urbansound8k.load(root, CONFIG).classes == ("air_conditioner", "Hund", "siren")


def test_each_file_is_a_clip_as_long_as_it_is(root: Path) -> None:
    for clip in urbansound8k.load(root, CONFIG):
        assert (clip.start, clip.length) == (0, soundfile.info(clip.path).frames)


def test_mixed_rates_widths_channels_and_lengths_become_alike(root: Path, tmp_path: Path) -> None:
    index = urbansound8k.load(root, CONFIG)
    index = replace(index, clips=index.clips[: len(FORMATS)])
    config = DataConfig(sample_rate=8_000, clip_seconds=1.0)
    store = open_store(index, config, folder=tmp_path / "cache")
    waveforms = store.clips * store.peaks[:, None] / 32_767
    assert waveforms.shape == (len(FORMATS), 8_000)
    # The same tone in each, whatever it came in, away from the ends of the slice and its repetitions.
    tone = 0.3 * np.sin(np.arange(8_000) * 2 * np.pi * 440 / 8_000)
    for waveform in waveforms:
        assert np.abs(waveform - tone)[40:360].max() < 0.02


@pytest.mark.parametrize("with_table", [True, False])
def test_folds_may_lie_under_the_root(root: Path, table: Path, with_table: bool) -> None:
    whole = urbansound8k.load(root, CONFIG)
    for fold in sorted((root / "audio").glob("fold*")):
        fold.rename(root / fold.name)
    if with_table:
        (root / table.name).write_text(table.read_text().replace("dog_bark", "Hund"))
    shutil.rmtree(root / "audio")
    shutil.rmtree(table.parent)
    flat = urbansound8k.load(root, CONFIG)
    assert [(clip.path.name, clip.label, clip.fold) for clip in flat] == [
        (clip.path.name, clip.label, clip.fold) for clip in whole
    ]
    assert flat.classes == ("air_conditioner", "Hund" if with_table else "dog_bark", "siren")
    assert urbansound8k.recognise(root)


def test_the_layout_is_recognised_with_and_without_its_table(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert urbansound8k.recognise(root)
    assert urbansound8k.recognise(root / "audio")
    other = tmp_path_factory.mktemp("other")
    record(other / "audio" / "1-7-A-3.wav")
    record(other / "fold1" / "seagull.wav")
    assert not urbansound8k.recognise(other)


def test_folds_may_be_missing_though_the_table_lists_them(root: Path, table: Path) -> None:
    for fold in (2, 5, 10):
        shutil.rmtree(root / "audio" / f"fold{fold}")
    index = urbansound8k.load(root, CONFIG)
    assert {clip.fold for clip in index} == {1, 3, 4, 6, 7, 8, 9}
    with pytest.raises(UsageError, match=r"fold = 5: urbansound8k has no such fold\. Available: 1, 3, 4, 6"):
        make_split(index, DataConfig(fold=5))


def test_two_folds_are_not_enough_to_split(root: Path) -> None:
    for fold in range(3, 11):
        shutil.rmtree(root / "audio" / f"fold{fold}")
    with pytest.raises(InputError, match="only folds 1, 2; train, validation and test need at least three"):
        make_split(urbansound8k.load(root, CONFIG), DataConfig())


def test_one_fold_tests_another_validates(root: Path) -> None:
    index = urbansound8k.load(root, CONFIG)
    for config, expected in [
        (DataConfig(fold=10), {"test": {10}, "validation": {1}}),
        (DataConfig(fold=3, val_fold=7), {"test": {3}, "validation": {7}}),
    ]:
        split = make_split(index, config)
        assert {index.clips[row].fold for row in split.test} == expected["test"]
        assert {index.clips[row].fold for row in split.validation} == expected["validation"]
        assert len(split.train) == 32


def test_a_recording_in_two_folds_is_refused_where_it_leaks(root: Path) -> None:
    record(root / "audio" / "fold7" / "103-3-0-5.wav")
    index = urbansound8k.load(root, CONFIG)
    with pytest.raises(GateError, match="the split leaks: group '103' is on the train and the test side"):
        make_split(index, DataConfig(fold=1, val_fold=2))
    make_split(index, DataConfig(fold=2, val_fold=3))


# What users' copies hold


@pytest.mark.parametrize("name", ["dog.wav", "101-3-0.wav", "101-3-0-0 (1).wav", "101-x-0-0.wav", "101-3-0-0-0.mp3"])
def test_a_file_not_named_as_a_slice_is_refused(root: Path, name: str) -> None:
    record(root / "audio/fold1/5-3-0-0.wav").rename(root / "audio" / "fold1" / name)
    with pytest.raises(InputError, match=r"fold1/.*: not named <fsID>-<classID>-<occurrenceID>-<sliceID>\.wav"):
        urbansound8k.load(root, CONFIG)


def test_a_class_that_is_none_of_the_ten_is_refused(root: Path) -> None:
    record(root / "audio/fold1/5-10-0-0.wav")
    with pytest.raises(InputError, match=r"5-10-0-0\.wav: class 10 in its name; UrbanSound8K has 0 to 9"):
        urbansound8k.load(root, CONFIG)


def test_files_the_table_lists_and_that_are_not_there_are_counted(root: Path, table: Path) -> None:
    for name in ("fold3/303-3-0-1.wav", "fold4/400-0-0-0.wav"):
        (root / "audio" / name).unlink()
    shutil.rmtree(root / "audio" / "fold9")  # not counted
    with pytest.raises(InputError, match=r"csv, line \d+: no file '303-3-0-1' in fold 3 \(2 missing in folds that are"):
        urbansound8k.load(root, CONFIG)


def test_files_the_table_does_not_list_are_counted(root: Path, table: Path) -> None:
    record(root / "audio/fold3/5-3-0-0.wav")
    record(root / "audio/fold4/6-3-0-0.wav")
    with pytest.raises(InputError, match=r"fold3/5-3-0-0\.wav: not in .*UrbanSound8K\.csv \(2 such\)"):
        urbansound8k.load(root, CONFIG)


def test_a_file_in_another_fold_than_the_table_says_is_refused(root: Path, table: Path) -> None:
    (root / "audio/fold3/303-3-0-1.wav").rename(root / "audio/fold4/303-3-0-1.wav")
    with pytest.raises(InputError, match=r"csv, line \d+: fold is 3, but 4 in fold4/303-3-0-1\.wav"):
        urbansound8k.load(root, CONFIG)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("classID", "8", r"line 2: classID is 8, but 0 in fold1/100-0-0-0\.wav"),
        ("fsID", "99", r"line 2: fsID is 99, but 100 in fold1/100-0-0-0\.wav"),
        ("fold", "one", r"line 2: fold must be a whole number, not 'one'"),
        ("slice_file_name", "103-3-0-0.wav", r"line 3: '103-3-0-0' is in line 2 already"),
        ("class", "AC", r"line 6: classID 0 is 'air_conditioner' here and 'AC' above"),
        ("class", "dog_bark", r"line 3: 'dog_bark' has classID 3 here and 0 above"),
        ("class", "Dog_Bark", r"line 3: class 'dog_bark' is 'Dog_Bark' in line 2: they differ only in case"),
        ("class", " ", r"line 2: the class has no name"),
    ],
)
def test_a_table_that_contradicts_is_named_with_its_line(
    root: Path, table: Path, column: str, value: str, complaint: str
) -> None:
    rows = rows_of(root / "audio")
    rows[0][HEADER.index(column)] = value
    write_table(table, rows)
    with pytest.raises(InputError, match=rf"UrbanSound8K\.csv, {complaint}"):
        urbansound8k.load(root, CONFIG)


def test_a_table_without_a_column_is_named(root: Path, table: Path) -> None:
    write_table(table, [row[:-1] for row in rows_of(root / "audio")], HEADER[:-1])
    with pytest.raises(InputError, match=r"UrbanSound8K\.csv: no column class; needed: slice_file_name"):
        urbansound8k.load(root, CONFIG)


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "the file is empty"), (b"RIFF", "not an audio file"), (None, "truncated")]
)
def test_a_file_that_cannot_be_read_is_named(root: Path, content: bytes | None, complaint: str) -> None:
    path = root / "audio/fold2/200-0-0-0.wav"
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(InputError, match=rf"fold2/200-0-0-0\.wav: {complaint}"):
        urbansound8k.load(root, CONFIG)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    record(tmp_path / "fold1/1-3-0-0.wav")
    with pytest.raises(InputError, match=r"only one class \('dog_bark'\)"):
        urbansound8k.load(tmp_path, CONFIG)


def test_folds_without_audio_are_another_layout(tmp_path: Path) -> None:
    (tmp_path / "audio" / "fold1" / "1-3-0-0.wav").mkdir(parents=True)
    with pytest.raises(InputError, match=r"not in the layout of 'urbansound8k': expected .*, found audio/"):
        load_index(DataConfig(dataset="urbansound8k", data_dir=tmp_path))


def test_no_damage_to_the_table_gets_past_the_loader(
    root: Path, table: Path, damaged: Callable[[bytes, random.Random], bytes]
) -> None:
    whole, refused = table.read_bytes(), 0
    for seed in range(150):
        table.write_bytes(damaged(whole, random.Random(seed)))
        try:
            urbansound8k.load(root, CONFIG)
        except EdgekdError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50

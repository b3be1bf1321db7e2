from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.data.load import load_index, recognise
from edgekd.data.splits import make_split
from edgekd.errors import InputError, UsageError
from edgekd.events.event import Event
from edgekd.events.tables import write_events

RATE = 1_000
HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tSpecies\n"


def record(root: Path, *names: str, seconds: float = 20, rate: int = RATE) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.zeros(round(seconds * rate)), rate)


def raven(*lines: tuple[float, float, str]) -> str:
    return HEADER + "".join(f"{n}\tSpectrogram 1\t1\t{a}\t{b}\t{label}\n" for n, (a, b, label) in enumerate(lines, 1))


def read(
    root: Path, called: str | None = None, group_by: Any = None, labels: Any = None, **selections: Any
) -> ClipIndex:
    return load_index(
        DataConfig(
            dataset="selections",
            data_dir=root,
            clip_seconds=2.0,
            background=called,
            group_by=group_by,
            labels=labels,
            selections=selections,
        )
    )


def windows(index: ClipIndex) -> dict[str, int]:
    return dict(Counter(index.classes[clip.label] for clip in index))


def places(index: ClipIndex, name: str) -> list[tuple[str, float]]:
    return [(clip.group, clip.start / RATE) for clip in index if index.classes[clip.label] == name]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two recordings with Raven's tables beside them: 4 s of a tug, a call of an owl."""
    record(tmp_path, "n/a.wav", "n/b.wav")
    (tmp_path / "n" / "a.Table.1.selections.txt").write_text(raven((4, 8, "tug"), (11, 11.5, "owl")))
    (tmp_path / "n" / "b.Table.1.selections.txt").write_text(raven((0, 2, "tug")))
    return tmp_path


def test_windows_are_of_their_selections_or_background(root: Path) -> None:
    index = read(root, background_ratio="all")
    assert index.classes == ("background", "owl", "tug")
    assert windows(index) == {"tug": 3, "owl": 1, "background": 16}
    assert places(index, "tug") == [("n/a.wav", 4.0), ("n/a.wav", 6.0), ("n/b.wav", 0.0)]
    assert places(index, "owl") == [("n/a.wav", 10.0)]
    assert [path.name for path in index.tables] == ["a.Table.1.selections.txt", "b.Table.1.selections.txt"]


def test_background_is_kept_evenly_and_that_is_told(root: Path) -> None:
    index = read(root)
    assert windows(index) == {"tug": 3, "owl": 1, "background": 6}
    assert {name for name, _ in places(index, "background")} == {"n/a.wav", "n/b.wav"}
    assert index == read(root)
    note = index.notes[0]
    assert note.kind == "windows"
    assert note.message == (
        "2 tables (n/a.Table.1.selections.txt, ...): windows: owl 1, tug 3, background 6 of 16 "
        "(data.selections.background_ratio)."
    )
    assert windows(read(root, background_ratio=0.4))["background"] == 1


def test_windows_that_a_selection_only_touches_are_left_out_and_counted(root: Path) -> None:
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((1.5, 6.4, "tug")))
    index = read(root, background_ratio="all")
    assert [start for name, start in places(index, "tug") if name == "n/b.wav"] == [2.0, 4.0]
    assert 0.0 not in [start for name, start in places(index, "background") if name == "n/b.wav"]
    assert "left out: 2 that a selection shares less than 50.0% with." in index.notes[0].message
    assert windows(read(root, background_ratio="all", overlap=0.2))["tug"] == 6


def test_windows_may_hop(root: Path) -> None:
    index = read(root, background_ratio="all", hop_seconds=1)
    assert [start for name, start in places(index, "tug") if name == "n/a.wav"] == [3, 4, 5, 6, 7]


def test_two_classes_at_once_are_left_out_with_an_example(root: Path) -> None:
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((0, 6, "tug"), (2, 4, "owl")))
    index = read(root)
    assert [start for name, start in places(index, "tug") if name == "n/b.wav"] == [0.0, 4.0]
    assert (
        "1 of two classes (owl and tug at 2 s of n/b.wav; --set data.labels=multi keeps them)" in index.notes[0].message
    )


def test_a_window_may_be_of_several_classes_or_of_none(root: Path) -> None:
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((0, 6, "tug"), (2, 4.5, "owl"), (10, 12, "owl")))
    index = read(root, labels="multi", background_ratio="all")
    assert index.classes == ("owl", "tug")
    assert index.label_names == ("none", "owl", "owl;tug", "tug")
    of_b = [(clip.start / RATE, index.label_names[clip.label]) for clip in index if clip.group == "n/b.wav"]
    # From 4 s on a tug and the end of an owl's call: whether the owl is heard there nobody can say.
    assert of_b[:3] == [(0.0, "tug"), (2.0, "owl;tug"), (6.0, "none")]
    assert dict(of_b)[10.0] == "owl"
    assert "windows: owl 3, tug 4, background 13; left out: 1 that a selection" in index.notes[0].message
    (root / "n" / "a.Table.1.selections.txt").write_text(raven((0, 20, "tug")))
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((0, 20, "tug"), (2, 4, "owl")))
    with pytest.raises(InputError, match="class 'tug' is in every window, so nothing tells it from its absence"):
        read(root, labels="multi")
    with pytest.raises(InputError, match=r"only one class \('tug'\); data.labels = multi needs at least two"):
        read(root, labels="multi", classes=("tug",))


def test_only_named_labels_are_classes_and_the_others_are_no_background(root: Path) -> None:
    index = read(root, classes=("tug",), background_ratio="all")
    assert windows(index) == {"tug": 3, "background": 16}
    assert "1 of other labels (data.selections.classes)" in index.notes[0].message
    with pytest.raises(UsageError, match=r"Unknown class 'tugg'. Did you mean 'tug'"):
        read(root, classes=("tugg",))


def test_a_recording_that_no_table_tells_of_is_left_out_unless_tables_tell_all(root: Path) -> None:
    record(root, "n/c.wav", "n/d.wav")
    (root / "n" / "d.txt").write_text("")  # looked through in vain
    index = read(root, background_ratio="all")
    assert {clip.group for clip in index} == {"n/a.wav", "n/b.wav", "n/d.wav"}
    (left,) = [each for each in index.left_out if each.path.suffix == ".wav"]
    assert (left.path.name, left.lost) == ("c.wav", True)
    assert "no table tells of it" in left.why
    assert windows(read(root, background_ratio="all", background="everywhere"))["background"] == 36


def test_background_may_be_selected_and_called_otherwise(root: Path) -> None:
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((0, 2, "tug"), (10, 16, "Noise")))
    assert windows(read(root, called="noise", background_ratio="all")) == {"tug": 3, "owl": 1, "noise": 16}
    marked = read(root, called="noise", background="labelled")
    assert places(marked, "noise") == [("n/b.wav", 10.0), ("n/b.wav", 12.0), ("n/b.wav", 14.0)]
    assert "13 that are not marked" in marked.notes[0].message


def test_one_table_of_a_sequence_and_a_selection_across_files(tmp_path: Path) -> None:
    record(tmp_path, "a.wav", "b.wav")
    events = [Event("a.wav", 18, 24, "tug", ends_in="b.wav"), Event("b.wav", 10, 14, "owl")]
    write_events(tmp_path / "all.txt", events, "raven", {"a.wav": 20.0, "b.wav": 20.0})
    index = read(tmp_path, background_ratio="all")
    assert places(index, "tug") == [("a.wav", 18.0), ("b.wav", 0.0), ("b.wav", 2.0)]
    assert places(index, "owl") == [("b.wav", 10.0), ("b.wav", 12.0)]


@pytest.mark.parametrize("format_", ["audacity", "csv", "jsonl"])
def test_tables_of_all_formats_wherever_they_lie(tmp_path: Path, format_: Any) -> None:
    record(tmp_path / "audio", "n/a.wav", "n/b.flac")
    events = [Event("n/a.wav", 4, 8, "tug"), Event("n/b.flac", 0, 2, "owl")]
    out = tmp_path / "labels" if format_ == "audacity" else tmp_path / "labels" / f"all.{format_}"
    write_events(out, events, format_)
    index = read(tmp_path / "audio", tables=tmp_path / "labels", background_ratio="all")
    assert windows(index) == {"tug": 2, "owl": 1, "background": 17}


def test_a_table_may_be_given_itself_and_a_column_of_labels_be_named(tmp_path: Path) -> None:
    record(tmp_path, "a.wav", "b.wav")
    table = tmp_path / "marked.csv"
    table.write_text("file;start;end;what\na.wav;4,0;8,0;tug\nb.wav;1;2;owl\n")
    assert windows(read(table, label="what", background_ratio="all")) == {"tug": 2, "owl": 1, "background": 17}
    assert windows(read(tmp_path, label="what", background_ratio="all")) == {"tug": 2, "owl": 1, "background": 17}


def test_other_texts_beside_recordings_are_no_tables(root: Path) -> None:
    (root / "README.txt").write_text("What was heard in spring.\n")
    (root / "weather.csv").write_text("day,wind\n1,3\n")
    (root / "groups.csv").write_text("path,group\nn/a.wav,x\nn/b.wav,x\n")
    index = read(root)
    assert len(index.tables) == 2
    assert {clip.group for clip in index} == {"x"}


def test_a_folder_is_recognised_by_its_tables(root: Path, tmp_path: Path) -> None:
    assert recognise(root).name == "selections"
    assert recognise(root / "n" / "a.Table.1.selections.txt").name == "selections"
    record(root, "s/c.wav")  # two folders of recordings: classes, or places?
    with pytest.raises(InputError, match=r"'selections' .* and of 'folder' .*--dataset selections"):
        recognise(root)
    (root / "manifest.csv").write_text("path,label\nn/a.wav,x\ns/c.wav,y\n")
    assert recognise(root).name == "manifest"


def test_classes_in_folders_with_a_table_of_times_stay_classes(tmp_path: Path) -> None:
    record(tmp_path, "cargo/a.wav", "tug/b.wav")
    (tmp_path / "regions.csv").write_text("file,start,end,label\ncargo/a.wav,0,1,x\n")
    assert recognise(tmp_path).name == "folder"


def test_days_and_deployments_are_groups_and_what_is_odd_is_told(tmp_path: Path) -> None:
    names = [f"A_2024050{day}_{hour}0000.wav" for day in (1, 2, 3) for hour in (10, 11)]
    record(tmp_path, *names)
    record(tmp_path, "A_20240503_110000.wav", rate=2_000)
    events = [Event(name, 4, 8, label) for name in names for label in ("tug",)]
    write_events(tmp_path / "all.csv", events)
    index = read(tmp_path, group_by="day")
    assert {clip.group for clip in index} == {"A 2024-05-01", "A 2024-05-02", "A 2024-05-03"}
    split = make_split(index, DataConfig())
    assert min(len(split.train), len(split.validation), len(split.test)) > 0
    (odd,) = [note.message for note in index.notes if "deployment A:" in note.message]
    assert "the rate changes from 1000 to 2000 Hz between A_20240503_100000.wav and A_20240503_110000.wav" in odd


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (raven((25, 26, "tug")), r"a\.txt, line 2: begins at 25 s of n/a\.wav, which is 20\.000 s long"),
        (raven((4, 25, "tug")), r"a\.txt, line 2: ends at 25 s of n/a\.wav"),
        (raven((8, 4, "tug")), r"a\.txt, line 2: ends at 4 s, before it begins \(8 s\)\. Are the two reversed"),
        (raven((4, 6, "tug"), (9, 11, "Tug")), r"a\.txt, line 3: class 'Tug' is 'tug' in .*line 2.*Write them alike"),
        ("0.5\t1.5\t\n", r"a\.txt, line 1: the label has no text"),
        (raven(), r"no table has a selection of any class"),
        (raven((4, 6, "background")), r"no table has a selection of any class"),
        (
            raven((4, 6, "tug")).replace("Species", "Begin File").replace("tug", "c.wav"),
            r"no known column holds the labels.*data\.selections\.label",
        ),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_line(root: Path, table: str, told: str) -> None:
    for path in (root / "n").glob("*.txt"):
        path.unlink()
    (root / "n" / "a.txt").write_text(table)
    with pytest.raises(InputError, match=told):
        read(root)


def test_a_table_of_a_recording_that_is_not_there_is_refused(root: Path) -> None:
    (root / "n" / "gone.txt").write_text(raven((4, 6, "tug")))
    with pytest.raises(InputError, match=r"gone\.txt, line 2: 'n/gone': no such recording in .* \(1 missing in all\)"):
        read(root)


def test_a_table_in_another_recordings_name_is_told(root: Path) -> None:
    record(root, "n/c.wav")
    lines = raven((4, 6, "tug")).replace("\n", "\tn/b.wav\n").replace("Species\tn/b.wav", "Species\tBegin File")
    (root / "n" / "c.Table.1.selections.txt").write_text(lines)
    index = read(root, background_ratio="all")
    assert places(index, "tug")[-1] == ("n/b.wav", 4.0)
    assert "c.Table.1.selections.txt: is named after n/c.wav, and tells of n/b.wav" in index.notes[1].message
    assert "n/c.wav" in {clip.group for clip in index}


def test_a_class_without_a_window_is_refused(root: Path) -> None:
    (root / "n" / "b.Table.1.selections.txt").write_text(raven((0, 2, "tug"), (0, 2, "seal")))
    with pytest.raises(InputError, match=r"no window is of class 'seal'.*data\.selections\.classes"):
        read(root)


def test_recordings_without_a_table_are_another_layout(tmp_path: Path) -> None:
    record(tmp_path, "tug/a.wav", "owl/b.wav")
    with pytest.raises(InputError, match=r"not in the layout of 'selections'.* It looks like --dataset folder"):
        read(tmp_path)


def test_tables_beside_recordings_that_two_recorders_named_alike(tmp_path: Path) -> None:
    """Two AudioMoths on one schedule; Raven writes the name of the file, and no folder."""
    record(tmp_path, "moth1/20240501_120000.WAV", "moth2/20240501_120000.WAV")
    header = HEADER.replace("Species", "Begin File\tSpecies")
    for folder, begin, label in (("moth1", 2.0, "owl"), ("moth2", 10.0, "tug")):
        table = tmp_path / folder / "20240501_120000.Table.1.selections.txt"
        table.write_text(f"{header}1\tSpectrogram 1\t1\t{begin}\t{begin + 2}\t20240501_120000.WAV\t{label}\n")
    index = read(tmp_path)
    assert places(index, "owl") == [("moth1/20240501_120000.WAV", 2.0)]
    assert places(index, "tug") == [("moth2/20240501_120000.WAV", 10.0)]
    assert not any("named after" in note.message for note in index.notes)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.layouts.table import LAYOUTS
from edgekd.data.load import load_index, recognise
from edgekd.errors import InputError, UsageError

RATE = 8_000


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    root = tmp_path / "ships"
    for name in ("cargo", "tug"):
        (root / name).mkdir(parents=True)
        soundfile.write(root / name / "a.wav", np.full(RATE, 0.1), RATE)
    return root


def write_esc50(root: Path, *esc10: bool) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    for target in range(len(esc10)):
        soundfile.write(root / "audio" / f"{target}.wav", np.full(RATE, 0.1), RATE)
    rows = "".join(f"{target}.wav,1,{target},t{target},{member},s{target}\n" for target, member in enumerate(esc10))
    (root / "meta" / "esc50.csv").write_text(f"filename,fold,target,category,esc10,src_file\n{rows}")
    return root


def record(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(RATE, 0.1), RATE)


def write_urbansound8k(root: Path) -> Path:
    record(*(root / "audio" / f"fold{fold}" / f"{fold}00-{label}-0-0.wav" for fold in (1, 2, 3) for label in (0, 3)))
    return root


def write_vtuad(root: Path) -> Path:
    sides = ("train", "validation", "test")
    record(*(root / side / "audio" / name / "0.wav" for side in sides for name in ("background", "tug")))
    return root


def write_deepship(root: Path) -> Path:
    record(*(root / name / "1.wav" for name in ("Cargo", "Passengership", "Tanker", "Tug")))
    return root


def write_manifest(root: Path) -> Path:
    record(root / "a.wav", root / "b.wav")
    (root / "manifest.csv").write_text("path,label\na.wav,cargo\nb.wav,tug\n")
    return root


def test_the_layout_alone_is_enough(tmp_path: Path, classes: Path) -> None:
    assert recognise(classes).name == "folder"
    assert recognise(write_esc50(tmp_path / "a", True, False)).name == "esc50"
    assert recognise(write_esc50(tmp_path / "b", True, True)).name == "esc10"
    assert load_index(DataConfig(data_dir=tmp_path / "b")).classes == ("t0", "t1")
    assert load_index(DataConfig(data_dir=classes)).classes == ("cargo", "tug")


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_urbansound8k, "urbansound8k"),
        (write_vtuad, "vtuad"),
        (write_deepship, "deepship"),
        (write_manifest, "manifest"),
    ],
)
def test_each_layout_is_recognised_and_loaded(tmp_path: Path, write: Callable[[Path], Path], name: str) -> None:
    root = write(tmp_path / "data")
    assert recognise(root).name == name
    recognised = load_index(DataConfig(data_dir=root, clip_seconds=1))
    assert recognised == load_index(DataConfig(dataset=name, data_dir=root, clip_seconds=1))
    assert recognised.dataset == name
    other = "esc50" if name != "esc50" else "folder"
    with pytest.raises(InputError, match=rf"not in the layout of '{other}': .* It looks like --dataset {name}"):
        load_index(DataConfig(dataset=other, data_dir=root))


def test_a_table_with_another_name_is_a_manifest(tmp_path: Path) -> None:
    table = write_manifest(tmp_path / "data") / "manifest.csv"
    table = table.rename(tmp_path / "data" / "ships.CSV")
    assert recognise(table).name == "manifest"
    assert load_index(DataConfig(data_dir=table)).classes == ("cargo", "tug")
    with pytest.raises(InputError, match=r"ships.CSV: a file, where the folder of a data set is expected"):
        load_index(DataConfig(dataset="folder", data_dir=table))
    with pytest.raises(InputError, match=r"boats.csv: no such file"):
        load_index(DataConfig(data_dir=table.with_name("boats.csv")))


def test_a_manifest_describes_the_class_folders_beside_it(classes: Path) -> None:
    (classes / "manifest.csv").write_text("path,label\ncargo/a.wav,ship\ntug/a.wav,boat\n")
    assert load_index(DataConfig(data_dir=classes)).classes == ("boat", "ship")


@pytest.mark.parametrize(
    ("write", "names"),
    [
        ((lambda root: write_esc50(root, True, False), write_urbansound8k), ("esc50", "urbansound8k")),
        ((lambda root: write_esc50(root, True, True), write_manifest), ("esc10", "manifest")),
        ((write_vtuad, write_deepship), ("vtuad", "folder")),
        ((write_vtuad, lambda root: record(root / "cat" / "1.wav", root / "dog" / "1.wav")), ("vtuad", "folder")),
        (
            (write_urbansound8k, lambda root: record(root / "cat" / "1.wav", root / "dog" / "1.wav")),
            ("urbansound8k", "folder"),
        ),
    ],
)
def test_two_layouts_in_one_folder_are_both_named(
    tmp_path: Path, write: tuple[Callable[[Path], object], ...], names: tuple[str, str]
) -> None:
    for one in write:
        (tmp_path / "data").mkdir(exist_ok=True)
        one(tmp_path / "data")
    with pytest.raises(
        InputError, match=rf"layout of '{names[0]}' \(.*\) and of '{names[1]}' \(.*choose: --dataset {names[0]}"
    ):
        load_index(DataConfig(data_dir=tmp_path / "data"))
    assert load_index(DataConfig(dataset=names[0], data_dir=tmp_path / "data", clip_seconds=1)).dataset == names[0]


def test_one_stray_folder_of_audio_is_no_second_data_set(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "data", True, False)
    record(root / "demo" / "listen.wav")
    assert recognise(root).name == "esc50"


def test_real_esc10_is_recognised(esc10: Path) -> None:
    assert recognise(esc10).name == "esc10"


def test_the_clip_length_reaches_the_windows(classes: Path) -> None:
    assert len(load_index(DataConfig(dataset="folder", data_dir=classes, clip_seconds=0.25))) == 8


def test_folders_that_divide_a_data_set_are_not_taken_for_classes(classes: Path) -> None:
    (classes / "cargo").rename(classes / "train")
    (classes / "tug").rename(classes / "test")
    with pytest.raises(InputError, match=r"no known layout: found test/, train/"):
        recognise(classes)


def test_an_unknown_layout_lists_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(
        InputError, match=r"found letter.txt. Known: esc50: meta/esc50.csv and audio/; .*folder: "
    ) as caught:
        recognise(tmp_path)
    assert all(layout.name in str(caught.value) for layout in LAYOUTS)


@pytest.mark.parametrize("dataset", [None, "esc50", "folder"])
def test_a_folder_that_is_missing_empty_or_a_file_is_named(tmp_path: Path, dataset: str | None) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, says in (("nowhere", "no such folder"), ("empty", "the folder is empty"), ("file", "a file, where")):
        with pytest.raises(InputError, match=rf"{name}: {says}"):
            load_index(DataConfig(dataset=dataset, data_dir=tmp_path / name))


def test_a_wrong_name_for_a_layout_gets_the_right_one(classes: Path) -> None:
    with pytest.raises(InputError, match=r"found cargo/, tug/\. It looks like --dataset folder"):
        load_index(DataConfig(dataset="esc10", data_dir=classes))


def test_an_unknown_data_set_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"Unknown data set 'esc5'\. Did you mean 'esc50'\? Valid: deepship, esc10, esc50, folder"
    ):
        load_index(DataConfig(dataset="esc5", data_dir=tmp_path))


def test_a_data_set_without_its_folder_says_what_to_pass() -> None:
    with pytest.raises(UsageError, match=r"'esc50' needs its folder: pass --data-dir FOLDER \(meta/esc50.csv"):
        load_index(DataConfig(dataset="esc50"))


def test_no_data_at_all_says_what_to_pass() -> None:
    with pytest.raises(UsageError, match=r"pass --data-dir FOLDER, or --dataset sonar_sim"):
        load_index(DataConfig())

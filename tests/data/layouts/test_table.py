"""The table of layouts: light, in order, and open to a new row."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.layouts.layout import Layout
from edgekd.data.layouts.table import LAYOUTS
from edgekd.data.load import load_index, recognise
from edgekd.errors import InputError, UsageError

RATE = 8_000
# A layout as somebody would add it: recordings named after the bird, a day a folder.
BIRDS = """
from edgekd.audio.read import probe
from edgekd.data.index import Clip, ClipIndex
from edgekd.data.layouts.layout import WrongLayout

def recognise(root):
    return any(root.glob("day-*/*.wav"))

def load(root, config):
    paths = sorted(root.glob("day-*/*.wav"))
    if not paths:
        raise WrongLayout(root)
    classes = tuple(sorted({path.stem for path in paths}))
    clips = [Clip(path, classes.index(path.stem), path.parent.name, None, 0, probe(path).frames) for path in paths]
    return ClipIndex("birds", root, classes, tuple(clips))
"""


@pytest.fixture
def with_birds(tmp_path: Path) -> tuple[Layout, ...]:
    """The table with a row more, whose module is one new file."""
    (tmp_path / "birds.py").write_text(BIRDS)
    spec = importlib.util.spec_from_file_location("birds", tmp_path / "birds.py")
    assert spec is not None and spec.loader is not None
    birds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(birds)
    row = Layout("birds", "a folder day-* a day, with birds", birds.recognise, birds.load, class_folders=True)
    return (row, *LAYOUTS)


def record(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(RATE, 0.1), RATE)


def test_a_layout_is_one_module_and_one_row(tmp_path: Path, with_birds: tuple[Layout, ...]) -> None:
    root = tmp_path / "recordings"
    record(*(root / f"day-{day}" / f"{bird}.wav" for day in (1, 2) for bird in ("owl", "kite")))
    found = load_index(DataConfig(data_dir=root), layouts=with_birds)
    assert (found.dataset, found.classes, found.labels) == ("birds", ("kite", "owl"), [0, 1, 0, 1])
    assert [clip.length for clip in found] == [RATE] * 4
    assert load_index(DataConfig(data_dir=root, dataset="birds"), layouts=with_birds) == found
    assert recognise(root).name == "folder"  # without the row


def test_a_new_row_is_in_every_message(tmp_path: Path, with_birds: tuple[Layout, ...]) -> None:
    root = tmp_path / "recordings"
    record(root / "cat" / "1.wav", root / "dog" / "1.wav")
    with pytest.raises(InputError, match=r"not in the layout of 'birds': expected a folder day-.*--dataset folder"):
        load_index(DataConfig(data_dir=root, dataset="birds"), layouts=with_birds)
    with pytest.raises(UsageError, match="Did you mean 'birds'"):
        load_index(DataConfig(data_dir=root, dataset="bird"), layouts=with_birds)
    (tmp_path / "other" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no known layout.*Known: birds: a folder day-"):
        load_index(DataConfig(data_dir=tmp_path / "other"), layouts=with_birds)
    record(root / "train" / "audio" / "cat" / "1.wav", root / "day-1" / "owl.wav")
    with pytest.raises(InputError, match=r"holds the layout of 'birds' .* and of 'vtuad' [^']*--dataset birds"):
        load_index(DataConfig(data_dir=root), layouts=with_birds)


def test_the_names_alone_load_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "soundfile", "scipy", "pydantic"}
    code = f"import sys, edgekd.data.layouts.table; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_row_has_a_name_of_its_own_and_a_module(tmp_path: Path) -> None:
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    for layout in LAYOUTS:
        assert layout.recognise(tmp_path) is False
        with pytest.raises(InputError):
            layout.load(tmp_path, DataConfig())

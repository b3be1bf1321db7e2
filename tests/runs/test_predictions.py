from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.data.index import Clip, ClipIndex
from edgekd.errors import InputError
from edgekd.runs.predictions import read_predictions, write_predictions

CLASSES = ("a, b", 'the "tug"', "häfen")


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    clips = (Clip(tmp_path / f"{row}.wav", row % 3, f"ship {row // 2}", None, 400 * row, 400) for row in range(6))
    return ClipIndex("folder", tmp_path, CLASSES, tuple(clips))


@pytest.fixture
def shares() -> np.ndarray:
    return np.random.default_rng(0).dirichlet([0.1] * 3, size=4).astype(np.float32)


def test_what_was_said_is_read_back_to_the_bit(index: ClipIndex, shares: np.ndarray, tmp_path: Path) -> None:
    rows = (5, 0, 2, 3)
    write_predictions(tmp_path, "student", index, rows, shares)
    found = read_predictions(tmp_path, "student", CLASSES)
    assert found.probabilities.tobytes() == shares.tobytes()
    assert (found.rows, found.groups) == (rows, ("ship 2", "ship 0", "ship 1", "ship 1"))
    assert found.labels.tolist() == [2, 0, 2, 0]
    assert found.predicted.tolist() == shares.argmax(axis=1).tolist()


def test_a_subject_replaces_what_it_said_and_leaves_the_others(
    index: ClipIndex, shares: np.ndarray, tmp_path: Path
) -> None:
    write_predictions(tmp_path, "teacher", index, (0, 1, 2, 3), shares)
    write_predictions(tmp_path, "student", index, (0, 1, 2, 3), shares)
    write_predictions(tmp_path, "student", index, (0, 1, 2, 3), shares[::-1])
    assert (read_predictions(tmp_path, "student", CLASSES).probabilities == shares[::-1]).all()
    assert (read_predictions(tmp_path, "teacher", CLASSES).probabilities == shares).all()


def test_what_cannot_be_read_is_named(index: ClipIndex, shares: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.csv: no such file"):
        read_predictions(tmp_path, "student", CLASSES)
    write_predictions(tmp_path, "student", index, (0, 1, 2, 3), shares)
    with pytest.raises(InputError, match=r"nothing of the int8 in it"):
        read_predictions(tmp_path, "int8", CLASSES)
    with pytest.raises(InputError, match=r"not the columns subject, row"):
        read_predictions(tmp_path, "student", ("other", "classes", "now"))
    path = tmp_path / "predictions.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",")])
    with pytest.raises(InputError, match=r"predictions\.csv, line 5: not the columns"):
        read_predictions(tmp_path, "student", CLASSES)
    path.write_text(whole.rpartition(",")[0] + ",x\n")
    with pytest.raises(InputError, match=r"predictions\.csv: damaged"):
        read_predictions(tmp_path, "student", CLASSES)

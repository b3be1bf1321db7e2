"""The data of a run, opened once: clips of a side with their labels, groups and places in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.data.index import SIDES
from edgekd.data.splits import read_splits
from edgekd.runs.data import RunData
from edgekd.runs.run import Run


@pytest.fixture
def data(tiny_run: Run) -> RunData:
    return tiny_run.open_data()


def test_the_sides_are_those_that_the_run_recorded(tiny_run: Run, data: RunData) -> None:
    recorded = read_splits(tiny_run.folder / "splits.csv", data.index)
    assert data.split == recorded
    sides = {name: data.side(name) for name in SIDES}
    assert sorted(row for side in sides.values() for row in side.rows) == list(range(len(data.index)))
    assert all(len(side) == len(recorded.side(name)) > 0 for name, side in sides.items())
    assert not set(sides["train"].groups) & set(sides["test"].groups)


def test_every_field_of_chosen_clips_is_in_the_order_of_the_rows(data: RunData) -> None:
    rows = [5, 0, len(data.index) - 1]
    chosen = data.at(rows)
    clips = [data.index.clips[row] for row in rows]
    assert chosen.rows == tuple(rows)
    assert chosen.labels.tolist() == [clip.label for clip in clips]
    assert chosen.groups == tuple(clip.group for clip in clips)
    assert [Path(data.index.root, name) for name, _ in chosen.names] == [clip.path for clip in clips]
    assert [start for _, start in chosen.names] == [clip.start for clip in clips]


def test_waveforms_are_those_of_the_store(tiny_run: Run, data: RunData) -> None:
    waveforms = data.waveforms([3, 1])
    assert waveforms.shape == (2, round(tiny_run.config.data.clip_seconds * tiny_run.config.data.sample_rate))
    np.testing.assert_array_equal(waveforms[1].numpy(), data.store.waveforms([1])[0].numpy())

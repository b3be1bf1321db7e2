"""All subjects are scored on the same clips, none of which a run has trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.exporting.verify import in_onnxruntime
from edgekd.profiling.accuracy import ScoredClips, clips_of_run, in_common, predictions_on
from edgekd.scoring.scores import score

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled


class Numbered:
    """Clips that hold their own number."""

    def waveforms(self, rows: object, /) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32)[:, None].expand(-1, 4)


def side(rows: list[int], description: str = "a run") -> ScoredClips:
    return ScoredClips(
        description=description,
        dataset="tones",
        store=Numbered(),
        rows=rows,
        names=[(f"{row}.wav", 0) for row in rows],
        labels=[row % 2 for row in rows],
        groups=[f"group {row}" for row in rows],
        classes=("even", "odd"),
        sample_rate=4,
        clip_seconds=1.0,
        padding="zeros",
        seed=0,
    )


def test_only_clips_on_every_test_side_are_scored_in_one_order() -> None:
    first, second = in_common([side([3, 1, 2, 8]), side([8, 2, 4, 3])])
    assert [name for name, _ in first.names] == ["3.wav", "2.wav", "8.wav"] == [name for name, _ in second.names]
    assert torch.equal(second.store.waveforms(second.rows)[:, 0], torch.tensor([3.0, 2.0, 8.0]))
    assert list(second.labels) == [1, 0, 0]
    assert first.digest == second.digest
    assert first.words == "3 clips of 3 recordings, a run", "as many as are left"


def test_the_digest_tells_which_clips_they_are() -> None:
    clips = side([1, 2, 3])
    assert clips.digest == side([3, 2, 1]).digest, "the order is no difference"
    assert clips.digest != side([1, 2]).digest
    assert clips.digest != replace(clips, labels=[1, 1, 1]).digest
    assert clips.digest != replace(clips, clip_seconds=0.5).digest


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (side([5, 6], "another"), "No clip is on every test side"),
        (replace(side([1, 2], "another"), classes=("odd", "even")), "different classes"),
        (replace(side([1, 2], "another"), clip_seconds=2.0), "different clips"),
    ],
    ids=["disjoint", "classes", "length"],
)
def test_what_cannot_be_compared_is_refused(other: ScoredClips, words: str) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        in_common([side([1, 2]), other])
    assert "another" in str(refusal.value)


def test_the_test_side_of_a_run_is_all_of_it_and_nothing_else(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    data = profiled.run.open_data()
    index = data.index
    assert list(clips.rows) == list(data.split.test)
    assert list(clips.labels) == [index.clips[row].label for row in clips.rows]
    assert clips.first().shape == (1, clips.samples)


def test_the_exported_student_scores_what_the_run_recorded(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    said = predictions_on(clips, in_onnxruntime(profiled.graphs["student"]))
    scores = score(said.probabilities, clips.labels, clips.groups, clips.classes)
    assert scores.accuracy == profiled.run.report()["test"]["student"]["accuracy"]
    assert scores.confusion == profiled.profile.subject("student").scores.confusion


def test_probabilities_come_through_unchanged() -> None:
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    said = predictions_on(side([0, 1, 2]), lambda waveforms: shares[waveforms[:, 0].long()])
    np.testing.assert_allclose(said.probabilities, shares, atol=1e-6)
    assert said.groups == ("group 0", "group 1", "group 2")

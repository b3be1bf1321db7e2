"""Subjects are scored on the run's own test side, and a graph's probabilities come through unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.export.verify import graph_classifier, in_onnxruntime, session
from edgekd.profiling.accuracy import clips_of_run, score_on

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled


def test_the_clips_are_the_rows_of_the_test_side(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    index = profiled.run.index()
    assert tuple(clips.rows) == profiled.run.split(index).test
    assert list(clips.labels) == [index.clips[row].label for row in clips.rows]
    assert len(set(clips.groups)) == len(clips.rows) / 2  # two windows of each recording
    assert clips.first().shape == (1, 4000)


def test_a_graph_is_scored_by_its_own_probabilities(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    runtime = session(profiled.graphs["student"])
    waveforms = clips.store.waveforms(clips.rows)
    (expected,) = runtime.run(None, {"waveform": waveforms.numpy()})
    found = graph_classifier(in_onnxruntime(profiled.graphs["student"]))(waveforms).softmax(dim=1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_exported_student_scores_what_the_run_recorded(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    scores = score_on(clips, graph_classifier(in_onnxruntime(profiled.graphs["student"])))
    recorded = profiled.run.report()["test"]["student"]
    assert scores.accuracy == pytest.approx(recorded["accuracy"])
    assert [list(row) for row in scores.confusion] == recorded["confusion"]

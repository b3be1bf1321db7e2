"""The windows of a recording that comes in pieces: where they lie, what they score, and when they have no scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.detection import Detection, rule_of
from edgekd.device.runner.resample import resample
from edgekd.device.runner.scores import Listener, Row, WindowScores

if TYPE_CHECKING:
    from tests.device.conftest import Toy

RATE, CLIP, HOP = 8_000, 800, 300  # of the toy classifier


def rows(scores: WindowScores, samples: Any, piece: int = 1_000) -> list[Row]:
    found = [row for start in range(0, len(samples), piece) for row in scores.push(samples[start : start + piece])]
    return [*found, *scores.finish()]


@pytest.mark.parametrize("piece", [7, 700, 10_000])
def test_the_last_window_is_flush_with_the_end(toy: Toy, written: Path, piece: int) -> None:
    sound = toy.noise(7_350)
    found = rows(WindowScores(Runner(written), RATE, HOP), sound, piece)
    starts = [*toy.positions(7_350), 7_350 - CLIP]
    assert [(row.start, row.stop) for row in found] == [(start, start + CLIP) for start in starts]
    expected = toy.scores(np.stack([sound[start : start + CLIP] for start in starts]))
    np.testing.assert_allclose([row.scores for row in found], expected, atol=1e-6)


@pytest.mark.parametrize("samples", [CLIP, CLIP + HOP, CLIP + 4 * HOP])
def test_there_is_no_other_where_the_last_one_is_so_already(toy: Toy, written: Path, samples: int) -> None:
    found = rows(WindowScores(Runner(written), RATE, HOP), toy.noise(samples))
    assert [row.start for row in found] == toy.positions(samples)


def test_a_shorter_recording_is_one_window_filled_as_in_training(toy: Toy, written: Path) -> None:
    sound = toy.noise(500)
    (row,) = rows(WindowScores(Runner(written), RATE, HOP), sound)
    assert (row.start, row.stop) == (0, 500)
    np.testing.assert_allclose(row.scores, toy.scores(np.resize(sound, CLIP)[None])[0], atol=1e-6)


def test_nothing_has_no_window(written: Path) -> None:
    assert rows(WindowScores(Runner(written), RATE, HOP), np.zeros(0, np.float32)) == []


def test_windows_lie_in_what_is_resampled(toy: Toy, written: Path) -> None:
    runner = Runner(written)
    sound = toy.tone("middle", 0.5, 44_100)
    found = rows(WindowScores(runner, 44_100, HOP), sound)
    whole = resample(sound, 44_100, RATE, runner.resampler["lowpass_filter_width"], runner.resampler["rolloff"])
    assert found[-1].stop == len(whole) == 4_000
    for row in found:
        np.testing.assert_allclose(row.scores, toy.scores(whole[None, row.start : row.stop])[0], atol=1e-5)


def test_samples_that_are_no_sound_spoil_their_own_windows_alone(toy: Toy, written: Path) -> None:
    sound = toy.noise(3_200)
    sound[1_000] = np.nan
    sound[2_500] = 100.0
    found = rows(WindowScores(Runner(written), RATE, CLIP), sound)
    assert [row.error for row in found[::2]] == [None, None]
    assert found[1].error == "some samples are NaN or infinite"
    assert found[3].error is not None and "samples reach 100 times full scale" in found[3].error
    assert [row.scores is None for row in found] == [False, True, False, True]


def test_silence_has_no_scores(toy: Toy, written: Path) -> None:
    sound = np.concatenate([np.full(CLIP, 0.25, np.float32), toy.tone("low", 0.1)])
    silent, heard = rows(WindowScores(Runner(written), RATE, CLIP), sound)
    assert (silent.silent, silent.scores) == (True, None)
    assert (heard.silent, heard.error) == (False, None)


def test_noise_that_a_lossy_format_made_of_silence_is_silence(toy: Toy, written: Path) -> None:
    scores = WindowScores(Runner(written), RATE, CLIP)
    (row,) = scores.push(1e-6 * toy.noise(CLIP), np.zeros(CLIP, np.float32))
    assert row.silent


def test_a_listener_finds_tones_where_they_are_and_says_what_it_could_not_hear(toy: Toy, written: Path) -> None:
    runner = Runner(written)
    sound = np.concatenate([0.01 * toy.noise(8_000), toy.tone("middle", 1.0), 0.01 * toy.noise(8_000)])
    sound[20_000] = np.inf
    listener = Listener(runner, rule_of(runner.manifest, hop_s=0.0125, thresholds=[(None, 0.9)]), RATE)
    found = [event for start in range(0, len(sound), 999) for event in listener.push(sound[start : start + 999])]
    found += listener.finish()
    (event,) = found
    assert isinstance(event, Detection)
    assert runner.classes[event.label] == "middle"
    assert (event.start, event.stop) == pytest.approx((8_000, 16_000), abs=300)
    assert (listener.seconds, listener.flat, listener.silent) == (3.0, False, 0)
    assert listener.windows == len(toy.positions(24_000, hop=100))
    assert listener.unscored == 8  # all windows, a hop of 100 apart, with sample 20,000 in them
    assert listener.error_at == pytest.approx(19_300 / RATE)


def test_a_window_that_is_unknown_opens_no_event_and_one_of_others_may_reach_over_it(
    toy: Toy, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(written)
    rule = rule_of(runner.manifest, hop_s=CLIP / RATE, thresholds=[(None, 0.6)])
    best, sound = np.eye(len(runner.classes), dtype=np.float32)[0], toy.noise(4 * CLIP)
    known = {0: -1.0, 1: 1.0, 2: -1.0, 3: -1.0}  # by the window
    monkeypatch.setattr(runner, "reject", {"threshold": 0.0})
    places = iter(range(4))
    monkeypatch.setattr(runner, "answers", lambda _: np.append(best, known[next(places)])[None])
    listener = Listener(runner, rule, RATE)
    (found,) = [*listener.push(sound), *listener.finish()]
    assert (found.label, found.start, found.stop, found.score) == (0, 0, 4 * CLIP, 1.0)
    known = dict.fromkeys(range(4), -1.0)
    places = iter(range(4))
    listener = Listener(runner, rule, RATE)
    assert [*listener.push(sound), *listener.finish()] == []

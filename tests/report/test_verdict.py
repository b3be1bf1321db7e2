"""A verdict claims a difference where its interval shows one, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekd.report.results import Estimate, Profile
from edgekd.report.verdict import undecided, verdict


def sentence_of(
    profile: Profile, speedup: tuple[float, float, float], points: tuple[float, float, float], smaller: float
) -> str:
    teacher, student = profile.subjects[:2]
    assert student.versus is not None
    assert student.versus.accuracy is not None
    value, low, high = (point / 100 for point in points)
    paired = student.versus.accuracy.__class__(
        **{
            **student.versus.accuracy.to_dict(),
            "accuracy": value,
            "accuracy_interval": (low, high),
            "recordings": 50,
        }
    )
    times = Estimate(value=speedup[0], low=speedup[1], high=speedup[2])
    versus = student.versus.model_copy(update={"accuracy": paired, "speedup": times, "smaller": smaller})
    (sentence,) = verdict((teacher, student.model_copy(update={"versus": versus})), "teacher")
    return sentence


@pytest.mark.parametrize(
    ("speedup", "points", "smaller", "words"),
    [
        (
            (14.31, 13.9, 14.8),
            (-24.1, -33.0, -15.2),
            49.0,
            "student is 14.3 times faster than teacher (13.9 to 14.8) and 49 times smaller; its accuracy is 24.1 "
            "points lower (15.2 to 33.0).",
        ),
        (
            (1.02, 0.97, 1.07),
            (-0.5, -2.0, 1.0),
            1.0,
            "student is as fast as teacher (0.97 to 1.07) and as large; 50 recordings are too few to tell less than "
            "1.5 points of accuracy (found \N{MINUS SIGN}0.5, \N{MINUS SIGN}2.0 to +1.0).",
        ),
        (
            (1.02, 0.97, 1.07),
            (-6.5, -11.0, 0.5),
            1.0,
            "student is as fast as teacher (0.97 to 1.07) and as large; 50 recordings are too few to tell less than "
            "7.0 points of accuracy (found \N{MINUS SIGN}6.5, \N{MINUS SIGN}11.0 to +0.5).",
        ),
        (
            (0.5, 0.4, 0.8),
            (2.0, 0.5, 3.0),
            0.5,
            "student is 2.00 times slower than teacher (1.25 to 2.50) and 2.00 times larger; its accuracy is 2.0 "
            "points higher (0.5 to 3.0).",
        ),
    ],
    ids=["better", "equal", "few", "slower"],
)
def test_the_sentence_says_what_the_intervals_show(
    sample_profile: Profile,
    speedup: tuple[float, float, float],
    points: tuple[float, float, float],
    smaller: float,
    words: str,
) -> None:
    assert sentence_of(sample_profile, speedup, points, smaller) == words


def test_what_is_not_shown_is_said_with_what_was_tested(sample_profile: Profile) -> None:
    versus = sample_profile.subjects[1].versus
    assert versus is not None
    assert versus.accuracy is not None
    found = replace(versus.accuracy, accuracy=0.0, accuracy_interval=(-0.02, 0.02), trials=15)
    rest = "too few to tell less than 2.0 points of accuracy (found +0.0, \N{MINUS SIGN}2.0 to +2.0)"
    for recordings, runs, words in (
        (None, False, "its recordings are"),
        (1, False, "1 recording is"),
        (1_200, False, "1,200 recordings are"),
        (400, True, "400 recordings in 15 runs are"),
    ):
        assert undecided(replace(found, recordings=recordings, runs_resampled=runs)) == f"{words} {rest}"


def test_a_subject_alone_is_told_by_its_own_figures(sample_profile: Profile) -> None:
    student = sample_profile.subjects[1].model_copy(update={"versus": None})
    (sentence,) = verdict((student,), None)
    assert sentence.startswith(
        "student answers in 3.37 ms (p95 3.81 ms, real-time factor 0.00067), is right on 92.5% of"
    )
    assert sentence.endswith("takes 303 KiB.")


def test_a_device_that_disagrees_is_told_of(sample_profile: Profile) -> None:
    board = sample_profile.subjects[3].model_copy(update={"versus": None})
    assert board.golden is not None
    wrong = board.model_copy(update={"golden": board.golden.model_copy(update={"agrees": False})})
    (sentence,) = verdict((wrong,), None)
    assert "does NOT agree with its golden examples" in sentence
    assert "on pi@field-7" in sentence

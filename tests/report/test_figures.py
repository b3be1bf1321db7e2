"""Rows of figures: what they say is what the subject says, and the best is the best that can be read."""

from __future__ import annotations

import pytest

from edgekd.number_formats import NONE, count, number, percent
from edgekd.report.figures import FIGURES, FIGURES_BY_KEY, GLOSSARY, Figure, class_rows, known_figures, row
from edgekd.report.results import Profile


def test_a_row_is_flat_and_says_what_the_subject_says(sample_profile: Profile) -> None:
    subject = sample_profile.subject("int8")
    values = row(subject)
    assert subject.scores and subject.versus and subject.versus.accuracy and subject.versus.speedup and subject.energy
    assert values["accuracy"] == subject.scores.accuracy
    assert (values["accuracy_low"], values["accuracy_high"]) == subject.scores.accuracy_interval
    assert values["accuracy_difference_high"] == subject.versus.accuracy.accuracy_interval[1]
    assert values["mcnemar_p"] == subject.versus.accuracy.mcnemar
    assert values["speedup_low"] == subject.versus.speedup.low
    assert values["p50_ms_high"] == subject.latency.p50_interval_ms[1]
    assert values["process_bytes"] == subject.cost.process_bytes
    assert values["joules_per_clip"] == subject.energy.joules_per_clip
    assert values["clips_per_second"] == max(batch.clips_per_second for batch in subject.throughput)
    assert all(value is None or isinstance(value, str | int | float) for value in values.values())


def test_every_figure_and_every_word_of_the_glossary_is_in_a_row(sample_profile: Profile) -> None:
    known = row(sample_profile.subjects[0])
    keys = [figure.key for figures in FIGURES.values() for figure in figures]
    assert {key for key in keys if not key.startswith("mean_average_precision")} <= set(known)
    assert len(keys) == len(set(keys)) == len(FIGURES_BY_KEY)
    assert set(GLOSSARY) <= set(keys)


def test_what_is_not_known_is_none_and_its_figures_are_left_out(bare_profile: Profile) -> None:
    rows = [row(subject) for subject in bare_profile.subjects]
    assert rows[0]["accuracy"] is rows[0]["accuracy_low"] is rows[0]["speedup"] is rows[0]["battery_days"] is None
    assert list(known_figures(rows)) == ["Time of one clip", "Cost"]
    assert "speedup" not in {figure.key for figure in known_figures(rows)["Time of one clip"]}
    assert class_rows(bare_profile) == []


def test_the_best_value_is_the_best_that_can_be_read() -> None:
    accuracy = Figure("accuracy", "accuracy", percent, "high")
    assert accuracy.winners([{"accuracy": 0.9}, {"accuracy": 0.95}, {"accuracy": None}]) == {1}
    assert accuracy.winners([{"accuracy": 0.90001}, {"accuracy": 0.90002}, {"accuracy": 0.8}]) == {0, 1}
    assert accuracy.winners([{"accuracy": 0.90001}, {"accuracy": 0.90002}]) == set()
    assert accuracy.winners([{"accuracy": 0.9}]) == set()
    time = Figure("p50_ms", "p50, ms", number, "low")
    assert time.winners([{"p50_ms": 2}, {"p50_ms": 1}]) == {1}
    assert Figure("macs", "MACs", count).winners([{"macs": 1}, {"macs": 2}]) == set()


def test_a_figure_shows_its_interval_without_units() -> None:
    accuracy = FIGURES_BY_KEY["accuracy"]
    assert accuracy.interval({"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 1.0}) == "85.0 to 100.0"
    assert accuracy.interval({"accuracy": None, "accuracy_low": None, "accuracy_high": None}) == ""
    assert accuracy.value({"accuracy": None}) == NONE


@pytest.mark.parametrize("subject", [0, 1, 2, 3])
def test_recall_is_that_of_the_scores(subject: int, sample_profile: Profile) -> None:
    scores = sample_profile.subjects[subject].scores
    assert scores
    assert [name for name, _ in class_rows(sample_profile)] == list(scores.classes)
    assert tuple(shares[subject] for _, shares in class_rows(sample_profile)) == scores.recall

"""`report.csv`, read back: numbers as they are, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from edgekd.report.csv_table import report_csv
from edgekd.report.results import Profile


def read(profile: Profile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(report_csv(profile))))


def test_it_holds_a_row_a_subject_and_reads_back(sample_profile: Profile) -> None:
    rows = read(sample_profile)
    assert [values["subject"] for values in rows] == [subject.name for subject in sample_profile.subjects]
    for values, subject in zip(rows, sample_profile.subjects, strict=True):
        assert subject.robustness and subject.scores
        assert float(values["p99_ms"]) == subject.latency.p99_ms
        assert float(values["accuracy_at_-5_db"]) == subject.robustness.noise[-1].accuracy
        assert float(values["accuracy_at_0.625_s"]) == subject.robustness.length[-1].accuracy
        assert float(values["recall_rain"]) == subject.scores.recall[2]
        assert float(values["clips_per_second_batch_32_threads_2"]) == subject.throughput[-1].clips_per_second
    assert rows[0]["speedup"] == ""
    assert float(rows[1]["accuracy_difference"]) < 0, "a number below 0 is a number, not escaped"


def test_subjects_that_know_less_keep_their_columns_empty(bare_profile: Profile, sample_profile: Profile) -> None:
    mixed = bare_profile.model_copy(update={"subjects": (*bare_profile.subjects, sample_profile.subjects[1])})
    rows = read(mixed)
    assert [values["subject"] for values in rows] == ["teacher", "student"]
    assert rows[0]["recall_rain"] == rows[0]["accuracy"] == ""
    assert rows[1]["accuracy"]


def test_no_name_is_a_formula_or_ends_its_row(sample_profile: Profile) -> None:
    subject = sample_profile.subjects[0]
    assert subject.scores
    scores = replace(subject.scores, classes=("=HYPERLINK(1)", "a\nb", *subject.scores.classes[2:]))
    hard = {"name": "=cmd|' /C calc'!A0", "source": "@runs", "host": "-a\r\nb@c", "runtime": 'x, "y"'}
    profile = sample_profile.model_copy(
        update={"subjects": (subject.model_copy(update={**hard, "scores": scores}), sample_profile.subjects[1])}
    )
    text = report_csv(profile)
    assert len(text.splitlines()) == 3
    values = read(profile)[0]
    assert (values["subject"], values["source"], values["host"]) == ("'=cmd|' /C calc'!A0", "'@runs", r"'-a\x0d\x0ab@c")
    assert values["runtime"] == 'x, "y"'
    assert "recall_=HYPERLINK(1)" in values and r"recall_a\x0ab" in values

"""Rows of figures, and the Markdown and CSV made of them; Markdown is read back by a parser of its own."""

from __future__ import annotations

import csv
import io

import pytest
from markdown_it import MarkdownIt

from edgekd.report import tables
from edgekd.report.results import Profile
from edgekd.report.tables import FIGURES, GLOSSARY, NONE, described, known_figures, report_csv, report_markdown, row


@pytest.fixture
def oddly_named(bare_profile: Profile) -> Profile:
    """Little in it, with names that are hard on every format."""
    names = ('a|b <script>alert("1")</script> & `c` _d_ *e*', "é, \\|\\| [x](y) #1")
    (subject,) = bare_profile.subjects
    return bare_profile.model_copy(
        update={"subjects": tuple(subject.model_copy(update={"name": name}) for name in names)}
    )


def tables_of(markdown: str) -> list[list[list[str]]]:
    """Cells of the tables in `markdown`, as its reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    found: list[list[list[str]]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            children = tokens[place + 1].children or []
            assert {child.type for child in children} <= {"text", "text_special", "softbreak"}, "markup in a cell"
            found[-1][-1].append("".join(child.content for child in children))
    return found


def test_a_row_is_flat_and_says_what_the_subject_says(sample_profile: Profile) -> None:
    subject = sample_profile.subject("int8")
    found = row(subject)
    assert subject.scores and subject.versus and subject.versus.accuracy and subject.versus.speedup and subject.energy
    assert found["accuracy"] == subject.scores.accuracy
    assert (found["accuracy_low"], found["accuracy_high"]) == subject.scores.accuracy_interval
    assert found["accuracy_difference_high"] == subject.versus.accuracy.accuracy_interval[1]
    assert found["mcnemar_p"] == subject.versus.accuracy.mcnemar
    assert found["speedup_low"] == subject.versus.speedup.low
    assert found["p50_ms_high"] == subject.latency.p50_interval_ms[1]
    assert found["process_bytes"] == subject.cost.process_bytes
    assert found["joules_per_clip"] == subject.energy.joules_per_clip
    assert found["clips_per_second"] == max(one.clips_per_second for one in subject.throughput)
    assert all(value is None or isinstance(value, str | int | float) for value in found.values())


def test_every_figure_and_every_word_of_the_glossary_is_in_a_row(sample_profile: Profile) -> None:
    known = row(sample_profile.subjects[0])
    keys = [figure.key for figures in FIGURES.values() for figure in figures]
    assert set(keys) <= set(known)
    assert len(keys) == len(set(keys))
    assert set(GLOSSARY) <= set(keys)


def test_what_is_not_known_is_none_and_its_figures_are_left_out(oddly_named: Profile) -> None:
    rows = [row(one) for one in oddly_named.subjects]
    assert rows[0]["accuracy"] is rows[0]["accuracy_low"] is rows[0]["speedup"] is rows[0]["battery_days"] is None
    assert list(known_figures(rows)) == ["Time of one clip", "Cost"]
    assert "speedup" not in {figure.key for figure in known_figures(rows)["Time of one clip"]}


def test_the_best_value_is_the_best_that_can_be_read() -> None:
    accuracy = tables.Figure("accuracy", "accuracy", tables.percent, "high")
    assert accuracy.winners([{"accuracy": 0.9}, {"accuracy": 0.95}, {"accuracy": None}]) == {1}
    assert accuracy.winners([{"accuracy": 0.90001}, {"accuracy": 0.90002}, {"accuracy": 0.8}]) == {0, 1}
    assert accuracy.winners([{"accuracy": 0.90001}, {"accuracy": 0.90002}]) == set()
    assert accuracy.winners([{"accuracy": 0.9}]) == set()
    time = tables.Figure("p50_ms", "p50, ms", tables.milliseconds, "low")
    assert time.winners([{"p50_ms": 2}, {"p50_ms": 1}]) == {1}
    assert tables.Figure("macs", "MACs", tables.compact).winners([{"macs": 1}, {"macs": 2}]) == set()


def test_a_figure_shows_its_interval_without_units() -> None:
    accuracy = tables.Figure("accuracy", "accuracy", tables.percent)
    assert accuracy.interval({"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 1.0}) == "85.0 to 100.0"
    assert accuracy.interval({"accuracy": None, "accuracy_low": None, "accuracy_high": None}) == ""
    assert accuracy.value({"accuracy": None}) == NONE


@pytest.mark.parametrize(
    ("shown", "value", "words"),
    [
        (tables.percent, 0.98754, "98.8 %"),
        (tables.points, -0.0625, "\N{MINUS SIGN}6.2"),
        (tables.points, 0.011, "+1.1"),
        (tables.milliseconds, 0.0214, "0.0214"),
        (tables.milliseconds, 3.4, "3.40"),
        (tables.milliseconds, 1204.4, "1,204"),
        (tables.p_value, 0.0003, "< 0.001"),
        (tables.compact, 999_960, "1.0 M"),
        (tables.compact, 812, "812"),
        (tables.size, 236_804, "231 KiB"),
        (tables.size, 15_105_320, "14.4 MiB"),
        (tables.energy, 0.0112, "11.2 mJ"),
        (tables.energy, 83e-6, "83 µJ"),
        (tables.times, 9.23, "9.2\N{MULTIPLICATION SIGN}"),
        (tables.times, 0.42, "0.42\N{MULTIPLICATION SIGN}"),
    ],
)
def test_figures_are_worded_for_readers(shown: object, value: float, words: str) -> None:
    assert callable(shown)
    assert shown(value) == words


def test_the_csv_holds_a_row_a_subject_and_reads_back(sample_profile: Profile) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(sample_profile))))
    assert [one["subject"] for one in rows] == [one.name for one in sample_profile.subjects]
    for one, subject in zip(rows, sample_profile.subjects, strict=True):
        assert float(one["p99_ms"]) == subject.latency.p99_ms
        assert subject.robustness and subject.scores
        assert float(one["accuracy_at_-5_db"]) == subject.robustness.noise[-1].accuracy
        assert float(one["accuracy_at_0.625_s"]) == subject.robustness.length[-1].accuracy
        assert float(one["recall_rain"]) == subject.scores.recall[2]
        assert float(one["clips_per_second_batch_32_threads_2"]) == subject.throughput[-1].clips_per_second
    assert rows[0]["speedup"] == ""


def test_the_csv_of_a_bare_profile_keeps_its_names(oddly_named: Profile, sample_profile: Profile) -> None:
    mixed = oddly_named.model_copy(update={"subjects": (*oddly_named.subjects, sample_profile.subjects[0])})
    rows = list(csv.DictReader(io.StringIO(report_csv(mixed))))
    assert [one["subject"] for one in rows] == [one.name for one in mixed.subjects]
    assert rows[0]["recall_rain"] == rows[0]["accuracy"] == ""
    assert rows[2]["accuracy"]


def test_the_markdown_opens_with_the_verdict_and_holds_the_figures(sample_profile: Profile) -> None:
    text = report_markdown(sample_profile)
    assert text.startswith("## Profile on esc10\n\n**student is 7.0 times faster")
    figures, recall, machines = tables_of(text)
    assert figures[0] == ["", *(one.name for one in sample_profile.subjects)]
    assert figures[1] == [
        "accuracy",
        "98.8 % (93.5 to 100.0) ★",
        *(["92.5 % (85.5 to 96.8)"]),
        *["91.2 % (84.4 to 96.8)"] * 2,
    ]
    speedups = ["speed-up", NONE, "7.0x (6.8 to 7.2)", "9.2x (8.9 to 9.5) ★", NONE]
    assert speedups in [[cell.replace("\N{MULTIPLICATION SIGN}", "x") for cell in line] for line in figures]
    assert [line[0] for line in recall[1:]] == list(sample_profile.subjects[0].scores.classes)  # type: ignore[union-attr]
    assert machines[0] == ["", "this machine", "pi@field-7"]
    assert "busy" in text and "edgekd profile runs/esc10 bundles/pi --host pi@field-7 --layers" in text


def test_names_are_letters_not_markup_in_the_markdown(oddly_named: Profile) -> None:
    bare = oddly_named.model_copy(update={"command": ("edgekd", "profile", "```\n<b>")})
    figures, machines = tables_of(report_markdown(bare))
    assert figures[0] == ["", *(one.name for one in bare.subjects)]
    assert {len(line) for line in figures} == {3}
    assert machines[0] == ["", "this machine"]
    fences = [token for token in MarkdownIt("commonmark").parse(report_markdown(bare)) if token.type == "fence"]
    assert [fence.content for fence in fences] == ["edgekd profile '```\n<b>'\n"]
    assert "```" not in report_markdown(bare.model_copy(update={"command": ()}))


def test_a_machine_is_described_by_what_it_tells(sample_profile: Profile) -> None:
    told = described(sample_profile.machine)
    assert told["clock after"] == "2698 to 2700 of 3500 MHz"
    assert told["busy"].startswith("yes")
    silent = sample_profile.machine.model_copy(
        update={"cpu": None, "governor": None, "mhz": (), "max_mhz": None, "temperatures": {}, "busy": False}
    )
    assert described(silent) == {
        "CPU": "not told, 2 logical",
        "busy": "no",
        "load before": "1.70",
        "used by others": "0.90 CPUs",
    }

"""`report.md`, read back by a parser of Markdown that is not ours."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from edgekd.number_formats import NONE, TIMES
from edgekd.report.markdown import report_markdown
from edgekd.report.results import Profile


@pytest.fixture
def hard_names(bare_profile: Profile) -> Profile:
    """Little in it, with names that are hard on Markdown."""
    names = ('a|b <script>alert("1")</script> & `c` _d_ *e*', "é, \\|\\| [x](y) #1")
    (subject,) = bare_profile.subjects
    return bare_profile.model_copy(
        update={"subjects": tuple(subject.model_copy(update={"name": name}) for name in names)}
    )


def tables_of(markdown: str) -> list[list[list[str]]]:
    """Cells of the tables in `markdown`, as its reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    tables: list[list[list[str]]] = []
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            children = tokens[index + 1].children or []
            assert {child.type for child in children} <= {"text", "text_special", "softbreak"}, "markup in a cell"
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def test_it_opens_with_the_verdict_and_holds_the_figures(sample_profile: Profile) -> None:
    text = report_markdown(sample_profile)
    assert text.startswith("## Profile on esc10\n\n**student is 7.0 times faster")
    figures, recall, machines = tables_of(text)
    assert figures[0] == ["", *(subject.name for subject in sample_profile.subjects)]
    assert figures[1] == [
        "accuracy",
        "98.8% (93.5 to 100.0) ★",
        "92.5% (85.5 to 96.8)",
        *["91.2% (84.4 to 96.8)"] * 2,
    ]
    assert ["speed-up", NONE, f"7.0{TIMES} (6.8 to 7.2)", f"9.2{TIMES} (8.9 to 9.5) ★", NONE] in figures
    assert sample_profile.subjects[0].scores
    assert [line[0] for line in recall[1:]] == list(sample_profile.subjects[0].scores.classes)
    assert machines[0] == ["", "this machine", "pi@field-7"]
    assert "busy" in text and "edgekd profile runs/esc10 bundles/pi --host pi@field-7 --layers" in text


def test_names_are_letters_not_markup(hard_names: Profile) -> None:
    bare = hard_names.model_copy(update={"command": ("edgekd", "profile", "```\n<b>")})
    figures, machines = tables_of(report_markdown(bare))
    assert figures[0] == ["", *(subject.name for subject in bare.subjects)]
    assert {len(line) for line in figures} == {3}
    assert machines[0] == ["", "this machine"]
    fences = [token for token in MarkdownIt("commonmark").parse(report_markdown(bare)) if token.type == "fence"]
    assert [fence.content for fence in fences] == ["edgekd profile '```\n<b>'\n"]
    assert "```" not in report_markdown(bare.model_copy(update={"command": ()}))


def test_no_name_is_html_or_leaves_its_line(sample_profile: Profile) -> None:
    hard = "<img src=x> | \n# a\x1b[31m"
    machine = sample_profile.machine.model_copy(update={"cpu": hard, "temperatures": {hard: 50.0}})
    changes: dict[str, object] = {"dataset": hard, "clips": hard, "verdict": (hard,), "notes": (hard,)}
    changes |= {"machine": machine, "edgekd": hard}
    text = report_markdown(sample_profile.model_copy(update=changes))
    assert "<img" not in text.replace("\\<img", "") and "\x1b" not in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]
    assert len(headings) == 1 and headings[0].startswith("Profile on")
    assert {len(line) for table in tables_of(text)[:1] for line in table} == {5}

"""A figure reads the same wherever it stands: a profile in the terminal, on the page, in Markdown and in sentences."""

from __future__ import annotations

import ast
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from edgekd import report
from edgekd.number_formats import MINUS, NONE, TIMES, percent
from edgekd.report import terminal_profile
from edgekd.report.csv_table import report_csv
from edgekd.report.figures import FIGURES_BY_KEY, known_figures, row
from edgekd.report.markdown import report_markdown
from edgekd.report.page import report_html
from edgekd.report.results import Profile
from edgekd.report.terminal_profile import print_profile
from edgekd.report.verdict import verdict

HEADS = {"accuracy": "accuracy", "macro-F1": "macro_f1", "less baseline": "accuracy_difference"}
HEADS |= {"McNemar": "mcnemar_p", "flip p": "sign_flip_p", "a clip": "joules_per_clip", "days": "battery_days"}
HEADS |= {"error": "calibration_error", "before": "calibration_error_before", "temperature": "temperature"}
HEADS |= terminal_profile.TIME | terminal_profile.COST

Cells = dict[tuple[str, str], str]  # (subject, figure) -> what is read, without marks of the best


class Tables(HTMLParser):
    """The tables of a page by their captions, as rows of text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._inside: list[str] = []
        self._caption = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
        elif tag == "small":
            self._rows[-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "caption" in self._inside:
            self._caption += data
        elif {"td", "th"} & set(self._inside) and data not in {"★", " best"}:
            self._rows[-1][-1] += data


def named(profile: Profile) -> Profile:
    """Short names without spaces, so that the columns of a terminal can be told apart."""
    subjects = [
        subject.model_copy(update={"name": name})
        for subject, name in zip(profile.subjects, ("teacher", "student", "int8", "board"), strict=True)
    ]
    return profile.model_copy(update={"subjects": tuple(subjects)})


def terminal_tables(profile: Profile, capsys: pytest.CaptureFixture[str]) -> list[list[list[str]]]:
    """Every table that is printed, its head first, as cells without their marks."""
    capsys.readouterr()
    print_profile(profile, None)
    lines = capsys.readouterr().out.splitlines()
    tables = []
    for index, printed in enumerate(lines):
        if printed.startswith("──"):
            below = lines[index + 1 :]
            rows = [re.split(r" {2,}", one.strip()) for one in below[: below.index("")]]
            head = re.split(r" {2,}", lines[index - 1].strip())
            tables.append([head, *([name, *(cell.lstrip("*") for cell in cells)] for name, *cells in rows)])
    return tables


def in_terminal(profile: Profile, capsys: pytest.CaptureFixture[str]) -> Cells:
    cells: Cells = {}
    for head, *rows in terminal_tables(profile, capsys):
        if set(head) <= {*HEADS, "interval", "busy", "idle", "by"}:
            for name, *values in rows:
                shown = dict(zip(head, values, strict=True))
                cells |= {(name, HEADS[column]): words for column, words in shown.items() if column in HEADS}
                if "interval" in shown:
                    cells[name, "accuracy"] += f" ({shown['interval']})"
    return cells


def on_page(profile: Profile) -> Cells:
    tables = Tables(report_html(profile)).tables
    key_figures = next(rows for caption, rows in tables.items() if "Small print" in caption)
    keys = {figure.label: figure.key for figure in FIGURES_BY_KEY.values()}
    cells: Cells = {}
    for label, *values in key_figures[1:]:
        for subject, value in zip(profile.subjects, values, strict=False):
            first, _, ends = value.partition("\n")
            cells[subject.name, keys[label]] = first + (f" ({ends})" if ends else "")
    return cells


def in_markdown(profile: Profile) -> Cells:
    tokens = MarkdownIt("commonmark").enable("table").parse(report_markdown(profile))
    keys = {figure.label: figure.key for figure in FIGURES_BY_KEY.values()}
    rows: list[list[str]] = []
    for index, token in enumerate(tokens):
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        elif token.type in {"th_open", "td_open"}:
            rows[-1].append("".join(child.content for child in tokens[index + 1].children or []))
    return {
        (subject, keys[label]): value.removesuffix(" ★")
        for label, *values in rows[1:]
        for subject, value in zip(rows[0][1:], values, strict=True)
    }


def test_every_figure_reads_the_same_in_terminal_page_and_markdown(
    sample_profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = named(sample_profile)
    terminal, page, markdown = in_terminal(profile, capsys), on_page(profile), in_markdown(profile)
    assert page == markdown
    known = known_figures([row(subject) for subject in profile.subjects])
    assert {key for _, key in page} == {figure.key for figures in known.values() for figure in figures}
    assert {key for _, key in terminal} == set(HEADS.values()), "all that the terminal shows was read"
    for (subject, key), words in terminal.items():
        whole = page[subject, key]
        shown = whole if "(" in words else whole.partition(" (")[0]  # a narrow table leaves some intervals out
        assert words == shown, (subject, key)
    assert NONE in terminal.values()


def test_curves_throughput_layers_and_recall_read_the_same_on_the_page(
    sample_profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = named(sample_profile)
    tables = Tables(report_html(profile)).tables
    printed = terminal_tables(profile, capsys)
    noise, length, rates = (
        next(rows for caption, rows in tables.items() if caption.startswith(start))
        for start in ("Accuracy with added noise", "Accuracy on shorter clips", "Clips a second")
    )
    for on_page_rows, unit in ((noise, " dB"), (length, " s")):
        heads = [head.removesuffix(unit) for head in on_page_rows[0][1:]]
        shown = next(table for table in printed if table[0] == heads)
        assert [[name, *(cell.partition(" (")[0] for cell in cells)] for name, *cells in on_page_rows[1:]] == shown[1:]
    shown = next(table for table in printed if table[0][0] == "1/1")
    assert rates[1:] == shown[1:]
    for subject in profile.subjects:
        layers = tables[f"All {len(subject.layers)} layers of {subject.name}"][1:]
        assert [[name, *figures] for name, _, *figures in layers] in [table[1:] for table in printed]
    recall = next(rows for caption, rows in tables.items() if caption.startswith("Recall"))
    assert profile.subjects[0].scores
    assert [cells[1] for cells in recall[1:]] == [percent(share or 0) for share in profile.subjects[0].scores.recall]


def test_the_sentences_hold_the_figures_of_the_tables(sample_profile: Profile) -> None:
    profile = named(sample_profile)
    page = on_page(profile)
    sentences = verdict(profile.subjects[:3], "teacher")
    assert len(sentences) == 2
    for sentence, subject in zip(sentences, ("student", "int8"), strict=True):
        speedup, _, ends = page[subject, "speedup"].removesuffix(")").partition(f"{TIMES} (")
        assert f"{speedup} times faster than teacher ({ends})" in sentence
        assert f"{page[subject, 'smaller'].removesuffix(TIMES)} times smaller" in sentence
        lower = page[subject, "accuracy_difference"].partition(" ")[0].lstrip(MINUS)
        assert f"{lower} points lower" in sentence
    (alone,) = verdict((profile.subjects[1].model_copy(update={"versus": None}),), None)
    for key in ("p50_ms", "p95_ms", "file_bytes", "real_time_factor"):
        assert page["student", key].partition(" (")[0] in alone
    assert page["student", "accuracy"].replace(" (", " of clips (") in alone


def test_the_csv_holds_the_numbers_that_are_read(sample_profile: Profile) -> None:
    profile = named(sample_profile)
    rows = {values["subject"]: values for values in csv.DictReader(io.StringIO(report_csv(profile)))}
    for (subject, key), words in on_page(profile).items():
        value = rows[subject][key]
        assert words.partition(" (")[0] == (FIGURES_BY_KEY[key].written(float(value)) if value else NONE)


@pytest.mark.parametrize("module", sorted(Path(report.__file__).parent.glob("*.py")), ids=lambda module: module.name)
def test_no_module_of_the_room_rounds_by_itself(module: Path) -> None:
    if module.name in {"svg.py", "charts.py", "page_parts.py"}:
        return  # lengths and places in a picture
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            assert not re.search(r"[.%]", ast.unparse(node.format_spec)), f"line {node.lineno}"

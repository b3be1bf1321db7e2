"""Names that mean something to a terminal, a browser, Markdown or a spreadsheet are letters there, and can be read."""

from __future__ import annotations

import csv
import html
import io
import json
import sys
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from edgekd.escaping import (
    csv_text,
    from_csv_text,
    html_command,
    html_text,
    json_text,
    markdown_command,
    markdown_text,
    shortened,
    terminal_text,
)

ESCAPING = (terminal_text, html_text, markdown_text, csv_text)


@pytest.mark.parametrize("escaped", ESCAPING)
def test_a_name_is_one_line_without_control_characters(escaped) -> None:
    hard = "a\nb\r\nc\td\x0be\x1b[31mred\x07\x9b2J\x00\u2028x\u202eevil\udcff\x85y"
    shown = escaped(hard)
    assert len(shown.splitlines()) == 1
    assert all(letter.isprintable() for letter in shown)
    assert "x1b" in shown and "u202e" in shown and "udcff" in shown, "a reader sees what is in it"
    shown.encode()


@pytest.mark.parametrize("escaped", ESCAPING)
@pytest.mark.parametrize("name", ["dog", "crying baby", "ночь", "群 é ñ", "runs/esc10-3"])
def test_plain_names_stay_as_they_are(escaped, name: str) -> None:
    assert escaped(name) == name


@pytest.mark.parametrize("hard", ["<script>x</script>", "&lt;", "\"quoted\" 'too'", "a & b", "]]>"])
def test_html_gives_the_name_back_as_text_and_as_an_attribute(hard: str) -> None:
    element = ElementTree.fromstring(f'<p title="{html_text(hard)}">{html_text(hard)}</p>')
    assert element.text == element.get("title") == hard
    assert html.unescape(html_text(hard)) == hard


@pytest.mark.parametrize(
    "hard",
    [
        *("a|b", "\\|", "`code`", "*bold* _it_", "[x](y)", "![i](y)", "<b>", "&amp;", "# head", "~~gone~~", "$x$"),
        *(
            "- item",
            "+ item",
            "1. item",
            "2) item",
            "> quote",
            "--- line",
            "-5",
            "+1.1 (\N{MINUS SIGN}0.3 to +4.4)",
            "3.14",
        ),
    ],
)
def test_markdown_gives_the_name_back_as_text(hard: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown_text(hard))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == hard
    cells = MarkdownIt("commonmark").enable("table").parse(f"| a |\n| --- |\n| {markdown_text(hard)} |")
    assert [token.type for token in cells].count("td_open") == 1


@pytest.mark.parametrize(
    "hard",
    [
        *(
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1+1",
            "\r=1",
            " =1",
            "\N{FULLWIDTH EQUALS SIGN}1",
            "'=1",
            "''+1",
            "'quoted'",
        ),
        *(
            "a\nb",
            "a b",
            "\\x0a",
            "\\x5cx0a",
            "\\",
            "C:\\users",
            "\x1b[31m\u202e\x00",
            'dog,cat "x"',
            "",
            "\udcff",
            "\x85",
        ),
    ],
)
def test_a_spreadsheet_takes_no_name_for_a_formula_and_we_read_it_back(hard: str) -> None:
    cell = csv_text(hard)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}"))
    assert len(cell.splitlines()) <= 1 and all(letter.isprintable() for letter in cell)
    text = io.StringIO()
    csv.writer(text).writerow(["", cell])
    assert from_csv_text(next(csv.reader(io.StringIO(text.getvalue())))[1]) == hard


def test_json_of_names_is_letters_that_a_terminal_shows() -> None:
    hard = {"a\x1b\x9b\x7f\u202e\u2028": ["群", 1.5, None]}
    assert all(letter.isprintable() for letter in json_text(hard))
    assert json.loads(json_text(hard, indent=2)) == hard
    assert "群" in json_text(hard)


def test_a_command_keeps_its_line_breaks() -> None:
    command = "edgekd profile 'a\nb' '```' <x>\x1b"
    (fence,) = [token for token in MarkdownIt("commonmark").parse(markdown_command(command)) if token.type == "fence"]
    assert fence.content == "edgekd profile 'a\nb' '```' <x>\\x1b\n"
    assert html.unescape(html_command(command)) + "\n" == fence.content


def test_a_terminal_without_the_letters_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert terminal_text("é \N{MINUS SIGN}6.2 ночь") == "é -6.2 ????"


def test_a_long_name_keeps_its_ends() -> None:
    assert shortened("runs/esc10/student", 9) == "runs…dent"
    assert shortened("short", 9) == "short"

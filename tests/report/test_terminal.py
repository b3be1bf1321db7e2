"""Tables and sentences in the terminal: they fit it, and names in them are letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.number_formats import MINUS
from edgekd.quantization.sensitivity import LayerSensitivity, Loss, Mixed, Sensitivity, Step
from edgekd.report import terminal
from edgekd.runs.run import Run


def test_a_table_fits_80_columns_and_never_breaks_a_name_or_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"a-rather-long-name-{number}", *["words " * 30] * 4, "1,234,567") for number in range(3)]
    terminal.table(("name", "notes", "more", "still more", "yet more", "figure"), rows, numbers=("figure",))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for number in range(3):
        assert f"a-rather-long-name-{number} " in shown
    assert shown.count("1,234,567") == 3
    assert "\x1b" not in shown, "plain text when piped"


def test_what_is_in_a_cell_is_letters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("class", "clips"), [("[bold]x[/bold] :dog:", "1"), ("a\nb\x1b[31m", "2")], numbers=("clips",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["[bold]x[/bold]", ":dog:", "1"]
    assert lines[3].split() == ["a", "b\\x1b[31m", "2"]
    assert len(lines) == 4


def test_a_sentence_is_one_line_and_a_paragraph_fits(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.line("x\n" * 100)
    terminal.paragraph("word\n" * 100, "  ")
    first, *rest = capsys.readouterr().out.splitlines()
    assert len(first) == 200
    assert max(map(len, rest)) <= 80 and rest[1].startswith("  word word")


def test_a_run_is_shown_as_the_profile_would(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_run(tiny_run)
    shown = capsys.readouterr().out
    test = tiny_run.report()["test"]
    for subject, title in terminal.SUBJECTS.items():
        accuracy, (low, high) = test[subject]["accuracy"], test[subject]["accuracy_interval"]
        line = next(line for line in shown.splitlines() if line.startswith(title))
        assert f"{accuracy:.1%}" in line and f"{100 * low:.1f} to {100 * high:.1f}" in line


def test_a_teacher_without_a_head_is_told_of_in_words(tiny_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_run(tiny_copy)
    assert "no head" not in capsys.readouterr().out
    tiny_copy.forget("test", "teacher")
    tiny_copy.update_report("training", {"teacher": {"name": "yamnet", "scored": False}})
    terminal.print_run(tiny_copy)
    shown = capsys.readouterr().out
    assert "The teacher has no head for these classes: it gave embeddings or taps, and no accuracy." in shown
    assert not [line for line in shown.splitlines() if line.startswith("teacher")]


def test_what_int8_costs_is_told_to_the_hundredth_of_a_point(capsys: pytest.CaptureFixture[str]) -> None:
    alone, spared = Loss(0.352, 31.26), Loss(-0.1, 28.0)
    layers = (LayerSensitivity("stem.0", 25_482, alone, spared),)
    terminal.print_sensitivity(Sensitivity("recipe", 400, 0.9251, Loss(1.0, 27.0), layers), Path("run"))
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].split() == ["stem.0", "25.5", "k", "0.35", "31.3", f"{MINUS}0.10", "28.0"]
    assert "All in int8: 1.00 points lost, 27.0 dB." in shown
    assert "(float: 92.5%)" in shown and "(one: 0.25 points)" in shown


def test_which_layers_stay_in_float_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (Step("head", True, Loss(0.4, 30.0)),)
    terminal.print_mixed(Mixed(("head",), 0.5, 400, Loss(1.25, 27.0), Loss(0.4, 30.0), steps))
    assert capsys.readouterr().out.splitlines() == [
        "All in int8: 1.25 points lost, 27.0 dB, on 400 validation clips, calibrated;",
        "at most 0.5 may be lost.",
        "  head left in float: 0.40 points, 30.0 dB",
        "Left in float: head (0.40 points, 30.0 dB)",
    ]

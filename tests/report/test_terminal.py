from __future__ import annotations

import pytest

from edgekd.report import terminal


def test_a_table_fits_80_columns_and_never_breaks_a_name_or_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"a-rather-long-name-{number}", *["words " * 30] * 4, "1,234,567") for number in range(3)]
    terminal.table(("name", "notes", "more", "still more", "yet more", "figure"), rows, numbers=("figure",))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for number in range(3):
        assert f"a-rather-long-name-{number} " in shown
    assert shown.count("1,234,567") == 3
    assert "\x1b" not in shown, "plain text when piped"


def test_figures_are_short() -> None:
    assert (terminal.percent(0.97531), terminal.interval((0.5, 1.0))) == ("97.5 %", "50.0-100.0")

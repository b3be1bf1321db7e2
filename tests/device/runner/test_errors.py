"""Errors as a person sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.device.runner.commands import main
from edgekd.device.runner.errors import BadSamples, RunnerError, WrongUsage, complain


def test_debugging_shows_where_an_error_came_from(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKD_DEBUG", "1")
    assert main(["predict", "missing.wav"], written) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_complaint_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    complain("the bundle is gone. Copy it again.", RunnerError())
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "edgekd_runner: the bundle is gone. Copy it again.\n")


def test_every_error_is_a_runner_error_with_its_exit_code() -> None:
    assert [(issubclass(kind, RunnerError), kind.exit_code) for kind in (RunnerError, WrongUsage, BadSamples)] == [
        (True, 3),
        (True, 2),
        (True, 3),
    ]

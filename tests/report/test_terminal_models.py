from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.models.student_costs import student_facts
from edgekd.models.teachers.table import TEACHERS
from edgekd.report.terminal_models import print_students, print_teacher, print_teachers


def test_students_are_listed_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    print_students(student_facts(), 5.0, 10)
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["hltdnn_ds"][1:5] == ["33.5", "k", "11.9", "M"]
    assert rows["hltdnn"][-4:] == ["1", "nothing", "the", "paper's"]
    assert rows["yamnet-cut7"][-4:] == ["0.25-1", "yamnet", "few", "labels"]


def test_teachers_are_listed_with_what_their_weights_need(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "yamnet.h5").touch()
    print_teachers()
    shown = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    rows = {line.split()[0]: line.rstrip() for line in shown.splitlines()}
    endings = {"yamnet": "fetched", "cnn14": "to fetch", "wavlm": "a file", "ast": "a folder", "convnet": "none needed"}
    for name, ending in endings.items():
        assert rows[name].endswith(f" {ending}")
    assert set(TEACHERS) <= set(rows)


def test_a_teacher_is_shown_with_where_its_weights_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    print_teacher("cnn14")
    shown = capsys.readouterr().out
    assert shown.startswith("cnn14: PANNs CNN14")
    for words in ("32,000 Hz, resampled inside", "64 x 250 x 32", "CC BY 4.0", "327,428,481 bytes, sha256:0dc499"):
        assert words in shown
    print_teacher("convnet")
    shown = capsys.readouterr().out
    assert "the data's rate and front end" in shown and "file" not in shown.replace("weights", "")
    with pytest.raises(UsageError, match="Did you mean 'cnn14'"):
        print_teacher("cnn41")

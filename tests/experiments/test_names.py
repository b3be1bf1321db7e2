from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.config import DistillConfig
from edgekd.errors import InputError, UsageError
from edgekd.experiments.names import check_names

WRONG = DistillConfig(
    student="hltdn",
    data={"dataset": "esc5"},
    teacher={"name": "yamnt"},
    loss={"terms": ["classification", "distilation", "distillation"]},
    quantize={"recipe": "defalt"},
)


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        check_names(WRONG, int8=True)
    for name in ("distillation", "esc50", "hltdnn", "yamnet", "default"):
        assert f"Did you mean '{name}'?" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_used_are_not_checked() -> None:
    check_names(DistillConfig(), int8=True)
    alone = {"teacher": {"name": "nobody"}, "loss": {"terms": ["classification"]}, "quantize": {"recipe": "none"}}
    check_names(DistillConfig(**alone), int8=False)
    with pytest.raises(UsageError, match=r"^Unknown calibration recipe 'none'"):
        check_names(DistillConfig(**alone), int8=True)


@pytest.mark.usefixtures("own_code_trusted")
def test_a_module_of_the_user_s_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "names_test_module.py").write_text("1 / 0\n")
    config = DistillConfig(
        student="names_test_module:make", student_folder=tmp_path, loss={"terms": ["classification"]}
    )
    with pytest.raises(InputError, match=r"importing names_test_module failed: ZeroDivisionError"):
        check_names(config, int8=False)

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import demo
from edgekd.config import DistillConfig, parse
from edgekd.quantization import qat
from edgekd.report.results import read_profile
from edgekd.runs.run import Run


def test_the_chain_of_the_demo_is_a_valid_configuration() -> None:
    config = parse(DistillConfig, demo.DEMO, "demo")
    assert config.data.dataset == "sonar_sim"
    assert config.loss.terms == ("classification", "statistical", "structural", "distillation")


def test_an_existing_folder_is_refused_with_what_the_demo_can_do(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("demo", "--out", tmp_path).refusal(2)
    assert line == f"{tmp_path} exists already. Replace it (--overwrite) or name another folder (--out)."


def test_an_unknown_target_is_told_before_minutes_have_passed(edgekd: Callable, tmp_path: Path) -> None:
    assert "Did you mean 'jetson'?" in edgekd("demo", "--out", tmp_path / "demo", "--target", "jetsn").refusal(2)
    assert not (tmp_path / "demo").exists()


def test_the_demo_joins_the_stages_and_shows_them_side_by_side(
    edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: Run
) -> None:
    trained: list[DistillConfig] = []

    def distill(config: DistillConfig, *_: Any, overwrite: bool) -> Run:
        """A training that was done before."""
        trained.append(config)
        return Run.open(Path(shutil.copytree(tiny_run.folder, config.out)))

    monkeypatch.setattr(sys.modules["edgekd.training.distill"], "distill", distill)
    monkeypatch.setattr(qat, "quantize", lambda run, **_: run)
    out = tmp_path / "demo"
    shown = edgekd("demo", "--out", out, "--device", "cpu", "--quiet")
    assert (shown.code, shown.err) == (0, "")
    assert (trained[0].out, trained[0].device, trained[0].data.dataset) == (out, "cpu", "sonar_sim")
    found = read_profile(out / "profile" / "report.json")
    assert [subject.name for subject in found.subjects] == ["teacher", "student", "int8"]
    assert found.command[:3] == ("edgekd", "profile", str(out))
    assert f"Try: edgekd predict {out / 'bundle'} " in shown.out
    assert (out / "bundle" / "model.onnx").is_file()

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig, parse
from edgekd.demo import SETTINGS, demonstrate
from edgekd.report.results import read_profile
from edgekd.runs.run import Run


def test_the_chain_of_the_demo_is_a_valid_configuration() -> None:
    config = parse(DistillConfig, SETTINGS, "demo")
    assert config.data.dataset == "sonar_sim"
    assert config.loss.terms == ("classification", "statistical", "structural", "distillation")


def test_the_demo_joins_the_stages(tmp_path: Path, tiny_run: Run) -> None:
    trained: list[DistillConfig] = []

    def train(config: DistillConfig, *_: Any, overwrite: bool) -> Run:
        """A training that was done before."""
        trained.append(config)
        return Run.open(Path(shutil.copytree(tiny_run.folder, config.out)))

    out = tmp_path / "demo"
    done = demonstrate(out, "cpu", "cpu", train=train)
    assert (trained[0].out, trained[0].device, trained[0].data.dataset) == (out, "cpu", "sonar_sim")
    assert (done.run.folder, done.bundle.folder) == (out, out / "bundle")
    assert (out / "bundle" / "model.onnx").is_file()
    profile = read_profile(out / "profile" / "report.json")
    assert profile == done.profile
    assert [subject.name for subject in profile.subjects] == ["teacher", "student", "int8"]
    assert profile.command[:3] == ("edgekd", "profile", str(out))

"""The public names as a user has them: lazy, typed, and the same whatever was imported before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd

ROOT = Path(edgekd.__file__).parent.parent

# Under --strict an ignored error that is none is an error: the last lines must be wrong, and in the way that they say.
USER = """\
from pathlib import Path
from typing import assert_type

import edgekd
from edgekd.config import AugmentConfig, DataConfig, FrontendConfig, LossConfig, ProfileConfig, QuantizeConfig
from edgekd.config import SimulationConfig, TeacherConfig, TrainingConfig
from edgekd.experiments.comparison import Comparison
from edgekd.exporting.manifest import Bundle
from edgekd.report.results import Profile
from edgekd.ssatkd import SSATKDLoss, StatisticalTexture, StructuralTexture
from edgekd.ssatkd import distillation_loss, statistical_loss, structural_loss


def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
    print(stage, done, total, figures)


config = edgekd.DistillConfig(data=DataConfig(data_dir=Path("recordings"), clip_seconds=2.0), width=0.5)
run = edgekd.distill(config, progress, resume=True)
assert_type(run, edgekd.Run)
assert_type(edgekd.quantize(run, QuantizeConfig(epochs=3), progress), edgekd.Run)
bundle = edgekd.export(run, "raspberry-pi-5", Path("bundle"), progress)
assert_type(bundle, Bundle)
assert_type(edgekd.profile([run, bundle, Path("other")], ProfileConfig(device="cpu"), progress), Profile)
assert_type(edgekd.profile(run), Profile)
assert_type(edgekd.compare(config, ["none", "ssatkd"], seeds=(0, 1), progress=progress), Comparison)
assert_type(run.open_data().side("test").groups, tuple[str, ...])
losses = [distillation_loss, statistical_loss, structural_loss]
loss = SSATKDLoss(LossConfig(temperature=3.0), student_channels=8, teacher_channels=16)
everything_has_a_default = (
    *(edgekd.DistillConfig(), AugmentConfig(), DataConfig(), FrontendConfig(), LossConfig(), ProfileConfig()),
    *(QuantizeConfig(), SimulationConfig(), TeacherConfig(), TrainingConfig()),
)

edgekd.distil(config)  # type: ignore[attr-defined]
edgekd.distill(config, resumed=True)  # type: ignore[call-arg]
edgekd.quantize(config)  # type: ignore[arg-type]
edgekd.export(run, 5)  # type: ignore[arg-type]
edgekd.compare(config, seeds=3, methods=["none"])  # type: ignore[arg-type]
edgekd.DistillConfig(widths=0.5)  # type: ignore[call-arg]
SSATKDLoss(LossConfig(), "8", 16)  # type: ignore[arg-type]
StructuralTexture("3")  # type: ignore[arg-type]
StatisticalTexture("3")  # type: ignore[arg-type]
"""

# No plugin, as users have none. Torch is not read, which takes half a minute: only its own names are of no type then.
SETTINGS = """\
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,numpy.*,rich.*]
follow_imports = skip
follow_imports_for_stubs = True
"""


def test_a_users_file_is_checked_against_the_public_names(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "user.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# Modules and rooms whose names are, or are like, those of the public functions.
NAMESAKES = (
    *("edgekd.cli.app", "edgekd.experiments.compare", "edgekd.exporting.export", "edgekd.profiling.profiler"),
    *("edgekd.experiments.chain", "edgekd.training.distill"),
)


@pytest.mark.parametrize("first", ["", f"import {', '.join(NAMESAKES)}"], ids=["names first", "modules first"])
def test_a_public_name_is_what_it_is_whatever_is_imported_first(first: str) -> None:
    lines = [
        first,
        "import edgekd, inspect",
        "for name in ('compare', 'distill', 'export', 'profile', 'quantize'):",
        "    assert inspect.isfunction(getattr(edgekd, name)), (name, getattr(edgekd, name))",
        "assert inspect.isclass(edgekd.DistillConfig) and inspect.isclass(edgekd.Run)",
        f"import {', '.join(NAMESAKES)}",
        "assert inspect.isfunction(edgekd.export) and inspect.isfunction(edgekd.profile), 'replaced by a module'",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_no_room_has_the_name_of_a_public_function() -> None:
    """The import system would put the room in the function's place as soon as anything in it is imported."""
    package = Path(edgekd.__file__).parent
    assert not [name for name in edgekd.__all__ if (package / name).exists() or (package / f"{name}.py").exists()]


def test_all_public_names_are_offered_and_others_refused() -> None:
    assert set(edgekd.__all__) <= set(dir(edgekd))
    with pytest.raises(AttributeError, match="module 'edgekd' has no attribute 'distil'"):
        edgekd.__getattr__("distil")

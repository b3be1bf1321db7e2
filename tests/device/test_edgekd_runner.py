"""The file that ships, run as a device runs it: a process of its own, with numpy and onnxruntime and nothing else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile

from edgekd.audio import read as audio
from edgekd.device import RUNNER_FILE

if TYPE_CHECKING:
    from tests.device.conftest import Toy


@pytest.fixture
def recording(toy: Toy, tmp_path: Path) -> Path:
    """A tenth of a second more than a clip of the middle tone, 16-bit mono at the bundle's rate."""
    path = tmp_path / "middle.wav"
    soundfile.write(path, toy.tone("middle", 0.2), toy.RATE)
    return path


def on_device(
    bundle: Path,
    *arguments: str | Path,
    packages: tuple[str, ...] = ("numpy", "onnxruntime"),
    before: str = "",
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run the bundle's own runner, after the code `before`, where only the standard library and `packages` can be
    imported."""
    code = f"""
import runpy, sys
allowed = sys.stdlib_module_names | {set(packages)!r}
class OnlyAllowed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, OnlyAllowed())
sys.argv = sys.argv[1:]
{before}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, "-I", "-c", code, str(bundle / "edgekd_runner.py"), *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, check=False)


def test_verify_needs_only_numpy_and_onnxruntime(written: Path) -> None:
    outcome = on_device(written, "verify")
    assert outcome.returncode == 0, outcome.stderr
    assert "5 unchanged" in outcome.stdout
    assert "100.0%" in outcome.stdout


def test_predict_needs_only_numpy_and_onnxruntime(written: Path, recording: Path) -> None:
    outcome = on_device(written, "predict", recording)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split()[:2] == [str(recording), "middle"]
    assert not (written / "__pycache__").exists()


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (("numpy",), "onnxruntime is not installed. Next: python3 -m pip install 'onnxruntime>=1.17'"),
        ((), "numpy is not installed. Next: python3 -m pip install numpy onnxruntime"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    written: Path, packages: tuple[str, ...], message: str
) -> None:
    outcome = on_device(written, "verify", packages=packages)
    assert outcome.returncode == 3
    assert outcome.stderr == f"edgekd_runner: {message}\n"


def test_an_unforeseen_failure_is_one_line_and_a_traceback_only_on_demand(bundle: Path) -> None:
    fault = "import hashlib; hashlib.sha256 = None"
    outcome = on_device(bundle, "verify", before=fault)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "edgekd_runner: unforeseen failure: TypeError: 'NoneType' object is not callable. EDGEKD_DEBUG=1 shows where.\n"
    )
    outcome = on_device(bundle, "verify", before=fault, EDGEKD_DEBUG="1")
    assert outcome.returncode == 1
    assert "Traceback" in outcome.stderr


def test_the_runner_imports_nothing_but_what_a_device_has() -> None:
    tree = ast.parse(RUNNER_FILE.read_text(), feature_version=(3, 8))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime", "tensorrt"}


def test_a_device_hears_the_numbers_of_training(toy: Toy, written: Path, tmp_path: Path) -> None:
    both = toy.tone("high", 0.1, 44_100, 0.12) + toy.tone("low", 0.1, 44_100, 0.1)
    soundfile.write(tmp_path / "both.wav", both, 44_100, subtype="FLOAT")
    outcome = on_device(written, "predict", "--json", "--top", "3", tmp_path / "both.wav")
    assert outcome.returncode == 0, outcome.stderr
    (row,) = json.loads(outcome.stdout)["files"]
    scores = toy.scores(audio.read(tmp_path / "both.wav", toy.RATE)[None])[0]
    expected = dict(zip(toy.TONES, scores.tolist(), strict=True))
    assert {entry["class"]: entry["score"] for entry in row["top"]} == pytest.approx(expected, abs=2e-6)

"""`build_engine.sh`, run with a stand-in for `trtexec` that records what it is called with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekd.export.targets import TensorRT, load_target
from edgekd.export.tensorrt import build_script, precision_flags, trtexec_arguments

# Records its arguments and writes the file it is asked for, as trtexec does.
TRTEXEC = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
for argument in "$@"; do
    case $argument in --saveEngine=*) printf engine > "${argument#--saveEngine=}" ;; esac
done
exit "${TRTEXEC_STATUS:-0}"
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A folder with the script for JetPack 6.2, and `bin/trtexec`."""
    tensorrt = load_target("jetson").tensorrt
    assert tensorrt is not None
    (tmp_path / "build_engine.sh").write_text(build_script(tensorrt, 160_000))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "trtexec"
    program.write_text(TRTEXEC)
    program.chmod(0o755)
    return tmp_path


def build(board: Path, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("this machine has the real trtexec, which the script would prefer")
    variables = {"PATH": path, "RECORD": str(board / "record"), **environment}
    script = [shutil.which("sh") or "/bin/sh", str(board / "build_engine.sh")]
    return subprocess.run(script, env=variables, cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("release", "flags"),
    [
        ((8, 5), ("--int8",)),
        ((10, 3), ("--int8",)),
        ((10, 11), ("--int8",)),
        ((10, 12), ("--stronglyTyped",)),
        ((10, 16, 1), ("--stronglyTyped",)),
        ((11, 0), ()),
        ((11, 4, 1), ()),
    ],
)
def test_precision_flags_follow_the_release(release: tuple[int, ...], flags: tuple[str, ...]) -> None:
    assert precision_flags(release) == flags


@pytest.mark.parametrize("version", ["8.5", "10.3", "10.12", "11.4.1"])
def test_the_log_mel_is_never_allowed_half_precision(version: str) -> None:
    arguments = trtexec_arguments(TensorRT(version=version), 160_000)
    assert not {"--fp16", "--bf16", "--best"} & set(arguments)
    assert "--noTF32" in arguments


def test_older_trtexec_has_another_word_for_building_only() -> None:
    assert trtexec_arguments(TensorRT(version="8.5"), 1)[-1] == "--buildOnly"
    assert trtexec_arguments(TensorRT(version="8.6"), 1)[-1] == "--skipInference"


def test_the_script_calls_trtexec_with_the_exact_line(board: Path) -> None:
    outcome = build(board, f"{board / 'bin'}:{os.environ['PATH']}")
    assert outcome.returncode == 0, outcome.stderr
    assert (board / "record").read_text().split() == [
        "--onnx=model.onnx",
        "--saveEngine=model.engine.part",
        "--int8",
        "--noTF32",
        "--minShapes=waveform:1x160000",
        "--optShapes=waveform:1x160000",
        "--maxShapes=waveform:8x160000",
        "--skipInference",
    ]
    assert (board / "model.engine").read_text() == "engine"
    assert not (board / "model.engine.part").exists()


def test_a_failed_build_leaves_no_engine(board: Path) -> None:
    outcome = build(board, f"{board / 'bin'}:{os.environ['PATH']}", TRTEXEC_STATUS="1")
    assert outcome.returncode == 1
    assert not list(board.glob("model.engine*"))


def test_without_trtexec_the_script_says_what_to_install(board: Path) -> None:
    tools = board / "tools"  # what the script needs, and no trtexec
    tools.mkdir()
    for name in ("dirname", "rm", "mv"):
        (tools / name).symlink_to(shutil.which(name) or name)
    outcome = build(board, str(tools))
    assert outcome.returncode == 3
    assert "no trtexec" in outcome.stderr
    assert "sudo apt install" in outcome.stderr


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_script_is_valid_in_every_shell(board: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([program, "-n", str(board / "build_engine.sh")], check=True)

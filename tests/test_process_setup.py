from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd.process_setup import python_environment

USED_AGAIN = """
import resource
from edgekd.process_setup import keep_freed_memory
{}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(50 << 20)
before = faults()
for _ in range(10):
    bytearray(50 << 20)
print(faults() - before)
"""


def page_faults(first: str, **environment: str) -> int:
    """Of allocating 50 MB ten times over."""
    command = [sys.executable, "-c", USED_AGAIN.format(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_that_was_freed_is_used_again_unless_the_user_says_otherwise() -> None:
    pages = 10 * (50 << 20) // os.sysconf("SC_PAGESIZE")
    plain = page_faults("")
    if plain < pages // 16:  # large pages, or another allocator
        pytest.skip(f"here it costs {plain} page faults to begin with")
    assert page_faults("keep_freed_memory()") < plain // 10
    assert page_faults("keep_freed_memory()", MALLOC_TRIM_THRESHOLD_="131072") > plain // 2


LOOK = "import importlib.util; print(importlib.util.find_spec('trap_of_tests') is not None)"


@pytest.mark.parametrize("named", [None, "", ":", ".", "HERE", "{root}:", ":elsewhere:.:{root}"])
def test_a_python_that_is_started_finds_nothing_in_the_folder_it_is_in(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_of_tests.py").touch()
    monkeypatch.chdir(tmp_path)
    if named is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        root = Path(edgekd.__file__).parents[1]
        monkeypatch.setenv("PYTHONPATH", named.format(root=root).replace("HERE", str(tmp_path)))

    def finds(**environment: str) -> str:
        command = [sys.executable, "-c", LOOK]
        return subprocess.run(command, capture_output=True, text=True, check=True, **environment).stdout.strip()

    assert finds() == "True", "the trap works"
    assert finds(env=python_environment()) == "False"


def test_a_package_that_was_started_in_its_folder_is_still_there_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = str(Path(edgekd.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setattr(sys, "path", [root, *sys.path])
    assert python_environment()["PYTHONPATH"] == f"{root}{os.pathsep}elsewhere"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert python_environment()["PYTHONPATH"] == "elsewhere"
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.chdir(root)
    assert python_environment()["PYTHONPATH"] == root


TRAPS = ("typer", "numpy", "torch", "rich", "json", "pydantic", "onnxruntime", "argparse")


@pytest.mark.parametrize("started", ["-m edgekd", "RUNNER"])
def test_what_lies_in_a_data_set_is_not_run_by_what_is_started_in_it(started: str, tmp_path: Path) -> None:
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    root, environment = Path(edgekd.__file__).parents[1], {**os.environ}
    environment["PYTHONPATH"] = str(root)
    command = started.split()
    if started == "RUNNER":
        runner = tmp_path / "edgekd_runner.py"  # as in a bundle: the traps lie beside it
        runner.write_bytes((root / "edgekd" / "device" / "edgekd_runner.py").read_bytes())
        command = [str(runner)]
        environment["PYTHONPATH"] = f"{os.pathsep}{root}"
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_training_looks_for_garbage_as_often_as_python_does() -> None:
    code = "import gc, sys\nfrom edgekd.cli.app import app\ntry:\n    app()\nfinally:\n    print(gc.get_threshold()[0])"
    for command, expected in (("targets", "50000"), ("distill", "700")):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.split()[-1] == expected

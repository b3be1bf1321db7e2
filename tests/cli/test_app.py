from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd import __version__
from edgekd.cli import app
from edgekd.errors import GateError, InputError, UsageError

CHAIN = ("distill", "quantize", "export", "profile", "predict")
COMMANDS = (*CHAIN, "compare", "score", "data", "targets", "students", "teachers", "doctor", "demo")
HEAVY = {"torch", "torchaudio", "onnx", "onnxruntime", "matplotlib"}
SLOW = {"pydantic", "rich", "importlib.metadata"}
READS_NOTHING = ["--help", "--version"]  # no settings, no boards


@pytest.mark.parametrize("arguments", [["--help"], ["targets"], ["teachers"], ["distill", "--help"]])
def test_what_only_prints_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import atexit, sys
from edgekd.cli.app import main
sys.argv = ["edgekd", *{arguments!r}]
atexit.register(lambda: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr))
main()
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    print(f"edgekd {' '.join(arguments)}: {time.perf_counter() - started:.2f} s")
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    ("argument", "kept_out"),
    [
        *((argument, {"pydantic", "rich", "importlib.metadata"}) for argument in READS_NOTHING),
        ("targets", {"edgekd.config", "edgekd.exporting.targets"}),
    ],
)
def test_what_reads_no_settings_loads_nothing_that_checks_them(argument: str, kept_out: set[str]) -> None:
    code = f"""
import atexit, sys
from edgekd.cli.app import main
sys.argv = ["edgekd", {argument!r}]
atexit.register(lambda: print(sorted({kept_out!r} & set(sys.modules)), file=sys.stderr))
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    ("arguments", "computes"),
    [
        (["export", "nowhere", "--target", "cpu"], True),
        (["profile", "nowhere"], True),
        (["predict", "nowhere", "a.wav"], False),
        (["detect", "nowhere", "a.wav"], False),
    ],
)
def test_what_does_not_train_loads_nothing_that_trains(arguments: list[str], computes: bool, tmp_path: Path) -> None:
    """Up to the first error, which is that there is no run: by then what the command needs has been imported, but for
    torch where a bundle needs none."""
    code = f"""
import atexit, sys
from edgekd.cli.app import main
sys.argv = ["edgekd", *{arguments!r}]
training = lambda: [name for name in sys.modules if name.startswith("edgekd.training")]
atexit.register(lambda: print("torch" in sys.modules, training()))
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, f"{computes} []\n"), done.stderr
    assert "nowhere: no such" in done.stderr


def test_help_names_every_command(edgekd: Callable) -> None:
    shown = edgekd("--help")
    assert shown.code == 0
    assert all(f"\n  {command} " in shown.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(edgekd: Callable, command: str) -> None:
    shown = edgekd(command, "-h")
    assert shown.code == 0
    assert f"edgekd {command} " in shown.out.splitlines()[0]
    assert "{files}" not in shown.out, "arguments are named by what they are"


def test_the_version_is_shown(edgekd: Callable) -> None:
    assert edgekd("--version").out == f"edgekd {__version__}\n"


def test_the_module_runs_like_the_script() -> None:
    done = subprocess.run([sys.executable, "-m", "edgekd", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"edgekd {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exprot"], "No such command 'exprot'. Did you mean 'export'?"),
        (["distill", "--studnt", "hltdnn"], "No such option: --studnt"),
        (["distill", "--epochs", "many"], "--epochs"),
        (["export", "somewhere"], "Missing option '--target'"),
        (["predict", "somewhere"], "Missing argument 'FILE'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(edgekd: Callable, arguments: list[str], words: str) -> None:
    done = edgekd(*arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err.splitlines()[-1]


def ended_by(edgekd: Callable, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[int, str]:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    done = edgekd()
    return done.code, done.err


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (InputError, 3), (GateError, 4)])
def test_each_kind_of_error_has_its_exit_code(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], code: int
) -> None:
    assert ended_by(edgekd, monkeypatch, kind("what, where, what next")) == (
        code,
        "edgekd: error: what, where, what next\n",
    )


def test_a_bug_ends_with_1_and_says_how_to_see_more(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    code, line = ended_by(edgekd, monkeypatch, ZeroDivisionError("division by zero"))
    assert code == 1
    assert line == ("edgekd: unforeseen failure: ZeroDivisionError: division by zero (EDGEKD_DEBUG=1 shows where)\n")


def test_what_the_machine_refuses_is_bad_input(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/srv/run")
    code, line = ended_by(edgekd, monkeypatch, refused)
    assert code == 3
    assert line.startswith("edgekd: error: /srv/run: Permission denied. Check the path, ")


def test_a_library_that_cannot_be_loaded_is_not_the_users_path(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, line = ended_by(edgekd, monkeypatch, OSError("libcudart.so.12: cannot open shared object file"))
    assert code == 1
    assert "unforeseen failure: OSError: libcudart" in line


@pytest.mark.parametrize("error", [InputError("bad"), ZeroDivisionError("bad"), OSError(errno.ENOSPC, "full")])
def test_debugging_shows_where_an_error_came_from(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setenv("EDGEKD_DEBUG", "1")
    with pytest.raises(type(error)):
        ended_by(edgekd, monkeypatch, error)

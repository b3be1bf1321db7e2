"""A run folder that somebody has sent: it may name code, and no command runs it unless the user names it too."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgekd as package
from edgekd.errors import UsageError
from edgekd.runs.run import Run

TRAP = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
def make(*_):
    raise SystemExit(0)
"""


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code that a run names, which is not the current one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "sent_code.py").write_text(TRAP)
    return folder


def names(run: Path, code: Path, which: str) -> Path:
    """`run`, whose settings now name the code as its teacher or student."""
    config = Run.open(run).config
    text = (run / "config.toml").read_text()
    if which == "student":
        text = f'student_folder = "{code}"\n' + text.replace(
            f'student = "{config.student}"', 'student = "sent_code:make"'
        )
    else:
        text = text.replace(f'name = "{config.teacher.name}"', f'name = "sent_code:make"\nfolder = "{code}"')
    (run / "config.toml").write_text(text)
    assert "sent_code:make" in str(Run.open(run).config)
    return run


COMMANDS = {
    "profile": ("teacher", "profile RUN --quick"),
    "profile RUN/teacher": ("teacher", "profile RUN/teacher --quick"),
    "profile RUN/int8": ("student", "profile RUN/int8 --quick"),
    "distill --resume": ("teacher", "distill --out RUN --resume"),
    "distill --config": ("teacher", "distill --config RUN/config.toml --out NEW"),
    "dry run": ("student", "distill --config RUN/config.toml --dry-run"),
    "pretrain": (
        "teacher",
        "pretrain --config RUN/config.toml --terms embedding --set teacher.adaptation=head --unlabelled RUN --out NEW",
    ),
    "compare": ("student", "compare --config RUN/config.toml --methods labels --seeds 1 --out NEW"),
    "compare's method": ("", "compare --config RUN/config.toml --methods mine=METHOD --seeds 1 --out NEW"),
    "quantize": ("student", "quantize RUN"),
    "sensitivity": ("student", "quantize RUN --sensitivity"),
    "export": ("student", "export RUN --target cpu"),
    "predict": ("student", "predict RUN RUN/curves.png"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_what_a_file_names_unless_the_user_does(
    name: str, edgekd: Callable, tiny_copy: Run, sent: Path, tmp_path: Path
) -> None:
    which, line = COMMANDS[name]
    run = names(tiny_copy.folder, sent, which) if which else tiny_copy.folder
    method = tmp_path / "method.toml"
    labels_alone = '[loss]\nterms = ["classification"]\n'  # no teacher is trained before what is looked at
    method.write_text(f'student = "sent_code:make"\nstudent_folder = "{sent}"\n{labels_alone}')
    places = {"RUN": run, "NEW": tmp_path / "new", "METHOD": method}
    words = [re.sub("|".join(places), lambda found: str(places[found[0]]), word) for word in line.split()]
    if words[0] != "predict":
        words.append("--quiet")
    said = edgekd(*words).refusal(2)
    assert "sent_code:make' is code" in said
    assert not (sent / "ran").exists()

    typed = re.search(r"(--trust .*) \(in Python", said)
    assert typed is not None
    again = edgekd(*words, *shlex.split(typed[1]))
    assert (sent / "ran").exists(), "what the line says is enough"
    assert again.code == 0 if name == "dry run" else again.code == 3, "and SystemExit(0) is no success"
    assert "SystemExit" in again.err or name in ("dry run", "pretrain")  # which make nothing with it


def test_python_asks_for_the_same(tiny_copy: Run, sent: Path) -> None:
    run = names(tiny_copy.folder, sent, "student")
    for call in (Run.open(run).student, lambda: package.export(Run.open(run), "cpu"), lambda: package.profile(run)):
        with pytest.raises(UsageError, match=r"in Python: trust=\['"):
            call()
    assert not (sent / "ran").exists()
    with pytest.raises(Exception, match="SystemExit"):
        package.export(Run.open(run), "cpu", trust=[f"{sent}/sent_code:make"])
    assert (sent / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["--teacher", "sent_code:make"], "here"),
        (["--set", "teacher.name=sent_code:make"], "here"),
        (["--teacher", "convnet,sent_code:make"], "here"),
        (["--teacher", "sent_code:make", "--set", "teacher.folder=SENT"], "elsewhere"),
        (["--student", "sent_code:make-cut3"], "here"),
    ],
)
def test_a_flag_that_names_code_is_enough(
    flags: list[str], place: str, edgekd: Callable, sent: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "here":
        monkeypatch.chdir(sent)
    flags = [flag.replace("SENT", str(sent)) for flag in flags]
    edgekd("distill", "--data-dir", recordings, *flags, "--dry-run")
    assert (sent / "ran").exists()


@pytest.mark.parametrize("raised", ["SystemExit(0)", "GeneratorExit", "type('Odd', (BaseException,), {})()"])
def test_code_of_the_user_s_that_leaves_does_not_end_a_command_well(
    raised: str, edgekd: Callable, sent: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sent)
    (sent / "sent_code.py").write_text(f"raise {raised}")
    said = edgekd("distill", "--data-dir", recordings, "--teacher", "sent_code:make").refusal(3)
    assert "importing sent_code failed: " in said


def test_so_does_not_what_leaves_later(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None:
        raise SystemExit(0)

    monkeypatch.setattr("edgekd.models.student_costs.student_facts", lambda *_: leave())
    assert "ended this command (SystemExit: 0)" in edgekd("students").refusal(3)


def test_ctrl_c_is_told_as_such_in_code_of_the_user_s_too(
    edgekd: Callable, sent: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sent)
    (sent / "sent_code.py").write_text("raise KeyboardInterrupt")
    done = edgekd("distill", "--data-dir", recordings, "--teacher", "sent_code:make")
    assert (done.code, done.err.strip()) == (130, "Interrupted.")

"""Kills at every write: a seeded handful a command here, all of them with `--slow` (which takes hours)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kills.events import Events
from tests.kills.harness import named_in

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"distill": 2, "distill --overwrite": 2, "export --overwrite": 2, "prepare": 2, "quantize --ptq": 1}


def killed(*arguments: str) -> list[dict[str, Any]]:
    """The trials of the harness, in a process of its own: it forks, and this one has threads."""
    command = [sys.executable, "-m", "tests.kills.harness", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert trials, done.stderr
    return trials


def wrong(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [trial for trial in trials if trial["verdict"] != "right" or trial["left"]]


@pytest.mark.timeout(600)
def test_what_is_killed_and_started_again_ends_as_what_is_not() -> None:
    asked = [word for name, kills in SHORT.items() for word in (f"{name}={kills}",)]
    trials = killed(*asked, "--seed", "1")
    assert len(trials) == sum(SHORT.values())
    assert wrong(trials) == []


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_every_kill_at_every_write_of_every_command() -> None:
    assert wrong(killed()) == []


# The harness itself


def test_every_way_to_change_the_disk_is_seen_in_order(tmp_path: Path) -> None:
    code = """
import os, shutil, sys
from pathlib import Path
from tests.kills.events import Events
root = Path(sys.argv[1])
(root / "there").mkdir()
events = Events(root)
events.install()
os.chdir(root)
Path("a").write_bytes(b"1234")
with open("b", "w") as file:
    file.write("12")
    file.flush()
    file.write("34")
file = os.open("c", os.O_RDWR | os.O_CREAT)
os.ftruncate(file, 8)
os.pwrite(file, b"12", 2)
os.fsync(file)
os.replace("a", "d")
open("d").read()
Path("/dev/null").write_text("elsewhere")
Path("e").mkdir()
Path("e/f").touch()
shutil.rmtree("e")
os.link("d", "g")
print("\\n".join(events.seen))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seen = [line for line in done.stdout.splitlines() if not line.startswith("truncate")]
    assert seen == [
        *("open a", "write a", "open b", "write b", "write b", "open c", "ftruncate c", "pwrite c", "fsync c"),
        *("rename a", "mkdir e", "open e/f", "remove e/f", "rmdir e", "link d"),
    ]


@pytest.mark.parametrize(
    ("at", "half", "left"), [(0, False, None), (1, False, ""), (1, True, "12"), (2, False, "1234")]
)
def test_it_is_killed_before_the_event_or_in_its_midst(tmp_path: Path, at: int, half: bool, left: str | None) -> None:
    code = """
import sys
from pathlib import Path
from tests.kills.events import Events
Events(Path(sys.argv[1]), int(sys.argv[2]), half=sys.argv[3] == "True").install()
Path(sys.argv[1], "a").write_bytes(b"1234")
Path(sys.argv[1], "b").touch()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(at), str(half)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert ((tmp_path / "a").read_text() if (tmp_path / "a").exists() else None) == left
    assert not (tmp_path / "b").exists()


def test_a_file_elsewhere_is_no_event(tmp_path: Path) -> None:
    events = Events(tmp_path / "here")
    assert events.inside(tmp_path / "here" / "a") == "a"
    assert events.inside(tmp_path / "hereafter") is None


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (
            "edgekd: error: run exists already. Go on with it (--resume), replace it (--overwrite) or name another.",
            [["distill", "--out", "run", "--resume"], ["distill", "--out", "run", "--overwrite"]],
        ),
        (
            "edgekd: error: run: interrupted. Finish it first: edgekd distill --out 'a run' --resume",
            [["distill", "--out", "a run", "--resume"]],
        ),
        (
            "edgekd: error: bundle: already exists. Replace the bundle with --overwrite.",
            [["distill", "--out", "run", "--overwrite"]],
        ),
        ("Start it again with the same command.", [["distill", "--out", "run"]]),
        ("edgekd: error: no such file.", []),
    ],
)
def test_the_commands_that_a_message_names_are_found(said: str, named: list[list[str]]) -> None:
    assert named_in(said, ["distill", "--out", "run"]) == named

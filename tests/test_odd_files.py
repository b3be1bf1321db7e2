"""Damaged files of every kind end a command with one line and exit code 2 or 3; `odd_files` has all of the cases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.models.weights import read_weights
from edgekd.report.results import Profile
from edgekd.runs.run import Run
from tests import odd_files as odd
from tests.odd_files import Case, absurd_member, arrays, in_json, in_toml, put, signed, without

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def made(tiny_run: Run, tiny_bundle: Path, sample_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What there is to damage."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_run.folder, folder / "run")
    shutil.copytree(tiny_bundle, folder / "bundle")
    (folder / "profile").mkdir()
    for name in ("report.json", "as-made.json"):
        (folder / "profile" / name).write_text(json.dumps(sample_profile.to_dict()))
    shutil.copyfile(ROOT / "targets" / "cpu.toml", folder / "board.toml")
    shutil.copyfile(ROOT / "calibration" / "default.toml", folder / "recipe.toml")
    weights = read_weights(tiny_run.weights("student"))
    np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    return folder


def _in(file: str, command: str, place: str, value: object) -> Case:
    keys = tuple(int(key) if key.isdigit() else key for key in place.split("."))
    wrap = in_toml if file.endswith(".toml") else in_json
    return Case(f"{file} {place} {value!r:.20}, {command}", file, wrap(lambda old: put(old, keys, value)), command)


def _lacks(file: str, command: str, place: str) -> Case:
    keys = tuple(int(key) if key.isdigit() else key for key in place.split("."))
    return Case(f"{file} lacks {place}, {command}", file, in_json(lambda old: without(old, keys)), command)


CASES = [
    *(
        Case(f"{file}: {way}, {command}", file, odd.as_bytes(odd.BYTES[way]), command)
        for file, command in (
            ("run/report.json", "show run"),
            ("run/classes.json", "show run"),
            ("run/metrics.csv", "show run"),
            ("bundle/manifest.json", "verify"),
            ("profile/report.json", "against"),
            ("weights.npz", "read weights.npz"),
        )
        for way in ("half", "noise", "zeros")
        if (file, way) != ("run/metrics.csv", "half")
    ),
    *(_in("run/classes.json", "show run", "0", value) for value in (None, 3, [], "", "HUGE", "DEEP")),
    *(_in("run/report.json", "show run", "test", value) for value in (None, [], "x", "DEEP", {"student": {}})),
    *(_in("run/report.json", "show run", "test.student.accuracy", value) for value in (True, -0.1, "x", "HUGE")),
    *(_in("run/report.json", "show run", place, 3) for place in ("training", "audit", "warnings", "test.student")),
    Case("epoch", "run/metrics.csv", odd.cell("epoch", odd.HUGE), "show run"),
    Case("accuracy", "run/metrics.csv", odd.cell("validation_accuracy", "7"), "show run"),
    *(
        _in("bundle/manifest.json", "verify", f"classifier.{place}", value)
        for place, value in (
            ("classes", "xy"),
            ("classes", ["a", "a"]),
            ("sample_rate", True),
            ("clip_samples", 10**30),
            ("hop_samples", 0),
            ("padding", []),
            ("batch", True),
            ("resampler", []),
            ("resampler.rolloff", float("nan")),
        )
    ),
    *(
        _in("bundle/manifest.json", "verify", place, value)
        for place, value in (
            ("files", []),
            ("files", {"../a": "0" * 64}),
            ("alternatives", {"int8": {}}),
            ("precision", ["int8"]),
            ("target", None),
            ("target.opset", "x"),
            ("target.tolerance.agreement", None),
            ("format", True),
            ("classifier", "DEEP"),
            ("target.memory_bytes", "HUGE"),
        )
    ),
    *(
        _lacks("bundle/manifest.json", "verify", place)
        for place in ("files", "classifier", "classifier.input", "target.runtime", "target.tolerance", "precision")
    ),
    *(
        Case(f"golden: {name}", "bundle/golden.npz", signed(damage), "verify")
        for name, damage in {
            "no scale": arrays(scale=None),
            "flat": arrays(waveform=np.ravel),
            "fewer": arrays(probabilities=lambda old: old[:-1]),
            "text": arrays(scale=lambda old: old.astype("U6")),
            "nan": arrays(float_probabilities=lambda old: old * np.float32("nan")),
            "a terabyte": absurd_member("waveform", "(1000000000000,)"),
            "objects": absurd_member("scale", "(4,)", "|O"),
        }.items()
    ),
    *(
        Case(f"weights: {name}", "weights.npz", absurd_member("absurd", shape), "read weights.npz")
        for name, shape in {"a terabyte": "(1000000000000,)", "negative": "(-1,)", "deep": "(" * 200}.items()
    ),
    *(
        _in("profile/report.json", "against", f"subjects.0.{place}", value)
        for place, value in (
            ("latency.p50_ms", -1.0),
            ("latency.p50_ms", 0),
            ("latency.p50_ms", True),
            ("latency.p50_ms", "3.4"),
            ("latency.p50_interval_ms", [2.0, 1.0]),
            ("latency.quantiles_ms", [1.0]),
            ("scores.accuracy", 1.1),
            ("scores.clips", -3),
            ("cost.file_bytes", -1),
            ("name", "student"),
            ("machine", []),
        )
    ),
    _in("profile/report.json", "against", "subjects", []),
    _in("profile/report.json", "against", "baseline", "nobody"),
    _in("profile/report.json", "against", "version", True),
    *(
        _in("board.toml", "targets", "memory_bytes", value)
        for value in (True, -3, float("nan"), [], {"a": 1}, "HUGE", "DEEP")
    ),
    _in("recipe.toml", "recipe", "observer", "DEEP"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_file_ends_in_one_line(case: Case, made: Path, tmp_path: Path) -> None:
    assert odd.run(case, made, tmp_path / "case") is None


@pytest.mark.parametrize("command", ["show run", "verify", "against", "targets", "recipe", "read weights.npz"])
def test_undamaged_files_are_read(command: str, made: Path, tmp_path: Path) -> None:
    assert odd.run(Case("", "board.toml", lambda _: None, command, refused=False), made, tmp_path / "case") is None
    assert odd.COMMANDS[command](made).code == 0


def test_a_full_disk_under_standard_output_is_told(made: Path) -> None:
    commands = [[sys.executable, "-m", "edgekd", "targets"]]
    commands += [[sys.executable, "-I", str(made / "bundle" / "edgekd_runner.py"), "verify"]]
    for command in commands:
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
        assert "standard output" in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["targets"], ["targets", "cpu"], ["profile", "--schema"]])
def test_what_reads_no_more_ends_a_command_quietly(arguments: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "edgekd", *arguments]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_unforeseen_end_of_a_file_is_not_called_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.exporting import targets

    def ends(name: str) -> None:
        raise EOFError("too early")

    monkeypatch.setattr(targets, "load_target", ends)
    ending = odd.edgekd("targets", "cpu")
    assert ending.code == 1
    assert ending.err.startswith("edgekd: unforeseen failure: RuntimeError: EOFError: too early")

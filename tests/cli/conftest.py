"""The command line in this process, and recordings small enough for runs of a second."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.cli.app import main

RATE = 4_000
# Labels alone, one epoch: what is left of a run is its reading, its checks and its files.
QUICK = [
    *("--terms", "classification", "--sample-rate", str(RATE), "--clip-seconds", "0.5", "--epochs", "1"),
    *("--device", "cpu", "--batch-size", "8", "--quiet"),
    *("--set", "frontend.f_max=1900", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
    *("--set", "frontend.n_mels=32", "--set", "quantize.epochs=1", "--set", "quantize.frozen_epochs=0"),
]


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Standard output, which is one JSON object and nothing else."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def refusal(self, code: int) -> str:
        """The one line that says why the command was refused, with exit code `code`."""
        assert self.code == code, (self.code, self.out, self.err)
        lines = [line for line in self.err.splitlines() if line]
        assert lines[-1].startswith("edgekd: error: "), self.err
        assert len([line for line in lines if "error" in line.lower()]) == 1, self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        return lines[-1].removeprefix("edgekd: error: ")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EDGEKD_") and name != "EDGEKD_CACHE_DIR"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def edgekd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`edgekd("export", run, "--target", "cpu")`: the command, in this process."""

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["edgekd", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
        wrote = capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, wrote.out, wrote.err)

    return call


@pytest.fixture
def quick(edgekd: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """`edgekd distill` of a student on labels alone, for one epoch."""
    return lambda *arguments: edgekd("distill", *QUICK, *arguments)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `quick` on recordings like `recordings`, with its int8 student. Read-only."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_recordings(folder / "recordings", seconds=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgekd", "distill", *QUICK, "--data-dir", str(data), "--out", str(folder / "run")])
        with pytest.raises(SystemExit) as ending:
            main()
    assert not ending.value.code
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "finished"))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two classes of four recordings of two seconds: a low and a high tone in noise."""
    return write_recordings(tmp_path / "recordings", seconds=2.0)


def write_recordings(root: Path, seconds: float) -> Path:
    rng = np.random.default_rng(0)
    time = np.arange(int(RATE * seconds)) / RATE
    for name, pitch in (("high", 1500.0), ("low", 150.0)):
        (root / name).mkdir(parents=True)
        for number in range(4):
            tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
            soundfile.write(root / name / f"{number}.wav", tone + 0.05 * rng.standard_normal(len(time)), RATE)
    return root

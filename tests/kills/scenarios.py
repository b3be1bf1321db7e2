"""The commands that are killed, on recordings of seconds, what each finds when it starts, and what must come of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 4_000
DATA = [
    *("--data-dir", "../data", "--sample-rate", str(RATE), "--clip-seconds", "0.5", "--device", "cpu"),
    *("--set", "frontend.f_max=1900", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
    *("--set", "frontend.n_mels=32"),
]
QUICK = [
    *DATA,
    *(
        "--teacher",
        "convnet",
        "--adaptation",
        "full",
        "--student",
        "hltdnn_micro",
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ),
    *("--set", "teacher.epochs=1", "--set", "teacher.batch_size=8", "--set", "augment.shifts_per_clip=1"),
    *("--set", "quantize.epochs=1", "--set", "quantize.frozen_epochs=0", "--quiet"),
]
DISTILL = ["distill", *QUICK, "--out", "run"]
EXPORT = ["export", "run", "--target", "cpu", "--out", "bundle", "--quiet"]
EXPORT_C = ["export", "run", "--target", "host-c", "--out", "bundle", "--quiet"]
COMPARE = ["compare", *QUICK, "--methods", "labels,kd", "--seeds", "1", "--quantize", "--out", "grid"]
AHEAD = r"cache/teacher-\w+/embeddings\.f16(\.crc)?"  # of a teacher that students may learn from who need them
PREPARE = ["data", "prepare", *DATA[:6], "--quiet"]


@dataclass(frozen=True)
class Scenario:
    """A command, and the commands before it that made what it finds; `cut` is how much of the last of these was done
    when it was killed, as a share of its events."""

    command: list[str]
    before: tuple[list[str], ...] = ()
    cut: float | None = None
    spare: str = "$"
    """A pattern of files that may be there or not, and hold more or less: what is asked ahead of what needs it."""
    keeps: Callable[[Path], str | None] = lambda _: None
    """What is wrong with the folder right after the kill, before anything else is called; None: nothing."""


def _old_or_new_run(folder: Path) -> str | None:
    """The run must be there, whole: the old one, or the new one with its float student."""
    from edgekd.errors import EdgekdError
    from edgekd.runs.run import Run

    try:
        Run.open(folder / "run").student()
    except EdgekdError as failure:
        return f"the run is lost: {failure}"
    return None


def _old_or_new_bundle(folder: Path) -> str | None:
    from edgekd.errors import EdgekdError
    from edgekd.exporting.manifest import read_bundle

    try:
        read_bundle(folder / "bundle")
    except EdgekdError as failure:
        return f"the bundle is lost: {failure}"
    return None


SCENARIOS: dict[str, Scenario] = {
    "distill": Scenario(DISTILL),
    "distill --resume": Scenario([*DISTILL, "--resume"], (DISTILL,), cut=0.5),
    "distill --overwrite": Scenario([*DISTILL, "--overwrite", "--seed", "5"], (DISTILL,), keeps=_old_or_new_run),
    "quantize": Scenario(["quantize", "run", "--epochs", "2", "--quiet"], (DISTILL,), keeps=_old_or_new_run),
    "quantize --ptq": Scenario(["quantize", "run", "--ptq", "--quiet"], (DISTILL,), keeps=_old_or_new_run),
    "export": Scenario(EXPORT, (DISTILL,)),
    "export --overwrite": Scenario(
        [*EXPORT, "--overwrite", "--precision", "fp32"], (DISTILL, EXPORT), keeps=_old_or_new_bundle
    ),
    "export of C": Scenario(EXPORT_C, (DISTILL,)),
    "export of C --overwrite": Scenario([*EXPORT_C, "--overwrite"], (DISTILL, EXPORT), keeps=_old_or_new_bundle),
    "profile of C": Scenario(["profile", "bundle", "--quick", "--out", "profile", "--quiet"], (DISTILL, EXPORT_C)),
    "profile": Scenario(["profile", "run", "--quick", "--quiet"], (DISTILL,), keeps=_old_or_new_run),
    "prepare": Scenario(PREPARE),
    "compare": Scenario(COMPARE, (PREPARE,), spare=AHEAD),
    "compare --overwrite": Scenario([*COMPARE, "--overwrite", "--learning-rate", "1e-3"], (COMPARE,), spare=AHEAD),
}


def write_recordings(root: Path) -> None:
    """Two classes of four recordings of four seconds: a low and a high tone in noise."""
    import soundfile

    rng = np.random.default_rng(0)
    time = np.arange(RATE * 4) / RATE
    for name, pitch in (("high", 1500.0), ("low", 150.0)):
        (root / name).mkdir(parents=True)
        for number in range(4):
            tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
            soundfile.write(root / name / f"{number}.wav", tone + 0.05 * rng.standard_normal(len(time)), RATE)


# What a folder holds


def contents(root: Path) -> dict[str, str]:
    """A digest of every file below `root`, by its path, of all in it that an unbroken command gives again each time."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(_lasting(path, root)).hexdigest()[:16]
        for path in sorted(root.rglob("*"))
        if path.is_file() and not re.fullmatch(r"contents-\w+\.json|.*\.lock", path.name)
    }


def folders(root: Path) -> set[str]:
    """The folders below `root`."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}


def _lasting(path: Path, root: Path) -> bytes:
    """What is in a file but for times, versions and places."""
    if path.name == "metrics.csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return json.dumps([{name: value for name, value in row.items() if name != "seconds"} for row in rows]).encode()
    if path.name == "report.json":
        told = json.loads(path.read_text())
        if "subjects" in told:
            told = [{"name": subject["name"], "scores": subject["scores"]} for subject in told["subjects"]]
        return json.dumps(list(_without_times(told)), sort_keys=True).replace(str(root), "").encode()
    if path.name == "landmarks.u64":  # in the order in which threads found them
        return np.sort(np.fromfile(path, "<u8")).tobytes()
    if path.name == "fingerprints.npz":
        with np.load(path) as kept:
            return b"".join(kept[name].tobytes() for name in ("format", "levels", "digests", "counts"))
    if path.suffix in (".png", ".html", ".md", ".log") or path.name in ("environment.json", "report.csv"):
        return b"there"
    return path.read_bytes()


def _without_times(value: Any, name: str = "") -> Iterator[Any]:
    if isinstance(value, dict):
        for key, each in sorted(value.items()):
            yield from _without_times(each, f"{name}.{key}")
    elif not name.endswith("seconds"):
        yield name, value

"""Files of every kind that edgekd reads, damaged in every way, under every command that reads them.

    python -m tests.odd_files [WORD...]

Prints what did not end as it should, and a count for each file; WORD: only cases whose name contains one. A command
ends as it should with exit code 2 or 3 and one line that says why, or, where the value is one that may be there, as if
nothing were wrong; never with a traceback, and never with 1. `test_odd_files` runs a part of them.
"""

# ruff: noqa: PLR0912, PLR0915
from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 4_000
QUICK = [
    *("--terms", "classification", "--sample-rate", str(RATE), "--clip-seconds", "0.5", "--epochs", "1"),
    *("--device", "cpu", "--batch-size", "8", "--quiet"),
    *("--set", "frontend.f_max=1900", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
    *("--set", "frontend.n_mels=32", "--set", "quantize.epochs=1", "--set", "quantize.frozen_epochs=0"),
]
DEEP = 100_000  # Python gives up a hundredth of the way
HUGE = "7" * 5_000
MEMORY = 12 << 30
SECONDS = 60

Command = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def wrong(self) -> str | None:
        """What is wrong with this ending, None where nothing is."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        if "Traceback" in self.err or "Aborted" in self.err or self.code in (1, 99):
            return f"exit {self.code}: {lines[-1][:300] if lines else ''}"
        if self.code in (2, 3) and not any("error: " in line or line.startswith("edgekd_runner: ") for line in lines):
            return f"exit {self.code} without a line: {self.err[:200]!r}"
        told = [line for line in lines if "error: " in line]
        if self.code in (2, 3) and told and len(lines) > lines.index(told[-1]) + 1:
            return f"exit {self.code} with more than a line: {lines}"
        return None


@dataclass(frozen=True)
class Case:
    """A file of `folder`, damaged, and the command that reads it. `refused`: it has to be refused."""

    name: str
    file: str
    damage: Callable[[Path], None]
    command: str
    refused: bool = True


# Commands


def edgekd(*arguments: str | Path) -> Ending:
    """The command in this process."""
    from edgekd.cli.app import main

    return _ended(main, ["edgekd", *map(str, arguments)])


def runner(folder: Path, *arguments: str | Path, sound: bytes = b"") -> Ending:
    """The runner in this process, on the bundle in `folder`; `sound` is its standard input."""
    from edgekd.device import edgekd_runner

    def run() -> None:
        with _standard_input(sound):
            sys.exit(edgekd_runner.main(list(map(str, arguments)), folder))

    return _ended(run, ["edgekd_runner.py"])


def _ended(run: Callable[[], None], argv: list[str]) -> Ending:
    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = argv
        try:
            run()
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 99
        except BaseException as failure:
            code = 99
            err.write(f"Traceback: {type(failure).__name__}: {str(failure)[:200]}")
        finally:
            sys.argv = before
    return Ending(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _standard_input(sound: bytes) -> Iterator[None]:
    kept = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(sound)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(kept, 0)
            os.close(kept)


# What there is to damage


def make(folder: Path) -> None:
    """A finished run, a bundle, a report, recordings, a board and a recipe in `folder`."""
    import soundfile

    rng = np.random.default_rng(0)
    time = np.arange(RATE * 2) / RATE
    for name, pitch in (("high", 1500.0), ("low", 150.0)):
        (folder / "recordings" / name).mkdir(parents=True)
        for number in range(10):
            tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
            soundfile.write(
                folder / "recordings" / name / f"{number}.wav", tone + 0.05 * rng.standard_normal(len(time)), RATE
            )
    shutil.copyfile(folder / "recordings" / "low" / "0.wav", folder / "one.wav")
    run, cut = folder / "run", folder / "cut"
    done = edgekd("distill", *QUICK, "--data-dir", folder / "recordings", "--out", run)
    assert done.code == 0, done.err
    # As it is when it was interrupted after the first epoch of two.
    shutil.copytree(run, cut)
    for name in ("report.json", "predictions.csv", "curves.png", "confusion.png"):
        (cut / name).unlink(missing_ok=True)
    shutil.rmtree(cut / "int8")
    settings = (cut / "config.toml").read_text()
    (cut / "config.toml").write_text(re.sub(r"(\[training\]\n(?:.*\n)*?epochs = )1", r"\g<1>2", settings, count=1))
    done = edgekd("export", run, "--target", "cpu", "--out", folder / "bundle", "--quiet")
    assert done.code == 0, done.err
    done = edgekd("profile", run / "student", "--quick", "--quiet", "--out", folder / "profile")
    assert done.code == 0, done.err
    # Recording and resuming: a resumed run is not to be begun anew.
    targets = Path(__file__).parents[1] / "targets"
    shutil.copyfile(targets / "cpu.toml", folder / "board.toml")
    shutil.copyfile(Path(__file__).parents[1] / "calibration" / "default.toml", folder / "recipe.toml")
    done = edgekd(
        "compare",
        "--methods",
        "labels",
        "--seeds",
        "1",
        *QUICK[2:],
        "--data-dir",
        folder / "recordings",
        "--out",
        folder / "compared",
    )
    assert done.code == 0, done.err
    from edgekd.models.weights import read_weights

    weights = {name: tensor.numpy() for name, tensor in read_weights(run / "student" / "best.safetensors").items()}
    np.savez(folder / "weights.npz", **weights)
    import h5py
    import torch

    with h5py.File(folder / "weights.h5", "w") as file:
        for name, array in weights.items():
            file[name] = array
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "weights.pt")
    shutil.copyfile(run / "student" / "best.safetensors", folder / "weights.safetensors")


def _without_run(bundle: Path) -> Path:
    """The same bundle, whose run is not here any more: it is scored on its golden examples."""
    path = bundle / "manifest.json"
    with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        manifest = json.loads(path.read_text())
        manifest["provenance"]["run"] = "/nowhere"
        path.write_text(json.dumps(manifest))
        sign(bundle)
    return bundle


def _weights(kind: str) -> Callable[[Path], Ending]:
    def read(folder: Path) -> None:
        from edgekd.models.weights import load_matching, read_weights
        from edgekd.runs.run import Run

        path = folder / f"weights.{kind}"
        load_matching(Run.open(folder / "run").new_student(), read_weights(path), path)

    return lambda folder: _read(lambda: read(folder))


COMMANDS: dict[str, Callable[[Path], Ending]] = {
    "predict run": lambda f: edgekd("predict", f / "run", f / "one.wav"),
    "export": lambda f: edgekd("export", f / "run", "--target", "cpu", "--out", f / "again", "--quiet"),
    "profile run": lambda f: edgekd("profile", f / "run" / "int8", "--quick", "--quiet", "--out", f / "profiled"),
    "quantize": lambda f: edgekd("quantize", f / "run", "--quiet"),
    "quantize --resume": lambda f: edgekd("quantize", f / "run", "--resume", "--quiet"),
    "distill --resume": lambda f: edgekd("distill", "--out", f / "cut", "--resume", "--quiet"),
    "distill --resume, finished": lambda f: edgekd("distill", "--out", f / "run", "--resume", "--quiet"),
    "compare": lambda f: edgekd(
        "compare",
        "--methods",
        "labels",
        "--seeds",
        "1",
        *QUICK[2:],
        "--data-dir",
        f / "recordings",
        "--out",
        f / "compared",
    ),
    "predict bundle": lambda f: edgekd("predict", f / "bundle", f / "one.wav"),
    "profile bundle": lambda f: edgekd(
        "profile", _without_run(f / "bundle"), "--quick", "--quiet", "--out", f / "profiled"
    ),
    "verify": lambda f: runner(f / "bundle", "verify"),
    "runner predict": lambda f: runner(f / "bundle", "predict", f / "one.wav"),
    "stream": lambda f: runner(f / "bundle", "stream", sound=bytes(20_000)),
    "bench": lambda f: runner(f / "bundle", "bench", "--runs", "5", "--warmup", "1"),
    "choose": lambda f: runner(f / "bundle", "choose", "--runs", "5"),
    "against": lambda f: against(f / "profile" / "report.json"),
    "against, whole": lambda f: edgekd(
        "profile",
        f / "run" / "student",
        "--quick",
        "--quiet",
        "--out",
        f / "profiled",
        "--against",
        f / "profile" / "report.json",
    ),
    "targets": lambda f: edgekd("targets", f / "board.toml"),
    "quantize --recipe": lambda f: edgekd("quantize", f / "run", "--recipe", f / "recipe.toml", "--ptq", "--quiet"),
    "distill --config": lambda f: edgekd("distill", "--config", f / "run" / "config.toml", "--dry-run"),
    "show run": lambda f: _read(lambda: show(f / "run")),
    "show cut": lambda f: _read(lambda: show(f / "cut")),
    "recipe": lambda f: _read(lambda: recipe(f / "recipe.toml")),
    **{f"read weights.{kind}": _weights(kind) for kind in ("npz", "h5", "pt", "safetensors")},
    "distill --student-weights": lambda f: edgekd(
        *("distill", *QUICK, "--data-dir", f / "recordings", "--out", f / "new", "--no-quantize"),
        *("--student-weights", f / "weights.npz"),
    ),
}
# A training takes seconds: of so many cases of each such command, one is tried.
STRIDES = {
    "distill --resume": 9,
    "distill --resume, finished": 12,
    "quantize": 15,
    "quantize --resume": 15,
    "export": 4,
    "predict run": 2,
    "quantize --recipe": 20,
    **dict.fromkeys(("stream", "choose", "runner predict", "predict bundle", "verify"), 2),
    **dict.fromkeys(("bench", "profile bundle"), 3),
}


def show(folder: Path) -> None:
    """What `distill` prints in the end, and what it reads to go on."""
    from edgekd.report.terminal import print_run
    from edgekd.runs.run import Run
    from edgekd.task import SINGLE

    run = Run.open(folder)
    log = run.metrics()
    log.truncate("int8", 3)
    log.last_epoch("student"), log.best("student", SINGLE), run.finished("student")
    if run.report().get("test"):
        print_run(run)


def recipe(path: Path) -> None:
    from edgekd.quantization.calibration import load_recipe

    load_recipe(str(path))


def _read(read: Callable[[], None]) -> Ending:
    """How a command would end that reads this."""
    from edgekd.errors import explained

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            read()
        except Exception as failure:
            line, code = explained(failure)
            return Ending(code, out.getvalue(), err.getvalue() + f"edgekd: {line}")
    return Ending(0, out.getvalue(), err.getvalue())


def against(report: Path) -> Ending:
    """The gate of `profile --against`, on the report as it was when it was made: nothing is measured again."""
    from edgekd.report.gate import check_profile
    from edgekd.report.results import read_profile

    now = read_profile(report.with_name("as-made.json"))
    return _read(lambda: check_profile(now, read_profile(report), max_drop=0.5, max_slowdown=1.1))


WRITES = {
    **dict.fromkeys(("quantize", "quantize --resume", "quantize --recipe", "distill --resume, finished"), "run"),
    "distill --resume": "cut",
    "compare": "compared",
}


# Ways to damage

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "a word": "x",
    "a negative": -3,
    "zero": 0,
    "a fraction": 0.37,
    "infinity": float("inf"),
    "nan": float("nan"),
    "10^30": 10**30,
    "an empty list": [],
    "a list of lists": [[]],
    "an empty table": {},
    "a table": {"a": {"b": 1}},
}
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda old: old[: len(old) // 2],
    "a byte short": lambda old: old[:-1],
    "UTF-16": lambda old: old.decode("latin-1").encode("utf-16"),
    "a BOM": lambda old: b"\xef\xbb\xbf" + old,
    "not UTF-8": lambda old: old[:20] + b"\xff\xfe\xe9" + old[20:],
    "zeros": lambda old: bytes(len(old)),
    "a NUL": lambda old: old[: len(old) // 2] + b"\0" + old[len(old) // 2 :],
    "noise": lambda old: np.random.default_rng(1).bytes(len(old)),
    "lines": lambda old: b"\n\n\n",
}


def as_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: _write(path, change(path.read_bytes()))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    path.unlink()


def places(values: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in nested dicts and lists; of a list, its first entry stands for all."""
    if prefix:
        yield prefix
    if isinstance(values, dict):
        for key, value in values.items():
            yield from places(value, (*prefix, key))
    elif isinstance(values, list) and values:
        yield from places(values[0], (*prefix, 0))


def put(values: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def without(values: Any, place: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return changed


def in_json(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        values = change(json.loads(path.read_text()))
        text = values if isinstance(values, str) else json.dumps(values)
        text = text.replace('"HUGE"', HUGE).replace('"DEEP"', "[" * DEEP + "]" * DEEP)
        path.write_text(text)
        if path.name == "manifest.json":
            sign(path.parent)

    return damage


def in_toml(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        import tomllib

        text = toml(change(tomllib.loads(path.read_text())))
        path.write_text(text.replace('"HUGE"', HUGE).replace('"DEEP"', "[" * DEEP + "]" * DEEP))

    return damage


def toml(values: dict[str, Any], prefix: str = "") -> str:
    """TOML of anything."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and value is not None}
    lines = "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in plain.items())
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    head = f"\n[{prefix}]\n" if prefix else ""
    return (
        head
        + lines
        + "".join(toml(value, f"{prefix}.{_key(key)}" if prefix else _key(key)) for key, value in tables.items())
    )


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _toml(value: Any) -> str:
    return (
        json.dumps(value)
        .replace("Infinity", "inf")
        .replace("NaN", "nan")
        .replace("null", '"null"')
        .replace("{}", '"table"')
    )


def sign(folder: Path) -> None:
    """Make the digests right, so that only a look at the meaning can tell."""
    from edgekd.device import runner as parts

    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError):
        return
    if not isinstance(manifest, dict):
        return
    if isinstance(manifest.get("files"), dict):
        for name in manifest["files"]:
            with contextlib.suppress(Exception):
                manifest["files"][name] = parts.file_digest(folder / name)
    with contextlib.suppress(RecursionError):
        manifest["sha256"] = parts.manifest_digest(manifest)
    path.write_text(json.dumps(manifest))


def signed(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        damage(path)
        sign(path.parent)

    return both


def arrays(**changes: Any) -> Callable[[Path], None]:
    """Replace members of an `.npz` (None: leave out)."""

    def damage(path: Path) -> None:
        with np.load(path) as old:
            values = {name: old[name] for name in old.files}
        for name, change in changes.items():
            values[name] = change(values[name]) if callable(change) else change
        np.savez(path, **{name: value for name, value in values.items() if value is not None})

    return damage


def absurd_member(name: str, shape: str, dtype: str = "<f4") -> Callable[[Path], None]:
    """A member of an `.npz` whose header promises more than there is."""

    def damage(path: Path) -> None:
        header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
        with zipfile.ZipFile(path) as old:
            members = {member: old.read(member) for member in old.namelist()}
        members[f"{name}.npy"] = content
        with zipfile.ZipFile(path, "w") as new:
            for member, data in members.items():
                new.writestr(member, data)

    return damage


def h5_member(**settings: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        import h5py

        with h5py.File(path, "a") as file:
            file.create_dataset("absurd", **settings)

    return damage


def in_csv(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    return lambda path: path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines()))) and None


def cell(column: str, value: str) -> Callable[[Path], None]:
    def change(lines: list[str]) -> list[str]:
        names = lines[0].split(",")
        cells = lines[1].split(",")
        cells[names.index(column)] = value
        return [lines[0], ",".join(cells), *lines[2:]]

    return in_csv(change)


def in_pt(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        import torch

        torch.save(change(torch.load(path, weights_only=True)), path)

    return damage


# The cases


def _bytes_of(
    file: str, commands: tuple[str, ...], *, signing: bool = False, ways: tuple[str, ...] = tuple(BYTES)
) -> Iterator[Case]:
    for command in commands:
        for way in ways:
            damage = as_bytes(BYTES[way])
            # A BOM, a cut last byte or another byte in the middle may be harmless.
            yield Case(f"{file}: {way}, {command}", file, signed(damage) if signing else damage, command, False)
        yield Case(f"{file}: a folder, {command}", file, a_folder, command, False)
        yield Case(f"{file}: gone, {command}", file, gone, command, False)


def _values_of(
    file: str, document: Any, commands: tuple[str, ...], wrap: Any, skip: str = "", values: dict[str, Any] = VALUES
) -> Iterator[Case]:
    for command in commands:
        for place in places(document):
            dotted = ".".join(map(str, place))
            if skip and re.search(skip, dotted):
                continue
            for name, value in {**values, "huge": "HUGE", "deep": "DEEP"}.items():
                yield Case(
                    f"{file}: {dotted} = {name}, {command}",
                    file,
                    wrap(lambda old, place=place, value=value: put(old, place, value)),
                    command,
                    False,
                )
            yield Case(
                f"{file}: {dotted} missing, {command}",
                file,
                wrap(lambda old, place=place: without(old, place)),
                command,
                False,
            )
        for name, value in {**values, "huge": "HUGE", "deep": "DEEP"}.items():
            if wrap is in_json:
                yield Case(
                    f"{file}: is {name}, {command}",
                    file,
                    wrap(lambda _, value=value: value if value not in ("HUGE", "DEEP") else f'"{value}"'),
                    command,
                    False,
                )


FEW = {name: VALUES[name] for name in ("null", "a word", "a negative", "an empty list", "an empty table", "nan")}


def cases(folder: Path) -> Iterator[Case]:
    """All cases, for the files that `make` has put into `folder`."""
    import tomllib

    def document(name: str) -> Any:
        return json.loads((folder / name).read_text())

    # A run folder
    for file, commands in {
        "run/config.toml": ("predict run", "distill --config"),
        "run/classes.json": ("predict run",),
        "run/report.json": ("predict run", "show run", "distill --resume, finished", "export"),
        "run/metrics.csv": ("show run", "distill --resume, finished"),
        "cut/metrics.csv": ("show cut", "distill --resume"),
        "cut/splits.csv": ("distill --resume",),
        "cut/student/last.pt": ("distill --resume",),
        "cut/student/best.safetensors": ("distill --resume",),
        "cut/classes.json": ("distill --resume",),
        "run/int8/best.safetensors": ("predict run",),
        "run/int8/quantize.toml": ("predict run", "quantize --resume"),
        "run/student/last.pt": ("quantize",),
        "run/int8/last.pt": ("quantize --resume",),
        "run/predictions.csv": ("distill --resume, finished",),
        "compared/cells/labels/split0-seed0/predictions.csv": ("compare",),
        "compared/cells/labels/split0-seed0/report.json": ("compare",),
    }.items():
        yield from _bytes_of(file, commands)
    yield from _values_of(
        "run/classes.json", document("run/classes.json"), ("show run", "distill --resume, finished"), in_json
    )
    yield from _values_of(
        "run/report.json",
        document("run/report.json"),
        ("show run",),
        in_json,
        values=FEW,
        skip=r"per_class\.|confusion\.0\.",
    )
    yield from _values_of(
        "run/report.json",
        document("run/report.json"),
        ("predict run",),
        in_json,
        values=FEW,
        skip=r"test\.\w+\.\w|training\.\w+\.|audit\.",
    )
    settings = tomllib.loads((folder / "run/config.toml").read_text())
    yield from _values_of("run/config.toml", settings, ("distill --config",), in_toml, values=FEW)
    yield from _values_of(
        "run/config.toml",
        settings,
        ("predict run",),
        in_toml,
        values=FEW,
        skip=r"training|loss|augment|teacher|quantize",
    )
    report = document("compared/cells/labels/split0-seed0/report.json")
    yield from _values_of(
        "compared/cells/labels/split0-seed0/report.json",
        report,
        ("compare",),
        in_json,
        values=FEW,
        skip=r"per_class|confusion|audit\.|training\.|split\.",
    )
    for column in ("stage", "epoch", "seconds", "total", "validation_accuracy", "validation_loss", "learning_rate"):
        for name, value in {
            "empty": "",
            "a word": "x",
            "nan": "nan",
            "negative": "-3",
            "huge": HUGE,
            "quote": '"',
            "1e999": "1e999",
        }.items():
            yield Case(
                f"metrics.csv: {column} {name}, cut",
                "cut/metrics.csv",
                cell(column, value),
                "show cut",
                False,
            )
            yield Case(
                f"metrics.csv: {column} {name}, finished",
                "run/metrics.csv",
                cell(column, value),
                "show run",
                False,
            )
    for name, change in {
        "no header": lambda lines: lines[1:],
        "header only": lambda lines: lines[:1],
        "other columns": lambda lines: ["a,b", "1,2"],
        "a cell more": lambda lines: [lines[0], lines[1] + ",7", *lines[2:]],
        "a cell less": lambda lines: [lines[0], lines[1].rpartition(",")[0], *lines[2:]],
        "a long cell": lambda lines: [lines[0], "x" * 200_000 + lines[1], *lines[2:]],
        "an open quote": lambda lines: [lines[0], '"' + lines[1], *lines[2:]],
        "no stage": lambda lines: [lines[0].replace("stage", "stag"), *lines[1:]],
    }.items():
        for file, command in {
            "cut/metrics.csv": "distill --resume",
            "run/metrics.csv": "show run",
            "cut/splits.csv": "distill --resume",
            "compared/cells/labels/split0-seed0/predictions.csv": "compare",
        }.items():
            yield Case(f"{file}: {name}", file, in_csv(change), command, False)
    for column in ("subject", "row", "group", "class", "predicted", "p_high"):
        for name, value in {
            "empty": "",
            "a word": "x",
            "nan": "nan",
            "negative": "-3",
            "huge": HUGE,
            "many": "7",
        }.items():
            yield Case(
                f"predictions.csv: {column} {name}",
                "compared/cells/labels/split0-seed0/predictions.csv",
                cell(column, value),
                "compare",
                False,
            )
    import torch

    saved = torch.load(folder / "cut/student/last.pt", weights_only=True)
    for file, command in {
        "cut/student/last.pt": "distill --resume",
        "run/student/last.pt": "quantize",
        "run/int8/last.pt": "quantize --resume",
    }.items():
        for key in saved:
            for name, value in {
                "none": None,
                "a word": "x",
                "a negative": -3,
                "a list": [1],
                "nan": float("nan"),
                "a dict": {"a": 1},
                "tensor": torch.zeros(3),
                "true": True,
                "a huge number": 10**30,
                "names": {0: 1, "state": 3, "param_groups": 4},
            }.items():
                yield Case(
                    f"{file}: {key} is {name}",
                    file,
                    in_pt(lambda old, key=key, value=value: old | {key: value}),
                    command,
                    False,
                )
            yield Case(
                f"{file}: no {key}",
                file,
                in_pt(lambda old, key=key: {name: value for name, value in old.items() if name != key}),
                command,
                False,
            )
        for name, value in {"a list": [1], "a tensor": torch.zeros(2), "none": None, "a number": 3}.items():
            yield Case(f"{file}: is {name}", file, in_pt(lambda _, value=value: value), command, False)
        yield Case(
            f"{file}: a state of the optimiser",
            file,
            in_pt(lambda old: old | {"optimizer": {**old["optimizer"], "state": {0: {"step": "x"}}}}),
            command,
            False,
        )
        yield Case(
            f"{file}: another optimiser",
            file,
            in_pt(lambda old: old | {"optimizer": {**old["optimizer"], "param_groups": [{"params": [0], "lr": "x"}]}}),
            command,
            False,
        )
        yield Case(
            f"{file}: a shape of the optimiser",
            file,
            in_pt(
                lambda old: (
                    old
                    | {
                        "optimizer": {
                            **old["optimizer"],
                            "state": {
                                key: {**value, "exp_avg": torch.zeros(1)}
                                for key, value in old["optimizer"]["state"].items()
                            },
                        }
                    }
                )
            ),
            command,
            False,
        )

    # A bundle
    on_device = ("verify", "runner predict", "stream", "bench", "choose")
    for command in ("predict bundle", "profile bundle", *on_device):
        signing = ("bundle/golden.npz", "bundle/model.onnx")
        for file in ("bundle/manifest.json", *signing):
            yield from _bytes_of(file, (command,), signing=file in signing)
    manifest = document("bundle/manifest.json")
    yield from _values_of(
        "bundle/manifest.json",
        manifest,
        ("verify",),
        in_json,
        skip=r"files\.|hardware|sources\.|notes",
    )
    yield from _values_of(
        "bundle/manifest.json", manifest, ("predict bundle",), in_json, skip="files|sources", values=FEW
    )
    runner_reads = r"files\.|hardware|sources\.|notes|provenance|parity|checks|float_operators|title|aliases"
    yield from _values_of(
        "bundle/manifest.json", manifest, ("runner predict", "stream", "choose"), in_json, skip=runner_reads, values=FEW
    )
    yield from _values_of(
        "bundle/manifest.json",
        manifest,
        ("bench",),
        in_json,
        skip=runner_reads,
        values={"null": None, "a word": "x", "zero": 0},
    )
    for number, files in enumerate(
        (
            {"../outside": "0" * 64},
            {"/etc/passwd": "0" * 64},
            {"": "0" * 64},
            {"a\0b": "0" * 64},
            {"x" * 300: "0" * 64},
            {".": "0" * 64},
            {"no-such.onnx": 3},  # `sign` would mend the digest of a file that is there
            {"\udce9": "0" * 64},
        )
    ):
        for command in ("verify", "predict bundle"):
            yield Case(
                f"bundle/manifest.json: files {number}, {command}",
                "bundle/manifest.json",
                in_json(lambda old, files=files: {**old, "files": {**old["files"], **files}}),
                command,
            )
    f4, i2 = np.float32, np.int16
    for name, changes in {
        "no waveform": {"waveform": None},
        "no scale": {"scale": None},
        "no probabilities": {"probabilities": None},
        "no float_probabilities": {"float_probabilities": None},
        "no labels": {"labels": None},
        "another member": {"extra": np.zeros(3)},
        "waveform flat": {"waveform": lambda old: old.ravel()},
        "waveform 3-d": {"waveform": lambda old: old[..., None]},
        "waveform shorter": {"waveform": lambda old: old[:, :-1]},
        "fewer waveforms": {"waveform": lambda old: old[:-1]},
        "no clips": {
            "waveform": lambda old: old[:0],
            "scale": lambda old: old[:0],
            "probabilities": lambda old: old[:0],
            "float_probabilities": lambda old: old[:0],
            "labels": lambda old: old[:0],
        },
        "waveform complex": {"waveform": lambda old: old.astype(complex)},
        "waveform text": {"waveform": lambda old: old.astype("U6")},
        "waveform times": {"waveform": lambda old: old.astype("M8[s]")},
        "waveform of records": {"waveform": np.zeros((12, 3), [("a", "f4"), ("b", "i2")])},
        "scale a number": {"scale": f4(3)},
        "scale 2-d": {"scale": lambda old: old[:, None]},
        "scale nan": {"scale": lambda old: old * f4("nan")},
        "scale text": {"scale": lambda old: old.astype("U6")},
        "scale infinite": {"scale": lambda old: old * f4("inf")},
        "fewer classes": {"probabilities": lambda old: old[:, :1]},
        "fewer answers": {"probabilities": lambda old: old[:-1]},
        "answers nan": {"probabilities": lambda old: old * f4("nan")},
        "answers 1-d": {"probabilities": lambda old: old[:, 0]},
        "answers text": {"probabilities": lambda old: old.astype("U6")},
        "answers booleans": {"probabilities": lambda old: old > 0.5},
        "answers integers": {"probabilities": lambda old: old.astype(i2)},
        "answers negative": {"probabilities": lambda old: -old},
        "objects": {"labels": np.array([{"a": 1}], dtype=object)},
        "float answers 1-d": {"float_probabilities": lambda old: old[:, 0]},
        "labels text": {"labels": lambda old: old.astype("U6")},
        "labels too large": {"labels": lambda old: old + 1000},
        "labels negative": {"labels": lambda old: old - 1000},
        "labels fractions": {"labels": lambda old: old + 0.5},
    }.items():
        for command in ("verify", "bench", "profile bundle"):
            yield Case(f"golden.npz: {name}, {command}", "bundle/golden.npz", signed(arrays(**changes)), command, False)
    shapes = {
        "a terabyte": "(1000000000000,)",
        "overflow": "(10000000000000, 10000000000000)",
        "negative": "(-1,)",
        "12 clips": "(12, 100000000000)",
        "a word": "('x',)",
        "deep": "(" * 200 + ")" * 200,
        "huge": f"({'7' * 5000},)",
        "many axes": "(" + "1," * 100 + ")",
        "8 GiB": "(2147483648,)",
    }
    for name, shape in shapes.items():
        for member in ("waveform", "scale"):
            for command in ("verify", "bench", "profile bundle"):
                yield Case(
                    f"golden.npz: {member} of {name}, {command}",
                    "bundle/golden.npz",
                    signed(absurd_member(member, shape)),
                    command,
                )
        yield Case(f"weights.npz: {name}", "weights.npz", absurd_member("absurd", shape), "read weights.npz")
    for dtype in ("|O", "|V0", "<U0", "<M8[s]", "[('a', '<f4')]", "rubbish"):
        yield Case(
            f"weights.npz: of type {dtype}", "weights.npz", absurd_member("absurd", "(4,)", dtype), "read weights.npz"
        )
        yield Case(
            f"golden.npz: of type {dtype}, verify",
            "bundle/golden.npz",
            signed(absurd_member("scale", "(4,)", dtype)),
            "verify",
        )
    for name, settings in {
        "a terabyte": {"shape": (1 << 40,), "dtype": "f4", "chunks": (1024,)},
        "overflow": {"shape": (1 << 40, 1 << 40), "dtype": "f4", "chunks": (1, 1)},
        "8 GiB": {"shape": (1 << 31,), "dtype": "f4", "chunks": (1024,)},
        "a scalar": {"data": 3.0},
        "empty": {"shape": (0,), "dtype": "f4"},
        "half": {"data": np.zeros(4, "f2")},
        "long": {"data": np.zeros(4, "u8")},
        "longdouble": {"data": np.zeros(4, np.longdouble)},
        "booleans": {"data": np.zeros(4, bool)},
    }.items():
        yield Case(f"weights.h5: {name}", "weights.h5", h5_member(**settings), "read weights.h5", False)
    for name, array in {
        "u2": np.zeros(4, "u2"),
        "u8": np.zeros(4, "u8"),
        "longdouble": np.zeros(4, np.longdouble),
        "big-endian": np.zeros(4, ">f4"),
        "a scalar": np.float32(3),
        "empty": np.zeros(0),
        "nan": np.full(4, np.nan),
    }.items():
        yield Case(f"weights.npz: {name}", "weights.npz", arrays(absurd=array), "read weights.npz", False)
    for suffix in ("npz", "h5", "pt", "safetensors"):
        yield from _bytes_of(f"weights.{suffix}", (f"read weights.{suffix}",))
    for name, value in {
        "a list": [1, 2],
        "a number": 3,
        "nested": {"model": {"model": {"model": 3}}},
        "no tensors": {"a": 1},
        "numbers for names": {1: torch.zeros(2)},
        "sparse": {"a": torch.zeros(3, 3).to_sparse()},
        "quantised": {"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)},
        "meta": {"a": torch.zeros(2, device="meta")},
        "complex": {"a": torch.zeros(2, dtype=torch.complex64)},
        "expanded": {"a": torch.zeros(1).expand(1 << 40)},
    }.items():
        yield Case(f"weights.pt: {name}", "weights.pt", in_pt(lambda _, value=value: value), "read weights.pt", False)

    # A report of a profile
    report = document("profile/report.json")
    yield from _bytes_of(
        "profile/report.json", ("against, whole",), ways=("empty", "half", "UTF-16", "not UTF-8", "zeros", "noise")
    )
    yield from _values_of("profile/report.json", report, ("against",), in_json)
    for place in places(report):
        value = report
        for key in place:
            value = value[key]
        if isinstance(value, float | int) and not isinstance(value, bool):
            yield Case(
                f"profile/report.json: {'.'.join(map(str, place))} negated",
                "profile/report.json",
                in_json(lambda old, place=place, value=value: put(old, place, -abs(value) - 1)),
                "against",
            )

    # Boards and recipes
    for file, command in (("board.toml", "targets"), ("recipe.toml", "recipe")):
        yield from _bytes_of(file, (command,))
        yield from _values_of(
            file,
            tomllib.loads((folder / file).read_text()),
            (command,),
            in_toml,
            values=VALUES if file == "board.toml" else FEW,
        )


def run(case: Case, made: Path, place: Path) -> str | None:
    """What is wrong with how the case ends, None where nothing is. `place`: a folder that it may fill."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for entry in made.iterdir():  # what is not damaged is shared, unless the command writes to it
        top = case.file.split("/", 1)[0]
        if entry.name in (top, WRITES.get(case.command)):
            (shutil.copytree if entry.is_dir() else shutil.copyfile)(entry, place / entry.name)
        else:
            (place / entry.name).symlink_to(entry)
    case.damage(place / case.file)
    signal.alarm(SECONDS)
    try:
        ending = COMMANDS[case.command](place)
    except TimeoutError:
        return "it hung"
    finally:
        signal.alarm(0)
    if ending.wrong is not None:
        return ending.wrong
    if case.refused and ending.code not in (2, 3):
        return f"exit {ending.code}: not refused"
    return None


def _late(*_: object) -> None:
    raise TimeoutError("it hung")


def main(words: list[str]) -> None:
    signal.signal(signal.SIGALRM, _late)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder = Path(os.environ.get("ODD_FILES", tempfile.mkdtemp(prefix="odd-files-")))
    os.environ.setdefault("EDGEKD_CACHE_DIR", str(folder / "cache"))
    made = folder / "made"
    if not made.is_dir():
        made.mkdir(parents=True)
        make(made)
        shutil.copyfile(made / "profile" / "report.json", made / "profile" / "as-made.json")
    tried, right, met = Counter[str](), Counter[str](), Counter[str]()
    for case in cases(made):
        met[case.command] += 1
        if words and not any(word in case.name for word in words):
            continue
        if not words and met[case.command] % STRIDES.get(case.command, 1):
            continue
        wrong = run(case, made, folder / "case")
        kind = case.file.split("/", 1)[-1].rsplit("/", 1)[-1]
        tried[kind] += 1
        right[kind] += wrong is None
        if wrong is not None:
            print(f"{case.name}: {wrong}", flush=True)
    for kind, count in tried.items():
        print(f"# {kind:<24} {count:5} tried {right[kind]:5} right")
    print(f"# {'all':<24} {sum(tried.values()):5} tried {sum(right.values()):5} right")


if __name__ == "__main__":
    main(sys.argv[1:])

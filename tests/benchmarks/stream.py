"""What `stream` and `detect` take of the processor for an hour of audio, windows computed in steps and whole.

    python -m tests.benchmarks.stream BUNDLE [--before BUNDLE] [--hops 2.5 1 0.5] [--rounds 5] [--json]

BUNDLE is exported by this checkout for a board that runs onnxruntime. It is measured as it is ("steps") and without the
graphs for windows that overlap ("whole"), and beside it one of the same run that another checkout has exported
("before"), with its own runner. Each runs as on a device, in a process of its own on one thread, with noise on standard
input or in a WAV file; of long input the time of short input is taken off, and with it the start. All take turns.
Printed are medians over the rounds of processor seconds, user and system, an hour of audio, and of the ratios to
"steps". `--live` hands standard input over a hop at a time, as a recorder does, so that no two windows wait together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgekd.device import RUNNER_FILE, runner
from tests.benchmarks.measure import ratio, table, turns

SHORT = 12.0  # s


def without_steps(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle that says of no graphs for windows that overlap."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["steps"] = None
    manifest["sha256"] = runner.manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def processor_seconds(folder: Path, command: str, hop: float, sound: Path, live: tuple[int, int] | None) -> float:
    """User and system time of the runner in `folder`, from its start to its end."""
    arguments = [sys.executable, str(folder / RUNNER_FILE.name), command, "--hop", str(hop)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if command == "detect":
        subprocess.run([*arguments, str(sound)], check=True, env=environment, capture_output=True)
    elif not live:
        with sound.open("rb") as source:
            subprocess.run(arguments, stdin=source, check=True, env=environment, capture_output=True)
    else:
        fed(arguments, environment, sound.read_bytes(), *live)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fed(arguments: list[str], environment: dict[str, str], data: bytes, piece: int, clip: int) -> None:
    """Run `stream` with `piece` bytes at a time, a hop; the next follows the line of the window that they complete."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(arguments, env=environment, bufsize=0, **streams) as process:  # type: ignore[call-overload]
        assert process.stdin is not None and process.stdout is not None
        for end in range(piece, len(data) + 1, piece):
            process.stdin.write(data[end - piece : end])
            if end >= clip:
                process.stdout.readline()
        process.stdin.close()
        process.stdout.read()


def an_hour(
    folder: Path, command: str, hop: float, sounds: tuple[Path, Path], seconds: float, live: tuple[int, int] | None
) -> float:
    long, short = (processor_seconds(folder, command, hop, sound, live) for sound in sounds)
    return (long - short) * 3600 / (seconds - SHORT)


def written(folder: Path, seconds: float, rate: int, name: str) -> tuple[Path, Path]:
    """Noise that swells and fades, as bare s16 samples and as a WAV file."""
    random = np.random.default_rng(0)
    level = 10 ** (-1.5 + np.sin(np.arange(round(seconds * rate)) / rate))
    samples = (3_000 * level * random.standard_normal(len(level))).clip(-32_767, 32_767).astype("<i2").tobytes()
    raw, wav = folder / f"{name}.raw", folder / f"{name}.wav"
    raw.write_bytes(samples)
    with wave.open(str(wav), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return raw, wav


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--before", type=Path, help="a bundle that another checkout has exported")
    parser.add_argument("--hops", type=float, nargs="+", default=[2.5, 1.0, 0.5])
    parser.add_argument("--seconds", type=float, default=192.0, help="of the long input")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", nargs="+", choices=("stream", "detect"), default=["stream", "detect"])
    parser.add_argument("--live", action="store_true", help="standard input comes a hop at a time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    classifier = json.loads((options.bundle / "manifest.json").read_text())["classifier"]
    rate = classifier["sample_rate"]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        variants = {
            "steps": options.bundle,
            "whole": without_steps(options.bundle, folder / "whole"),
        }
        if options.before is not None:
            variants["before"] = options.before
        long = written(folder, options.seconds, rate, "long")
        short = written(folder, SHORT, rate, "short")
        for command in options.commands:
            which = 0 if command == "stream" else 1
            for hop in options.hops:
                live = (
                    (2 * round(hop * rate), 2 * classifier["clip_samples"])
                    if options.live and command == "stream"
                    else None
                )
                known = {n: f for n, f in variants.items() if command != "detect" or n != "before" or _detects(f)}
                timed: dict[str, Callable[[], float]] = {
                    name: partial(an_hour, each, command, hop, (long[which], short[which]), options.seconds, live)
                    for name, each in known.items()
                }
                found = turns(timed, options.rounds)
                row = {"command": command, "hop_s": hop}
                row.update({f"{name}_s": statistics.median(times) for name, times in found.items()})
                rows.append(row | {f"{name}_times": ratio(found[name], found["steps"]) for name in found})
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{options.bundle}: processor seconds an hour of audio, medians of {options.rounds} rounds")
    columns = [name for name in ("steps", "whole", "before") if name in variants]
    head = ("", "hop s", *columns, *(f"{name} / steps" for name in columns[1:]))
    lines = [
        (
            str(row["command"]),
            f"{row['hop_s']:g}",
            *(f"{row[f'{name}_s']:.2f}" if f"{name}_s" in row else "-" for name in columns),
            *(str(row.get(f"{name}_times", "-")) for name in columns[1:]),
        )
        for row in rows
    ]
    print(table(head, lines))


def _detects(folder: Path) -> bool:
    return '"detect"' in (folder / RUNNER_FILE.name).read_text()


if __name__ == "__main__":
    main()

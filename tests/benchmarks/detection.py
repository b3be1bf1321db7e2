"""What is found of sounds laid into an hour of sea, how many alarms are false, and what a day at 96 kHz takes.

    python -m tests.benchmarks.detection data ESC10 DATA               # a data set to train with
    edgekd distill --data-dir DATA ... --out RUN && edgekd export RUN --target cpu --out BUNDLE
    python -m tests.benchmarks.detection score ESC10 RUN BUNDLE --side validation
    python -m tests.benchmarks.detection score ESC10 RUN BUNDLE --threshold 0.7
    python -m tests.benchmarks.detection day BUNDLE [--hours 24] [--rate 96000]

`data` writes clips of ESC-10, each laid into simulated sea by `SNR_DB` (its power over that of the sea, where it is no
digital silence), in the folds that they have, and as many seconds of sea alone as a class has, five times over, as
`background`. `score` lays the clips of one side of such a run into an hour of other sea, at random times, with a pause
of `PAUSE_S` or more between them, runs `edgekd detect`, and scores what it has found, and another hour in which nothing
is. A clip is an event from its first sample that is not 0 to its last. `day` has `detect` read a file in which there is
noise now and then and silence between, and noise through a pipe, and prints the peak of its memory.

Thresholds are chosen on the validation side: `score --side validation` prints those that it would choose, never `test`.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from edgekd.audio.read import read
from edgekd.data.simulation import ocean
from edgekd.data.simulation.ocean import Sea
from edgekd.events.event import Event
from edgekd.events.matching import Criterion, Overlap, Tolerance
from edgekd.events.tables import read_events, write_events
from edgekd.files.csv_table import read_lines
from edgekd.scoring.event_tables import ScoredTables, score_tables
from tests.benchmarks.measure import table

RATE, CLIP_S = 32_000, 5
SNR_DB = (10.0, 20.0)
LEVEL_DB = -35.0  # of the sea, in full scale
PAUSE_S = 5.0
BLOCK_S = 120
CRITERIA: tuple[Criterion, ...] = (Overlap(0.3), Tolerance(1.0, 0.2))

Samples = NDArray[np.float32]


def sea(seconds: float, rng: np.random.Generator) -> Samples:
    """`(samples,)` of ambient noise whose conditions change every `BLOCK_S`, at `LEVEL_DB`."""
    blocks, left = [], round(seconds * RATE)
    while left:
        samples = min(left, BLOCK_S * RATE)
        noise = ocean.ambient(Sea(rng.uniform(3, 12), rng.uniform(0.1, 0.8)), RATE, samples, rng)
        blocks.append((noise * (10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(np.square(noise))))).astype(np.float32))
        left -= samples
    return np.concatenate(blocks)


def sounding(path: Path) -> Samples:
    """A clip without the digital silence at its ends."""
    sound = read(path, RATE)
    heard = np.flatnonzero(sound)
    return sound[heard[0] : heard[-1] + 1]


def lay(into: Samples, sound: Samples, at: int, rng: np.random.Generator) -> None:
    """Add a sound to the sea, `SNR_DB` over it."""
    level = 10 ** ((LEVEL_DB + rng.uniform(*SNR_DB)) / 20) / np.sqrt(np.mean(np.square(sound)))
    into[at : at + len(sound)] += sound * np.float32(level)


def write_data(source: Path, out: Path) -> None:
    """A data set with a `manifest.csv`: each clip of ESC-10 in sea, and sea alone."""
    rng = np.random.default_rng(1)
    out.mkdir(parents=True)
    _, lines = read_lines(next((source / "meta").glob("*.csv")))
    rows = [line for line in lines if (source / "audio" / line.text("filename")).exists()]
    manifest = ["path,label,group,fold"]
    for line in rows:
        name = f"{Path(line.text('filename')).stem}.wav"
        sound, noise = sounding(source / "audio" / line.text("filename")), sea(CLIP_S, rng)
        lay(noise, sound[: len(noise)], 0, rng)
        soundfile.write(out / name, np.clip(noise, -1, 1), RATE)
        manifest.append(f"{name},{line.text('category')},{line.text('src_file')},{line.text('fold')}")
    for number in range(200):
        name = f"sea-{number:03d}.wav"
        soundfile.write(out / name, sea(CLIP_S, rng), RATE)
        manifest.append(f"{name},background,sea-{number:03d},{number % 5 + 1}")
    (out / "manifest.csv").write_text("\n".join(manifest) + "\n")


def write_hour(folder: Path, source: Path, run: Path, side: str, hours: float, seed: int) -> int:
    """`sounds.wav` with clips of a side, `truth.csv` with their times, `sea.wav` with nothing; how many there are."""
    rng = np.random.default_rng(seed)
    _, lines = read_lines(run / "splits.csv")
    clips = [(line.text("path"), line.text("class")) for line in lines if line.text("side") == side]
    clips = [(path, name) for path, name in clips if name != "background"]
    recording = sea(3600 * hours, rng)
    events: list[Event] = []
    begin = 10.0
    for number in range(10_000):
        if number % len(clips) == 0:
            rng.shuffle(clips)  # every clip as often as every other
        path, label = clips[number % len(clips)]
        sound = sounding(next((source / "audio").glob(f"{Path(path).stem}.*")))
        end = begin + len(sound) / RATE
        if end > 3600 * hours - 10:
            break
        lay(recording, sound, round(begin * RATE), rng)
        events.append(Event("sounds.wav", begin, end, label))
        begin = end + PAUSE_S + rng.exponential(20)
    soundfile.write(folder / "sounds.wav", np.clip(recording, -1, 1), RATE)
    soundfile.write(folder / "sea.wav", np.clip(sea(3600 * hours, rng), -1, 1), RATE)
    write_events(folder / "truth.csv", events)
    return len(events)


def run_detect(model: Path, recording: Path, out: Path, *more: str) -> list[Event]:
    """What `edgekd detect` finds."""
    command = [sys.executable, "-m", "edgekd", "detect", str(model), str(recording), "--out", str(out), "-q", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_events(out)


def run_score(arguments: argparse.Namespace) -> None:
    """Print what is found, beside the truth."""
    seed = {"validation": 101, "test": 202}[arguments.side]
    more = [f"--threshold={threshold}" for threshold in arguments.threshold or ()]
    more += [] if arguments.hop is None else [f"--hop={arguments.hop}"]
    more += [] if arguments.gap is None else [f"--gap={arguments.gap}"]
    with tempfile.TemporaryDirectory(dir=arguments.keep) as name:
        folder = Path(name)
        count = write_hour(folder, arguments.esc10, arguments.run, arguments.side, arguments.hours, seed)
        truth = read_events(folder / "truth.csv")
        started = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = run_detect(arguments.bundle, folder / "sounds.wav", folder / "found.csv", *more)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        alone = run_detect(arguments.bundle, folder / "sea.wav", folder / "alone.csv", *more)
        print(f"{count} clips of the {arguments.side} side in {arguments.hours:g} h of sea; {len(found)} detections")
        print(
            f"{3600 * arguments.hours / processor:.0f} times real time by processor time, start-up included;"
            f" {3600 * arguments.hours / (time.monotonic() - started):.0f} by the clock\n"
        )
        for criterion in CRITERIA:
            scored = score_tables(found, truth, criterion, audio=folder / "sounds.wav")
            _show(str(criterion), scored)
            if arguments.side == "validation" and criterion == CRITERIA[0]:
                _choose(truth, folder, arguments, more)
        print(f"an hour of sea alone: {len(alone) / arguments.hours:.1f} false alarms/h")
        for label in sorted({event.label for event in alone}):
            print(f"  {label}: {sum(event.label == label for event in alone) / arguments.hours:.1f}/h")


def _show(criterion: str, scored: ScoredTables) -> None:
    figures = scored.scores.overall
    print(f"right by {criterion}")
    rows = [
        ("F1", f"{figures.f1.value:.1%}"),
        ("precision", f"{figures.precision.value:.1%}"),
        ("recall", f"{figures.recall.value:.1%}"),
        ("false alarms/h", "-" if figures.an_hour is None else f"{figures.an_hour.value:.1f}"),
        ("of background", "-" if figures.background_an_hour is None else f"{figures.background_an_hour.value:.1f}"),
    ]
    print("\n".join(f"  {name:<16}{value:>8}" for name, value in rows) + "\n")


def _choose(truth: list[Event], folder: Path, arguments: argparse.Namespace, more: list[str]) -> None:
    """F1 of a few thresholds of all classes, which may be chosen here and nowhere else."""
    kept = [option for option in more if not option.startswith("--threshold")]
    rows = []
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        out = folder / f"found-{threshold}.csv"
        found = run_detect(arguments.bundle, folder / "sounds.wav", out, *kept, f"--threshold={threshold}")
        alone = run_detect(
            arguments.bundle, folder / "sea.wav", folder / f"alone-{threshold}.csv", *kept, f"--threshold={threshold}"
        )
        scored = [score_tables(found, truth, criterion, audio=folder / "sounds.wav") for criterion in CRITERIA]
        figures = [f"{each.scores.overall.f1.value:.1%}" for each in scored]
        rows.append((f"{threshold}", *figures, f"{len(alone) / arguments.hours:.1f}"))
    print(table(("threshold", "F1", "F1, tolerance", "sea alone, /h"), rows))


# A day


def write_day(path: Path, hours: float, rate: int) -> None:
    """A WAV file (RF64 from 4 GiB on) of 16-bit samples: every ten minutes one of noise, and holes between."""
    frames, minute = round(hours * 3600 * rate), 60 * rate
    noise = (1_000 * np.random.default_rng(0).standard_normal(minute)).astype("<i2").tobytes()
    size = 2 * frames
    with open(path, "wb") as file:
        layout = b"fmt " + np.array([16], "<u4").tobytes() + np.array([1, 1], "<u2").tobytes()
        layout += np.array([rate, 2 * rate], "<u4").tobytes() + np.array([2, 16], "<u2").tobytes()
        wide = b"ds64" + np.array([28], "<u4").tobytes() + np.array([size + 72, size, frames], "<u8").tobytes()
        all_ones = b"\xff" * 4
        file.write(b"RF64" + all_ones + b"WAVE" + wide + bytes(4) + layout + b"data" + all_ones)
        first = file.tell()
        for begin in range(0, frames, 10 * minute):
            file.seek(first + 2 * begin)
            file.write(noise[: 2 * (frames - begin)])
        file.truncate(first + size)


METER = """
import json, resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = {"clock": time.monotonic() - began, "processor": used.ru_utime + used.ru_stime}
print(json.dumps({"code": code, "peak_mb": used.ru_maxrss / 1000, **seconds}))
"""


def peak_of(command: list[str], sound: Iterator[bytes] | None = None) -> dict[str, float]:
    """Seconds by the clock and of the processor, and the peak of a command's memory in MB."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", METER, *command], stdout=pipe, stdin=pipe)
    assert process.stdin is not None and process.stdout is not None
    for piece in sound or ():
        process.stdin.write(piece)
    process.stdin.close()
    measured: dict[str, float] = json.loads(process.stdout.read())
    process.wait()
    assert measured.pop("code") == 0
    return measured


def run_day(arguments: argparse.Namespace) -> None:
    """Print what a day takes, as a file and through a pipe."""
    hours, rate = arguments.hours, arguments.rate
    noise = (1_000 * np.random.default_rng(0).standard_normal(10 * rate)).astype("<i2").tobytes()
    command = [sys.executable, "-m", "edgekd", "detect", str(arguments.bundle)]
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.keep) as name:
        folder = Path(name)
        write_day(folder / "day.wav", hours, rate)
        size = (folder / "day.wav").stat()
        print(f"{size.st_size / 1e9:.1f} GB, {size.st_blocks * 512 / 1e9:.1f} of it on the disk")
        out = ["--out", str(folder / "found.csv"), "-q"]
        rows.append(("file, a tenth noise", peak_of([*command, str(folder / "day.wav"), *out])))
        if arguments.pipe_hours:
            sound = (noise for _ in range(round(arguments.pipe_hours * 360)))
            found = peak_of([*command, "-", "--rate", str(rate), "--out", str(folder / "piped.csv")], sound)
            rows.append((f"pipe, {arguments.pipe_hours:g} h of noise", found))
    heard = [hours, arguments.pipe_hours]
    cells = [
        (what, f"{m['peak_mb']:.0f}", f"{m['processor']:.0f}", f"{3600 * h / m['processor']:.0f}")
        for (what, m), h in zip(rows, heard, strict=False)
    ]
    print(table((f"{hours:g} h at {rate} Hz", "peak, MB", "processor, s", "times real time"), cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data")
    data.add_argument("esc10", type=Path)
    data.add_argument("out", type=Path)
    data.set_defaults(run_command=lambda arguments: write_data(arguments.esc10, arguments.out))
    score = commands.add_parser("score")
    score.add_argument("esc10", type=Path)
    score.add_argument("run", type=Path)
    score.add_argument("bundle", type=Path)
    score.add_argument("--side", choices=("validation", "test"), default="test")
    score.add_argument("--hours", type=float, default=1.0)
    score.add_argument("--threshold", action="append")
    score.add_argument("--hop", type=float)
    score.add_argument("--gap", type=float)
    score.set_defaults(run_command=run_score)
    day = commands.add_parser("day")
    day.add_argument("bundle", type=Path)
    day.add_argument("--hours", type=float, default=24.0)
    day.add_argument("--pipe-hours", type=float, default=1.0)
    day.add_argument("--rate", type=int, default=96_000)
    day.set_defaults(run_command=run_day)
    for command in (score, day):
        command.add_argument("--keep", type=Path, help="where the recordings are written meanwhile")
    arguments = parser.parse_args()
    run: Any = arguments.run_command
    run(arguments)


if __name__ == "__main__":
    main()

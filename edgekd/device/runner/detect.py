"""The command `detect`: events of WAV files, in a table."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, TextIO

from edgekd.device.runner.classifier import Runner, open_runner
from edgekd.device.runner.detection import Detection, Rule, event_line, hop_note, rule_of
from edgekd.device.runner.errors import BAD_INPUT, RunnerError, WrongUsage, complain, plain
from edgekd.device.runner.scores import Listener
from edgekd.device.runner.wav import open_wav

_RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Begin File", "File Offset (s)")
Lines = Callable[["dict[str, Any]", float], str]  # an event, and where its recording begins in the sequence, in s


def run_detect(folder: Path, options: argparse.Namespace) -> int:
    """The command `detect`."""
    suffix = "" if options.out is None else options.out.suffix.lower()
    format_ = options.format or {".csv": "csv", ".txt": "raven"}.get(suffix, "jsonl")
    if format_ == "audacity" and len(options.files) > 1:
        raise WrongUsage("--format audacity: a label file is of one recording; give one FILE")
    if options.out is not None and any(_is_same(path, options.out) for path in options.files):
        raise WrongUsage(f"--out {options.out}: is a recording to listen to; name another file for the table")
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    rule = asked_rule(runner, options)
    header, line = _FORMATS[format_]()
    begins, exit_code, count = 0.0, 0, 0
    with _table(options.out) as table:
        table.write(header)
        for path in options.files:
            try:
                events, listener = _events(runner, rule, path)
            except RunnerError as failure:
                complain(f"{path}: {failure}", failure)
                exit_code = BAD_INPUT
                continue
            if told := missed(listener):
                complain(f"{path}: {told}")
                exit_code = BAD_INPUT if listener.unscored else exit_code
            table.writelines(line(event, begins) for event in events)
            table.flush()
            begins, count = begins + listener.seconds, count + len(events)
    complain(f"{begins / 3600:.3f} h heard: {count} events")
    return exit_code


def asked_rule(runner: Runner, options: argparse.Namespace) -> Rule:
    """The bundle's rule with what the options ask for instead."""
    rule = rule_of(
        runner.manifest,
        hop_s=options.hop,
        thresholds=options.threshold or (),
        minimum_s=options.minimum,
        gap_s=options.gap,
        exclusive=options.exclusive or None,
    )
    if note := hop_note(options.hop, rule.hop / rule.rate):
        complain(note)
    return rule


def missed(listener: Listener) -> str:
    """What of a recording could not be listened to, in words; empty where all of it could."""
    if listener.unscored:
        return (
            f"{listener.unscored} of {listener.windows} windows could not be scored, the first at"
            f" {listener.error_at:g} s: {listener.error}"
        )
    if not listener.heard:
        return "holds no samples"
    return "silent: all its samples have one value" if listener.flat else ""


def _events(runner: Runner, rule: Rule, path: Path) -> tuple[list[dict[str, Any]], Listener]:
    with open_wav(path) as wav:
        listener = Listener(runner, rule, wav.rate)
        found: list[Detection] = []
        for piece in wav.blocks(runner.channel, runner.full_scale):
            found += listener.push(piece)
        found += listener.finish()
    found.sort(key=lambda event: (event.start, event.stop, event.label))
    return [event_line(event, rule, listener.seconds, str(path)) for event in found], listener


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _table(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there when all of it is; a pipe or a device, such as /dev/stdout, is written
    to."""
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        if partial.exists():
            partial.unlink()


def _json_lines() -> tuple[str, Lines]:
    return "", lambda event, _: json.dumps(event) + "\n"


def _csv() -> tuple[str, Lines]:
    def row(values: Any) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()

    names = ("audio_file", "annotation", "start_time", "end_time", "score")
    return row(names), lambda event, _: row(event[name] for name in names)


def _audacity() -> tuple[str, Lines]:
    def line(event: dict[str, Any], _: float) -> str:
        return f"{event['start_time']:.6f}\t{event['end_time']:.6f}\t{plain(event['annotation'])}\t{event['score']}\n"

    return "", line


def _raven() -> tuple[str, Lines]:
    numbers = iter(range(1, sys.maxsize))

    def line(event: dict[str, Any], begins: float) -> str:
        times = [begins + event["start_time"], begins + event["end_time"]]
        name = Path(event["audio_file"]).name
        cells = [next(numbers), "Spectrogram 1", 1, *(f"{time:.6f}" for time in times), name]
        cells += [f"{event['start_time']:.6f}", event["audio_file"], event["annotation"], event["score"]]
        return "\t".join(plain(cell) for cell in cells) + "\n"

    return "\t".join((*_RAVEN, "Begin Path", "Annotation", "Score")) + "\n", line


_FORMATS = {"jsonl": _json_lines, "csv": _csv, "raven": _raven, "audacity": _audacity}
TABLES = tuple(_FORMATS)

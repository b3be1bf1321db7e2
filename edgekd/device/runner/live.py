"""A signal on standard input: read ahead, classified, a JSON line a window."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import stat
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Iterator

from edgekd.device.runner.classifier import open_runner
from edgekd.device.runner.detect import asked_rule
from edgekd.device.runner.detection import hop_note, hop_of
from edgekd.device.runner.errors import INTERRUPTED, RunnerError, WrongUsage, complain
from edgekd.device.runner.stream import STREAM_FORMATS, Stream

READ = 1 << 16  # bytes at a time: what a pipe holds
PROBATION = 10  # s after the first sample in which a source may show that it is faster than real time
TOGETHER = 4.0  # s of a recording that are taken at once
HEADSTART = 2.0  # s of sound, beyond what a pipe holds, that a live source may have saved up before it is read


class Inbox(threading.Thread):
    """Reads a file descriptor ahead, so that a recorder's buffer does not run over while a window is classified.

    Holds up to its capacity, then leaves the writer waiting. `can_wait` tells that nothing is lost by that: it is a
    file, it has ended, or it came faster than real time in the first `PROBATION` seconds, so it is no microphone.
    """

    def __init__(self, descriptor: int, bytes_per_second: int, least_capacity: int) -> None:
        super().__init__(daemon=True)  # it may wait for input for ever
        self._descriptor, self._bytes_per_second = descriptor, bytes_per_second
        os.set_blocking(descriptor, True)
        try:
            pipe = fcntl.fcntl(descriptor, 1032)  # F_GETPIPE_SZ, which has its name from Python 3.10 on
        except OSError:
            pipe = READ
        self._headstart = pipe + int(HEADSTART * bytes_per_second)
        self._capacity = max(least_capacity, 2 * self._headstart)
        self._changed = threading.Condition()
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._failure: OSError | None = None
        self.can_wait = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def run(self) -> None:
        received, started = 0, None
        data = None
        while data != b"":
            try:
                data = os.read(self._descriptor, READ)
            except OSError as failure:
                self._failure, data = failure, b""
            now = time.monotonic()
            started = now if started is None else started
            received += len(data)
            ahead = received - self._headstart > (now - started) * self._bytes_per_second
            with self._changed:
                # Only at first: in a day, a sound card's own clock runs ahead by seconds.
                self.can_wait |= not data or (ahead and now - started < PROBATION)
                self._chunks.append((now, data))
                self._size += len(data)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._size < self._capacity)

    @property
    def more_waits(self) -> bool:
        """Whether something has been read that was not taken yet."""
        return self._size > 0

    def take(self, timeout: float) -> tuple[float, bytes] | None:
        """When something came and what, b"" at the end; None where nothing comes for `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._chunks), timeout):
                return None
            arrived, data = self._chunks.popleft()
            # A recording is heard a few windows at a time, which takes less than one after the other.
            while self.can_wait and data and self._chunks and len(data) < TOGETHER * self._bytes_per_second:
                if not self._chunks[0][1]:
                    break
                data += self._chunks.popleft()[1]
            self._size -= len(data)
            self._changed.notify_all()
        if not data and self._failure is not None:
            raise RunnerError(f"standard input: {(self._failure.strerror or 'cannot be read').lower()}")
        return arrived, data


class _Printer:
    """Prints the rows of a stream, and on standard error, now and then, that windows are skipped."""

    EVERY = 60.0  # s between two complaints

    def __init__(self, top: int | None, threshold: float, events: bool) -> None:
        self._top, self._threshold, self._events = top, threshold, events
        self._reported, self._next = 0, 0.0
        self.found = 0

    def __call__(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if row["skipped"] > self._reported and now >= self._next:
            self._reported, self._next = row["skipped"], now + self.EVERY
            complain(
                f"falling behind: {row['skipped']} windows skipped so far, one takes {row['latency_ms']:.0f} ms."
                " Next: a longer --hop, or more --threads"
            )
        if self._events:
            self.found += len(row["events"])
            for event in row["events"]:
                print(json.dumps(event), flush=True)
            return
        if "error" not in row:
            if row["score"] < self._threshold:
                return
            row["scores"] = dict(list(row["scores"].items())[: self._top])
        print(json.dumps(row), flush=True)


def run_stream(folder: Path, options: argparse.Namespace) -> int:
    """The command `stream`."""
    if os.isatty(0):
        raise WrongUsage("standard input is a terminal: arecord -q -f S16_LE -r 32000 -t raw | edgekd_runner.py stream")
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    if runner.engine == "trtexec":
        raise RunnerError(
            "stream: trtexec is too slow for a live signal. Next: install TensorRT's module, or add --cpu"
        )
    threshold = _usage(options)
    rule = asked_rule(runner, options) if options.events else None
    hop_samples = hop_of(runner.manifest, options.hop or runner.hop_samples / runner.sample_rate)
    if rule is None and (note := hop_note(options.hop, hop_samples / runner.sample_rate)):
        complain(note)
    rate = options.rate or runner.sample_rate
    encoding = STREAM_FORMATS[options.format]
    bytes_per_second = rate * options.channels * encoding[1] // 8
    clip_s = runner.clip_samples / runner.sample_rate
    inbox = Inbox(0, bytes_per_second, int(bytes_per_second * clip_s))
    may_skip = {"auto": lambda: not inbox.can_wait, "skip": lambda: True, "wait": lambda: False}
    stream = Stream(
        runner,
        rate=rate,
        encoding=encoding,
        channels=options.channels,
        hop_samples=hop_samples,
        smooth=options.smooth,
        rule=rule,
        may_skip=may_skip[options.behind],
        more_waits=lambda: inbox.more_waits,
    )
    stops: list[int] = []

    def stop(number: int, _: Any) -> None:
        stops.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for the window in work

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    inbox.start()
    show = _Printer(options.top, threshold, options.events)
    for row in _rows(stream, inbox, options.stall_seconds, stops):
        show(row)
    if stops and options.events:  # what has begun ends here
        for row in stream.finish():
            show(row)
    if stream.rest:
        complain(f"the input ended inside a sample: {len(stream.rest)} of {stream.frame_bytes} bytes were left over")
    found = f"{show.found} events; " if options.events else ""
    complain(
        f"{stream.frames / rate:.3f} s heard: {found}{stream.classified} windows classified, {stream.skipped} skipped,"
        f" {stream.refused} refused; {stream.unused_s:.3f} s left over at the end"
    )
    return INTERRUPTED if signal.SIGINT in stops else 0


def _usage(options: argparse.Namespace) -> float:
    """Below which score windows are left out. Raises `WrongUsage` for options that would do nothing."""
    if options.events:
        for given, name in ((options.smooth > 1, "--smooth"), (options.top, "--top")):
            if given:
                raise WrongUsage(f"{name}: is of windows, and with --events there are none")
        return 0.0
    for given, name in ((options.minimum, "--minimum"), (options.gap, "--gap"), (options.exclusive, "--exclusive")):
        if given:
            raise WrongUsage(f"{name}: is of events; add --events")
    thresholds = options.threshold or [(None, 0.0)]
    if len(thresholds) > 1 or thresholds[0][0] is not None:
        raise WrongUsage("--threshold: one score for all classes, or add --events")
    return float(thresholds[0][1])


def _rows(stream: Stream, inbox: Inbox, stall_seconds: float, stops: list[int]) -> Iterator[dict[str, Any]]:
    """The windows of a stream until it ends or is stopped; says when it stalls."""
    last, stalled = time.monotonic(), False
    while not stops:
        taken = inbox.take(timeout=0.2)  # a signal is noticed after this time
        now = time.monotonic()
        if taken is None:
            if not stalled and now - last > stall_seconds:
                complain(f"no samples for {stall_seconds:g} s; still waiting")
                stalled = True
            continue
        if stalled:
            complain(f"samples again after {now - last:.0f} s")
        last, stalled = now, False
        arrived, data = taken
        for row in stream.push(data, arrived) if data else stream.finish():
            yield row
            last = time.monotonic()
            if stops:
                return
        if not data:
            return

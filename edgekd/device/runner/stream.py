"""An endless signal, cut into windows and classified as it comes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Iterator

import numpy as np

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.detection import EventFinder, Rule, event_line, opening_nothing
from edgekd.device.runner.errors import RunnerError, WrongUsage
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import Resampler
from edgekd.device.runner.scorer import Row, Scorer
from edgekd.device.runner.wav import DECODERS, to_mono
from edgekd.device.runner.wav_header import FLOAT, PCM

STREAM_FORMATS = {"s16": (PCM, 16), "s24": (PCM, 24), "s32": (PCM, 32), "u8": (PCM, 8), "f32": (FLOAT, 32)}
PATIENCE = 0.5  # s that a window may have waited in any case before it is left out for a newer one


class Cutter:
    """Cuts an endless signal into clips every `hop_samples`, holding up to three clips' worth of it, the last in any
    case.

    Positions are counted in whole samples, so they are exact for ever.
    """

    def __init__(self, clip_samples: int, hop_samples: int) -> None:
        self._clip, self._hop = clip_samples, hop_samples
        self._buffer = np.empty(3 * clip_samples, np.float32)
        self._first = self._last = 0  # what is held lies between them in the buffer
        self._gap = 0  # samples to leave out first, where windows do not touch
        self.position = 0  # of the next window in the signal

    def completed_by(self, samples: int) -> int:
        """How many windows that many samples more will complete."""
        return max(0, 1 + (samples - self._gap - self._clip + self._last - self._first) // self._hop)

    def push(self, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Position and samples of each window that is complete now; the samples are good until the next."""
        while len(samples):
            held, left_out = self._last - self._first, min(self._gap, len(samples))
            taken = min(self._clip - held, len(samples) - left_out)
            if self._last + taken > len(self._buffer):
                kept = min(self._last, self._clip)  # with what `last` may need
                self._buffer[:kept] = self._buffer[self._last - kept : self._last]
                self._first, self._last = kept - held, kept
            self._buffer[self._last : self._last + taken] = samples[left_out : left_out + taken]
            self._gap, self._last, samples = self._gap - left_out, self._last + taken, samples[left_out + taken :]
            if held + taken == self._clip:
                yield self.position, self._buffer[self._first : self._last]
                self.position += self._hop
                self._first += min(self._hop, self._clip)
                self._gap = max(0, self._hop - self._clip)

    def last(self) -> tuple[int, np.ndarray] | None:
        """At the end of the signal, where windows touch: position and samples of a window flush with it, which is the
        whole signal where that is shorter; None where the last window was so already."""
        held = self._last - self._first
        if not self.position:
            return (0, self._buffer[self._first : self._last]) if held else None
        if self._hop - self._clip + held == 0:
            return None
        return self.position + held - self._clip, self._buffer[self._last - self._clip : self._last]


class Stream:
    """Classifies the windows of an endless PCM signal; `push` takes its bytes as they come, `finish` ends it.

    Both give a row for each window: `start_s` and `end_s` in the signal, `class`, `score` and `scores` (the mean of the
    last `smooth` windows), `silent` (all samples alike), or `error`; where the bundle rejects the unknown also `known`
    and `unknown`, and "unknown" for a class; `latency_ms` of the classification, `late_s` since
    its last sample was read, and `skipped` windows so far. Where `may_skip()`, a window that has waited for longer than
    a hop (and `PATIENCE`) is skipped unless it is the newest: `more_waits()` tells of bytes to come.

    With a `rule` rows also have `events`, those that are certain now as `event_line` tells them; the hop is the rule's,
    and `finish` gives a window flush with the end, as a recording has it.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        rate: int,
        encoding: tuple[int, int] = (PCM, 16),
        channels: int = 1,
        hop_samples: int | None = None,
        smooth: int = 1,
        rule: Rule | None = None,
        may_skip: Callable[[], bool] = lambda: False,
        more_waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runner, self._may_skip, self._more_waits = runner, may_skip, more_waits
        self._channels, self._convert, self.frame_bytes = channels, DECODERS[encoding], channels * encoding[1] // 8
        if runner.channel != "mean" and int(runner.channel) >= channels:
            raise WrongUsage(f"--channels {channels}: the bundle hears channel {runner.channel}, counted from 0")
        self._scale = runner.full_scale if encoding[0] == FLOAT else 1.0
        self._stretches = Stretches(rate, runner.sample_rate)
        self._rate, self._rule = rate, rule
        self._finder = None if rule is None else EventFinder(rule)
        hop_samples = rule.hop if rule is not None else hop_samples or runner.hop_samples
        self._cutter = Cutter(runner.clip_samples, hop_samples)
        self._resampler: Resampler | None = None
        if rate != runner.sample_rate:
            width, rolloff = runner.resampler["lowpass_filter_width"], runner.resampler["rolloff"]
            self._resampler = Resampler(rate, runner.sample_rate, width, rolloff)
        self._scorer = Scorer(runner, self._stretches, silent_too=True)
        self._recent: deque[np.ndarray] = deque(maxlen=smooth)
        self._patience = max(PATIENCE, hop_samples / runner.sample_rate)
        self.rest = b""  # of a frame that is not complete
        self.frames = self.classified = self.skipped = self.refused = 0
        self._samples = self._end = 0  # at the bundle's rate: all of them, and up to the end of the last window

    @property
    def unused_s(self) -> float:
        """What has come since the end of the last window."""
        return max(0, self._samples - self._end) / self._runner.sample_rate

    def push(self, data: bytes, arrived: float) -> Iterator[dict[str, Any]]:
        """The next bytes, which came at `arrived` on the monotonic clock."""
        data = self.rest + data
        whole = len(data) - len(data) % self.frame_bytes
        self.rest = data[whole:]
        if not self.frames and data[:4] in (b"RIFF", b"RIFX", b"RF64"):
            raise RunnerError(
                "standard input: begins with a WAV header, but `stream` takes bare samples: arecord -t raw"
            )
        self.frames += whole // self.frame_bytes
        samples = to_mono(data[:whole], self._channels, self._convert, self._runner.channel)
        if self._scale != 1:
            samples = samples / np.float32(self._scale)
        self._stretches.push(samples)
        return self._windows(samples if self._resampler is None else self._resampler.push(samples), arrived)

    def finish(self) -> Iterator[dict[str, Any]]:
        """What resampling has held back, and where events are looked for, the end of the signal."""
        silence_follows = np.zeros(0, np.float32) if self._resampler is None else self._resampler.finish()
        yield from self._windows(silence_follows, time.monotonic())
        if self._finder is not None and self._rule is not None:
            last = self._cutter.last()
            row: dict[str, Any] = {"skipped": self.skipped, "latency_ms": 0.0, "events": []}
            if last is not None:
                began = time.monotonic()
                self._scorer.add(*last)
                row.update(*self._taken(began, began))
            row["events"] += [event_line(event, self._rule, self._heard_s) for event in self._finder.finish()]
            yield row

    @property
    def _heard_s(self) -> float:
        return self.frames / self._rate

    def _windows(self, samples: np.ndarray, arrived: float) -> Iterator[dict[str, Any]]:
        left, began = self._cutter.completed_by(len(samples)), time.monotonic()
        self._samples += len(samples)
        self._scorer.heard(samples)
        for position, clip in self._cutter.push(samples):
            left, self._end = left - 1, position + len(clip)
            waited = time.monotonic() - arrived
            if waited > self._patience and (left or self._more_waits()) and self._may_skip():
                self.skipped += 1
                continue
            self._scorer.add(position, clip)
            if self._scorer.is_full:
                yield from self._taken(began, arrived)
                began = time.monotonic()
        yield from self._taken(began, arrived)

    def _taken(self, began: float, arrived: float) -> Iterator[dict[str, Any]]:
        """The rows of the windows that the scorer has been given since `began`."""
        rows = self._scorer.take()
        latency = (time.monotonic() - began) / max(1, len(rows))
        for row in rows:
            self._end = row.stop
            told = self._told(row)
            told.update(latency_ms=round(1e3 * latency, 3), late_s=round(time.monotonic() - arrived, 3))
            yield {**told, "skipped": self.skipped}

    def _told(self, row: Row) -> dict[str, Any]:
        rate = self._runner.sample_rate
        told: dict[str, Any] = {"start_s": round(row.start / rate, 6), "end_s": round(row.stop / rate, 6)}
        mean = None
        if row.scores is None:
            told["error"] = row.error
            self.refused += 1
        else:
            self._recent.append(row.scores)
            answer = row.scores if len(self._recent) == 1 else np.mean(self._recent, axis=0)
            told.update(self._ranked(answer), silent=row.silent)
            mean = answer[: len(self._runner.classes)]
            if told.get("unknown") and self._rule is not None:
                mean = opening_nothing(mean, self._rule)
            self.classified += 1
        if self._finder is not None and self._rule is not None:
            events = self._finder.push(row.start, row.stop, None if row.silent else mean)
            told["events"] = [event_line(event, self._rule, self._heard_s) for event in events]
        return told

    def _ranked(self, answer: np.ndarray) -> dict[str, Any]:
        mean, told = answer[: len(self._runner.classes)], self._runner.told(answer)
        each, classes = mean.tolist(), self._runner.classes
        scores = {classes[k]: round(each[k], 6) for k in np.argsort(-mean, kind="stable").tolist()}
        best = next(iter(scores))
        several = {"classes": self._runner.answered(mean)} if self._runner.answers_several else {}
        named = "unknown" if told.get("unknown") else best
        return {"class": named, "score": scores[best], **several, "scores": scores, **told}

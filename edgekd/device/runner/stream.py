"""An endless signal, cut into windows and classified as it comes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Iterator

import numpy as np

from edgekd.device.runner.classifier import Runner, SoundCheck, fit
from edgekd.device.runner.errors import BadSamples, RunnerError, WrongUsage
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import Resampler
from edgekd.device.runner.wav import DECODERS, to_mono
from edgekd.device.runner.wav_header import FLOAT, PCM

STREAM_FORMATS = {"s16": (PCM, 16), "s24": (PCM, 24), "s32": (PCM, 32), "u8": (PCM, 8), "f32": (FLOAT, 32)}
PATIENCE = 0.5  # s that a window may have waited in any case before it is left out for a newer one


class Cutter:
    """Cuts an endless signal into clips every `hop_samples`, holding two clips' worth of it.

    Positions are counted in whole samples, so they are exact for ever.
    """

    def __init__(self, clip_samples: int, hop_samples: int) -> None:
        self._clip, self._hop = clip_samples, hop_samples
        self._buffer = np.empty(2 * clip_samples, np.float32)
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
                self._buffer[:held] = self._buffer[self._first : self._last]
                self._first, self._last = 0, held
            self._buffer[self._last : self._last + taken] = samples[left_out : left_out + taken]
            self._gap, self._last, samples = self._gap - left_out, self._last + taken, samples[left_out + taken :]
            if held + taken == self._clip:
                yield self.position, self._buffer[self._first : self._last]
                self.position += self._hop
                self._first += min(self._hop, self._clip)
                self._gap = max(0, self._hop - self._clip)


class Stream:
    """Classifies the windows of an endless PCM signal; `push` takes its bytes as they come, `finish` ends it.

    Both give a row for each window: `start_s` and `end_s` in the signal, `class`, `score` and `scores` (the mean of the
    last `smooth` windows), `silent` (all samples alike), or `error`; `latency_ms` of the classification, `late_s` since
    its last sample was read, and `skipped` windows so far. Where `may_skip()`, a window that has waited for longer than
    a hop (and `PATIENCE`) is skipped unless it is the newest: `more_waits()` tells of bytes to come.
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
        may_skip: Callable[[], bool] = lambda: False,
        more_waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runner, self._may_skip, self._more_waits = runner, may_skip, more_waits
        self._channels, self._convert, self.frame_bytes = channels, DECODERS[encoding], channels * encoding[1] // 8
        if runner.channel != "mean" and int(runner.channel) >= channels:
            raise WrongUsage(f"--channels {channels}: the bundle hears channel {runner.channel}, counted from 0")
        self._scale = runner.full_scale if encoding[0] == FLOAT else 1.0
        self._stretches = Stretches(rate, runner.sample_rate)
        hop_samples = hop_samples or runner.hop_samples
        self._cutter = Cutter(runner.clip_samples, hop_samples)
        self._resampler: Resampler | None = None
        if rate != runner.sample_rate:
            width, rolloff = runner.resampler["lowpass_filter_width"], runner.resampler["rolloff"]
            self._resampler = Resampler(rate, runner.sample_rate, width, rolloff)
        self._scores_of, self._sound = runner.in_steps(), SoundCheck()
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
        """What resampling has held back."""
        silence_follows = np.zeros(0, np.float32) if self._resampler is None else self._resampler.finish()
        return self._windows(silence_follows, time.monotonic())

    def _windows(self, samples: np.ndarray, arrived: float) -> Iterator[dict[str, Any]]:
        rate, left = self._runner.sample_rate, self._cutter.completed_by(len(samples))
        self._samples += len(samples)
        self._sound.push(samples)
        for position, clip in self._cutter.push(samples):
            began, left, end = time.monotonic(), left - 1, position + len(clip)
            self._end = end
            if began - arrived > self._patience and (left or self._more_waits()) and self._may_skip():
                self.skipped += 1
                continue
            row: dict[str, Any] = {"start_s": round(position / rate, 6), "end_s": round(end / rate, 6)}
            try:
                row.update(self._classified(clip, position))
                self.classified += 1
            except BadSamples as failure:
                row["error"] = str(failure)
                self.refused += 1
            ended = time.monotonic()
            row["latency_ms"] = round(1e3 * (ended - began), 3)
            yield {**row, "late_s": round(ended - arrived, 3), "skipped": self.skipped}

    def _classified(self, clip: np.ndarray, position: int) -> dict[str, Any]:
        self._sound.require(position, clip)
        silent, first, stop = self._stretches.window(position, len(clip))
        if self._runner.trim_silence and (first, stop) != (0, len(clip)):
            clip = fit(clip[first:stop], len(clip), self._runner.padding)
            self._recent.append(self._runner.probabilities(clip[None])[0])
        else:
            self._recent.append(self._scores_of(clip, position))
        mean = np.mean(self._recent, axis=0)
        scores = {self._runner.classes[k]: round(float(mean[k]), 6) for k in np.argsort(-mean, kind="stable")}
        best = next(iter(scores))
        return {"class": best, "score": scores[best], "scores": scores, "silent": silent}

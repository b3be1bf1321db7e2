"""The scores of the windows of a recording that comes in pieces, and the events in them."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from edgekd.device.runner.detection import Detection, EventFinder, Rule, opening_nothing
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import Resampler
from edgekd.device.runner.scorer import Row, Scorer
from edgekd.device.runner.stream import Cutter


class WindowScores:
    """Scores windows every `hop_samples` of a signal at `rate` Hz, and at its end one that is flush with it.

    `classifier` is a `Runner`, or what has its `sample_rate`, `resampler` and what a `Scorer` asks of it. A signal
    shorter than a clip is one window, filled up as in training.
    """

    def __init__(self, classifier: Any, rate: int, hop_samples: int) -> None:
        self._stretches = Stretches(rate, classifier.sample_rate)
        self._scorer = Scorer(classifier, self._stretches, silent_too=False)
        self._cutter = Cutter(classifier.clip_samples, hop_samples)
        self._resampler: Resampler | None = None
        if rate != classifier.sample_rate:
            width, rolloff = classifier.resampler["lowpass_filter_width"], classifier.resampler["rolloff"]
            self._resampler = Resampler(rate, classifier.sample_rate, width, rolloff)

    @property
    def flat(self) -> bool:
        """Whether all that has come has one value."""
        return self._stretches.flat

    def push(self, samples: np.ndarray, audible: np.ndarray | None = None) -> Iterator[Row]:
        """The windows that the next `samples (S,)` complete; `audible` are the same with digital silence as 0, where a
        lossy format has made noise of it."""
        self._stretches.push(samples if audible is None else audible)
        return self._rows(samples if self._resampler is None else self._resampler.push(samples))

    def finish(self) -> Iterator[Row]:
        """The windows that the end of the signal completes."""
        if self._resampler is not None:
            yield from self._rows(self._resampler.finish())
        last = self._cutter.last()
        if last is not None:
            self._scorer.add(*last)
            yield from self._scorer.take()

    def _rows(self, samples: np.ndarray) -> Iterator[Row]:
        self._scorer.heard(samples)
        for position, clip in self._cutter.push(samples):
            self._scorer.add(position, clip)
            if self._scorer.is_full:
                yield from self._scorer.take()
        yield from self._scorer.take()


class Listener:
    """Finds the events of a recording at `rate` Hz that comes in pieces: `push` them, then `finish`.

    `heard` are the samples so far, `windows` those scored or not, `silent` and `unscored` how many of them have no
    scores; `error` and `error_at` (s) tell of the first of the latter.
    """

    def __init__(self, classifier: Any, rule: Rule, rate: int) -> None:
        self.rule, self.rate, self._classifier = rule, rate, classifier
        self._scores = WindowScores(classifier, rate, rule.hop)
        self._finder = EventFinder(rule)
        self.heard = self.windows = self.silent = self.unscored = 0
        self.error: str | None = None
        self.error_at = 0.0

    @property
    def seconds(self) -> float:
        """How long the recording is so far."""
        return self.heard / self.rate

    @property
    def flat(self) -> bool:
        """Whether all of it has one value."""
        return self._scores.flat

    def push(self, samples: np.ndarray, audible: np.ndarray | None = None) -> Iterator[Detection]:
        """The events that are certain with the next `samples (S,)`; `audible` as `WindowScores.push` has it."""
        self.heard += len(samples)
        return self._events(self._scores.push(samples, audible))

    def finish(self) -> Iterator[Detection]:
        """The rest of the events."""
        yield from self._events(self._scores.finish())
        yield from self._finder.finish()

    def _events(self, rows: Iterator[Row]) -> Iterator[Detection]:
        for row in rows:
            self.windows += 1
            self.silent += row.silent
            if row.error is not None:
                if not self.unscored:
                    self.error, self.error_at = row.error, row.start / self.rule.rate
                self.unscored += 1
            scores = row.scores
            if scores is not None:
                unknown = self._classifier.told(scores).get("unknown", False)
                scores = scores[: len(self.rule.classes)]
                scores = opening_nothing(scores, self.rule) if unknown else scores
            yield from self._finder.push(row.start, row.stop, scores)

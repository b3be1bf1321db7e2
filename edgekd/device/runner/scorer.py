"""The windows of a signal on their way to a classifier, a few at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgekd.device.runner.classifier import BATCH, NOT_FINITE, fit, require_sound
from edgekd.device.runner.errors import BadSamples
from edgekd.device.runner.level import HIGHEST_PEAK, Stretches, largest


class Row(NamedTuple):
    """The window from sample `start` to `stop`, at the classifier's rate, with its class scores `(K,)`, and how
    familiar it is after them where the classifier rejects the unknown.

    None, with `error`, for samples that cannot be classified. `silent`: all have one value, and then None where such
    windows are not scored."""

    start: int
    stop: int
    scores: np.ndarray | None
    silent: bool = False
    error: str | None = None


class Scorer:
    """Scores windows of one signal: `heard` what comes, `add` each window, `take` the rows of those that were added.

    `classifier` is a `Runner`, or what has its `clip_samples`, `padding`, `trim_silence`, `answers` and `step_graphs`;
    `stretches` knows the signal. Where the classifier has graphs for windows that overlap, those are used for all that
    are seen as they are; what is filled up goes through the whole graph.
    """

    def __init__(self, classifier: Any, stretches: Stretches, silent_too: bool) -> None:
        self._classifier, self._stretches, self._silent_too = classifier, stretches, silent_too
        graphs = classifier.step_graphs()
        self._steps = None if graphs is None else graphs.of_signal()
        self._rows: list[Row] = []
        self._asked: list[int] = []  # the rows whose scores the steps have
        self._position = self._suspect = 0  # samples so far, and up to where they may be unsound

    @property
    def is_full(self) -> bool:
        """Whether the rows should be taken."""
        return len(self._rows) >= (1 if self._steps is None else BATCH)

    def heard(self, samples: np.ndarray) -> None:
        """The next `samples (S,)` at the classifier's rate; each is looked at once."""
        if not largest(samples) <= HIGHEST_PEAK:  # of NaN it is NaN
            odd = np.flatnonzero(~(np.abs(samples) <= HIGHEST_PEAK))
            self._suspect = self._position + int(odd[-1]) + 1
        self._position += len(samples)

    def add(self, start: int, clip: np.ndarray) -> None:
        """The next window, which begins at sample `start`: `clip (samples,)`, shorter than others where it is the whole
        signal."""
        stop = start + len(clip)
        silent, scores = False, None
        try:
            if start < self._suspect:
                require_sound(clip)
            silent, first, last = self._stretches.window(start, len(clip))
            whole = last - first == self._classifier.clip_samples or not self._classifier.trim_silence
            if silent and not self._silent_too:
                pass
            elif self._steps is not None and whole and len(clip) == self._classifier.clip_samples:
                self._steps.ask(start, clip)
                self._asked.append(len(self._rows))
            else:
                clip = clip[first:last] if self._classifier.trim_silence else clip
                filled = fit(clip, self._classifier.clip_samples, self._classifier.padding)
                scores = self._classifier.answers(filled[None])[0]
            self._rows.append(Row(start, stop, scores, silent))
        except BadSamples as failure:
            self._rows.append(Row(start, stop, None, error=str(failure)))

    def take(self) -> list[Row]:
        """The rows of all windows that were added since, in their order."""
        rows = self._rows
        if self._steps is not None and self._asked:
            for number, scores in zip(self._asked, self._steps.take()):
                found: dict[str, Any] = {"scores": scores} if np.isfinite(scores).all() else {"error": NOT_FINITE}
                rows[number] = rows[number]._replace(**found)
        self._rows, self._asked = [], []
        return rows

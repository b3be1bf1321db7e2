"""From the scores of windows to events: what was heard, from when to when, how surely.

Windows overlap, so each moment is given to one: to that whose middle is nearest, of those that cover it. A window of
a regular row has the middle hop of itself for its *cell*; the first reaches back to its own beginning, the last
forward to its end. What a cell scores is what its window scored, so a threshold that was chosen on clips means the
same here. A window that sees half of what goes on for longer than itself has its middle where that begins or ends.

A class has an event where cells in a row score `close` or more, and one of them `open` or more: hysteresis, alike in
both directions of time. Events of a class no further apart than `gap` are one; one shorter than `minimum` is left
out. An event's score is the highest of its cells. A window that the classifier does not know opens none.
"""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from edgekd.device.runner.bundle import shared_hop
from edgekd.device.runner.errors import WrongUsage
from edgekd.device.runner.manifest import shown

DEFAULT_OPEN = 0.5  # where nobody has chosen a threshold: more than all other classes of a softmax together
CLOSE_SHARE = 0.8  # of `open`, where nobody has chosen `close`
BACKGROUND = "background"  # in any case: the class that is never an event, in bundles that do not say


class Rule(NamedTuple):
    """What makes an event. `open` and `close` `(K,)` are thresholds of the classes, infinite for the background; the
    others are in samples at `rate` Hz. `exclusive`: of several classes the one furthest over its threshold is meant."""

    classes: tuple[str, ...]
    rate: int
    hop: int
    open: np.ndarray
    close: np.ndarray
    minimum: int
    gap: int
    exclusive: bool

    def settings(self) -> dict[str, Any]:
        """What decides the events, as JSON can hold it."""
        heard = {name: k for k, name in enumerate(self.classes) if np.isfinite(self.open[k])}
        return {
            "hop_samples": self.hop,
            "open": {name: round(float(self.open[k]), 9) for name, k in heard.items()},
            "close": {name: round(float(self.close[k]), 9) for name, k in heard.items()},
            "minimum_samples": self.minimum,
            "gap_samples": self.gap,
            "exclusive": self.exclusive,
        }


class Detection(NamedTuple):
    """An event of the class with this number, from sample `start` up to, and without, `stop`."""

    label: int
    start: int
    stop: int
    score: float


def event_line(event: Detection, rule: Rule, seconds: float, recording: str | None = None) -> dict[str, Any]:
    """An event as a line of JSON or CSV has it, in seconds to the microsecond; `seconds` is how long the signal is, of
    which resampling may have made a fraction of a sample more."""
    named: dict[str, Any] = {} if recording is None else {"audio_file": recording}
    return {
        **named,
        "annotation": rule.classes[event.label],
        "start_time": round(event.start / rule.rate, 6),
        "end_time": round(min(event.stop / rule.rate, seconds), 6),
        "score": round(event.score, 6),
    }


def rule_of(
    manifest: dict[str, Any],
    *,
    hop_s: float | None = None,
    thresholds: Sequence[tuple[str | None, float]] = (),
    minimum_s: float | None = None,
    gap_s: float | None = None,
    exclusive: bool | None = None,
) -> Rule:
    """The rule of a bundle's manifest, where it has a `detection`, with what is asked for instead (None: as there).

    `thresholds` are of a class, or for None of all; its share of `close` is kept. Raises `WrongUsage` for classes that
    are not there, and for windows that would leave out what is between them.
    """
    classifier, found = manifest["classifier"], manifest.get("detection") or {}
    classes, rate = tuple(classifier["classes"]), classifier["sample_rate"]
    nothing = next((name for name in classes if name.casefold() == BACKGROUND), None)  # as older bundles have it
    background = found.get("background") if found else nothing
    known = {**_of_all(DEFAULT_OPEN, classes), **(found.get("open") or {})}
    asked: dict[str, float] = {}
    heard = [name for name in classes if name != background]
    for name, score in thresholds:
        if not 0 <= score <= 1:
            raise WrongUsage(f"--threshold {shown(score)}: scores are from 0 to 1")
        if name is not None and name not in heard:
            why = "is the background, which is no event" if name == background else "is not there"
            raise WrongUsage(f"--threshold {shown(name)}: this class {why}; there are {', '.join(heard)}")
        asked.update(_of_all(score, classes) if name is None else {})
    asked.update({name: score for name, score in thresholds if name is not None})
    opens, closes = np.full(len(classes), np.inf), np.full(len(classes), np.inf)
    for k, name in enumerate(classes):
        if name != background:
            share = (found.get("close") or {}).get(name, CLOSE_SHARE * known[name]) / max(known[name], 1e-9)
            opens[k] = asked.get(name, known[name])
            closes[k] = min(1.0, share) * opens[k]
    hop = found.get("hop_samples") or classifier["hop_samples"]
    if hop_s is not None:
        hop = max(1, round(hop_s * rate))
    if hop > classifier["clip_samples"]:
        raise WrongUsage(
            f"--hop {hop / rate:g}: windows are {classifier['clip_samples'] / rate:g} s, so what is between them would"
            " not be heard; give that at most"
        )
    hop = shared_hop(manifest, hop)
    return Rule(
        classes,
        rate,
        hop,
        opens,
        closes,
        round((found.get("minimum_s", 0) if minimum_s is None else minimum_s) * rate),
        round((found.get("gap_s", 0) if gap_s is None else gap_s) * rate),
        bool(found.get("exclusive", False) if exclusive is None else exclusive),
    )


def opening_nothing(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """The scores `(K,)` of an unknown window: it opens no event, though one that others open may reach over it."""
    return np.minimum(scores, np.nextafter(rule.open, -1))


def _of_all(score: float, classes: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(classes, score)


class EventFinder:
    """Turns the windows of one signal, in order, into its events, each as soon as nothing can change it any more.

    Positions are counted in whole samples, so they are exact for ever. Of the past no more is kept than an event a
    class.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._window: tuple[int, int, np.ndarray | None] | None = None  # the last one, whose cell ends with the next
        self._cell_begins = 0
        self._run: dict[int, Detection] = {}  # by class, cells in a row that score `close` or more
        self._waiting: dict[int, Detection] = {}  # events that another one may still join

    def push(self, start: int, stop: int, scores: np.ndarray | None) -> Iterator[Detection]:
        """The next window, samples `start` to `stop`, with its class scores `(K,)`; None: it has none, and no event.

        What a device that is too slow has left out is given to the windows beside it, as far as they reach."""
        if self._window is not None:
            first, last, _ = self._window
            middle = (first + last + start + stop) // 4
            yield from self._close_cell(min(middle, last) if start <= last else last)
            self._cell_begins = middle if start <= last else start
        else:
            self._cell_begins = start
        self._window = start, stop, scores

    def finish(self) -> Iterator[Detection]:
        """The events that the end of the signal ends."""
        if self._window is not None:
            yield from self._close_cell(self._window[1])
            self._window = None
        for run in list(self._run.values()):
            yield from self._joined(run)
        yield from self._told(list(self._waiting))
        self._run.clear()

    def _close_cell(self, end: int) -> Iterator[Detection]:
        assert self._window is not None
        begin, scores, rule = self._cell_begins, self._window[2], self._rule
        above: list[int] = []
        if scores is not None:
            above = np.flatnonzero(scores >= rule.close).tolist()
            if rule.exclusive and len(above) > 1:
                above = [max(above, key=lambda k: scores[k] / max(rule.open[k], 1e-9))]
        for k in [k for k in self._run if k not in above or self._run[k].stop < begin]:
            yield from self._joined(self._run.pop(k))
        for k in above:
            assert scores is not None
            run = self._run.get(k, Detection(k, begin, end, 0.0))
            run = self._run[k] = Detection(k, run.start, end, max(run.score, float(scores[k])))
            if run.score >= rule.open[k] and rule.exclusive:
                yield from self._told([other for other in self._waiting if other != k])
        # A run that begins with the next cell is the nearest that may still join them, if none has begun by now.
        begins = {k: self._run[k].start if k in self._run else end for k in self._waiting}
        yield from self._told([k for k, event in self._waiting.items() if begins[k] - event.stop > rule.gap])

    def _joined(self, run: Detection) -> Iterator[Detection]:
        """A run has ended: it is an event, or the rest of one, if it has been over `open`."""
        if run.score < self._rule.open[run.label]:
            return
        before = self._waiting.get(run.label)
        if before is not None and run.start - before.stop <= self._rule.gap:
            run = Detection(run.label, before.start, run.stop, max(before.score, run.score))
        elif before is not None:
            yield from self._told([run.label])
        self._waiting[run.label] = run

    def _told(self, labels: Sequence[int]) -> Iterator[Detection]:
        for label in labels:
            event = self._waiting.pop(label)
            if event.stop - event.start >= self._rule.minimum:
                yield event

"""From the scores of windows to events: what was heard, from when to when, how surely.

Windows overlap, so each moment is scored by all that cover it: from where one begins or ends to where the next one
does is a *cell*, and what a class scores there is the mean over the windows that cover it. Neighbours are not always
of one mind, and their mean is steadier than any of them. A window without scores counts as one that hears nothing.

A class has an event where cells in a row score `close` or more, and one of them `open` or more: hysteresis, alike in
both directions of time. Events of a class no further apart than `gap` are one; one shorter than `minimum` is left
out. An event's score is the highest of its cells. A window that the classifier does not know opens none.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from edgekd.device.runner.errors import WrongUsage
from edgekd.device.runner.manifest import shown

DEFAULT_OPEN = 0.5  # where nobody has chosen a threshold: more than all other classes of a softmax together
CLOSE_SHARE = 0.8  # of `open`, where nobody has chosen `close`
HOP_SLACK = 0.05  # how far a hop that is asked for may be moved, as a share of it
HOPS_A_CLIP = 4  # where nobody has chosen a hop
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
    hop = hop_of(manifest, hop_s)
    if hop > classifier["clip_samples"]:
        raise WrongUsage(
            f"--hop {hop / rate:g}: windows are {classifier['clip_samples'] / rate:g} s, so what is between them would"
            " not be heard; give that at most"
        )
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


def hop_of(manifest: dict[str, Any], hop_s: float | None) -> int:
    """Samples from one window to the next: the bundle's, or `hop_s` as `moved_hop` has it."""
    classifier, found = manifest["classifier"], manifest.get("detection") or {}
    if hop_s is None:
        return int(found.get("hop_samples") or default_hop(classifier["clip_samples"]))
    asked = max(1, round(hop_s * classifier["sample_rate"]))
    return moved_hop(asked, classifier["clip_samples"], found.get("shared_samples") or ())


def moved_hop(hop_samples: int, clip_samples: int, shared_samples: Sequence[int]) -> int:
    """The hop at which windows share most of their work, of those that are `HOP_SLACK` of `hop_samples` away at most:
    a multiple of one of `shared_samples`, of the largest that has such a one; that itself where none has."""
    for period in sorted(shared_samples, reverse=True):
        hop = max(1, round(hop_samples / period)) * period
        if abs(hop - hop_samples) <= HOP_SLACK * hop_samples and hop <= clip_samples:
            return hop
    return hop_samples


def hop_note(asked_s: float | None, hop_s: float) -> str:
    """In words, that windows come every `hop_s` and not as they were asked for; empty where they do."""
    if asked_s is None or abs(hop_s - asked_s) <= 1e-3 * asked_s:
        return ""
    return f"--hop {asked_s:g}: windows come every {hop_s:g} s, where this model's windows share more of their work"


def default_hop(clip_samples: int) -> int:
    """Samples from one window to the next where nobody has chosen them: a quarter of a clip."""
    return max(1, clip_samples // HOPS_A_CLIP)


def opening_nothing(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """The scores `(K,)` of an unknown window: it opens no event, though one that others open may reach over it."""
    return np.minimum(scores, np.nextafter(rule.open, -1))


def _of_all(score: float, classes: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(classes, score)


class EventFinder:
    """Turns the windows of one signal, in order, into its events, each as soon as nothing can change it any more: when
    a window begins behind it.

    Positions are counted in whole samples, so they are exact for ever. Of the past no more is kept than the windows
    that reach into what is to come, and an event a class.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._windows: deque[tuple[int, int, np.ndarray | None]] = deque()  # that reach beyond `_position`
        self._position = 0  # up to which all cells have been looked at
        self._run: dict[int, Detection] = {}  # by class, cells in a row that score `close` or more
        self._waiting: dict[int, Detection] = {}  # events that another one may still join

    def push(self, start: int, stop: int, scores: np.ndarray | None) -> Iterator[Detection]:
        """The next window, samples `start` to `stop`, with its class scores `(K,)`; None: it has none."""
        yield from self._up_to(start)
        self._windows.append((start, stop, scores))

    def finish(self) -> Iterator[Detection]:
        """The events that the end of the signal ends."""
        yield from self._up_to(self._windows[-1][1] if self._windows else self._position)
        for run in list(self._run.values()):
            yield from self._joined(run)
        yield from self._told(list(self._waiting))
        self._run.clear()

    def _up_to(self, position: int) -> Iterator[Detection]:
        """The cells before `position`, where the next window begins or there is none."""
        while self._windows and self._position < position:
            begin = self._position
            end = min(position, self._windows[0][1])
            scored = [scores for _, _, scores in self._windows if scores is not None]
            yield from self._cell(begin, end, np.sum(scored, axis=0) / len(self._windows) if scored else None)
            self._position = end
            while self._windows and self._windows[0][1] <= end:
                self._windows.popleft()
        self._position = max(self._position, position)

    def _cell(self, begin: int, end: int, scores: np.ndarray | None) -> Iterator[Detection]:
        rule = self._rule
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

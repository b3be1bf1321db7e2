"""The parts of the script: each in its share of the time, none able to lose what the others found.

What a part finds it puts into `Task.result` as it goes, so that a part which fails, or whose time is up, leaves what it
had. Within a part single checks are guarded in the same way.
"""

from __future__ import annotations

import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu.attempts import AT_WORK, LOST

LEAST_SECONDS = 6.0  # that a part is given, where there are so many


class OutOfTime(BaseException):
    """A part's time is up. No `Exception`: what it interrupts must not take it for a failure of its own."""


class DeviceLost(BaseException):
    """The device answers nothing any more in this process. Another one goes on with the rest (`attempts`)."""


class NotHere(Exception):
    """Something that this machine cannot do, and why."""


@dataclass
class Task:
    """What a part is given.

    `small`: shapes for a CPU. `scratch` is a folder that does not come back, `out` one that does. `result` takes what
    is found, JSON values alone.
    """

    device: str
    small: bool
    scratch: Path
    out: Path
    seconds: float
    log: Callable[[str], None]
    data: Path | None = None
    weights: Path | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    """What parts tell later ones: measured ceilings, a finished run."""
    result: dict[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(init=False)
    """Checks that `result` came with: an earlier process did them."""
    save: Callable[[], None] = lambda: None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kept = dict(self.result.get("checks", {}))

    def left(self) -> float:
        """Seconds that remain of the part's time."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    def check(self, name: str, work: Callable[[], Mapping[str, Any]], *, needed: bool = False) -> bool:
        """Put what `work` finds under `name` into `result["checks"]`; whether it came to an end.

        What it raises is written down instead, and the part goes on. A check that is `kept` is not done again, unless
        it came to an end and later ones build on what it makes (`needed`).
        """
        checks, began = self.result.setdefault("checks", {}), time.monotonic()
        if name in self.kept and not (needed and self.kept[name]["state"] == "done"):
            checks[name] = self.kept[name]
            return bool(checks[name]["state"] == "done")
        try:
            checks[name] = {"state": AT_WORK}
            self.save()
            checks[name] = _outcome(work)
        except OutOfTime:
            checks[name] = {"state": "cut short", "why": "the part's time was up"}
            raise
        checks[name]["seconds"] = round(time.monotonic() - began, 2)
        self.log(f"{name}: {checks[name]['state']} ({checks[name]['seconds']:.1f} s){_because(checks[name])}")
        self.save()
        release()
        return bool(checks[name]["state"] == "done")


@dataclass(frozen=True)
class Part:
    """`run` measures, `show` says it in few lines; `share` is the part's of the time, beside the others'."""

    name: str
    share: float
    run: Callable[[Task], None]
    show: Callable[[Mapping[str, Any]], Iterator[str]]


def run_parts(
    parts: Sequence[Part],
    deadline: float,
    make: Callable[[str, float], Task],
    found: dict[str, Any],
    save: Callable[[], None],
    log: Callable[[str], None],
) -> None:
    """Run `parts` one after the other until `deadline`, a time of the monotonic clock; what each found is in
    `found[part]`, and saved when it begins, after each of its checks and when it ends.

    A part may take its share of what is left, so that what one does not need the later ones have.
    """
    for number, part in enumerate(parts):
        later = sum(other.share for other in parts[number:])
        left = deadline - time.monotonic()
        seconds = min(left, max(left * part.share / later, LEAST_SECONDS))
        if seconds < LEAST_SECONDS / 2:
            found.setdefault(part.name, {"state": "left out", "why": "no time was left"})
            if found[part.name]["state"] == AT_WORK:
                found[part.name]["state"] = LOST
            log(f"{part.name}: left out, no time was left")
            save()
            continue
        log(f"{part.name}: begins, {seconds:.0f} s at most")
        began, task = time.monotonic(), make(part.name, seconds)
        found[part.name] = {"state": AT_WORK, "until": time.time() + seconds, "result": task.result}
        save()
        outcome = _outcome(lambda part=part, task=task: part.run(task), seconds)  # type: ignore[misc]
        found[part.name] = {**outcome, "seconds": round(time.monotonic() - began, 1), "result": task.result}
        log(f"{part.name}: {outcome['state']} after {time.monotonic() - began:.0f} s{_because(outcome)}")
        save()
        release()


def _because(outcome: Mapping[str, Any]) -> str:
    return f": {outcome['why']}" if outcome.get("why") else ""


def _outcome(work: Callable[[], Mapping[str, Any] | None], seconds: float | None = None) -> dict[str, Any]:
    """What `work` finds and the `state` it ends in: `done`, `failed`, `not here`, and with `seconds` `cut short`."""
    try:
        if seconds is None:
            return {"state": "done", **(work() or {})}
        with stopped_after(seconds):
            return {"state": "done", **(work() or {})}
    except NotHere as failure:
        return {"state": "not here", "why": str(failure)}
    except OutOfTime:
        if seconds is None:
            raise
        return {"state": "cut short", "why": f"its {seconds:.0f} s were up"}
    except Exception as failure:
        why = f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
        return {"state": "failed", "why": why[:300], "traceback": traceback.format_exc()[-6000:]}


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """`OutOfTime` is raised in the main thread when `seconds` are over, as soon as Python has its turn."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    # And again, should something have swallowed it.
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01), 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - began), 0.01))


def release() -> None:
    """Give back what nobody holds any more. Raises `DeviceLost` where the device does not take it."""
    gc.collect()
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as failure:
            raise DeviceLost(str(failure).strip().partition("\n")[0]) from failure


def told(value: float, digits: int = 3) -> str:
    """A number in a table."""
    return f"{value:.{digits}g}"

"""What makes an event of what a run's student says: the thresholds that were chosen for it, defaults for the rest."""

from __future__ import annotations

from edgekd.data.background import background_of
from edgekd.device.runner.detection import CLOSE_SHARE, DEFAULT_OPEN
from edgekd.exporting.manifest import Detection
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import Thresholds, read_thresholds


def detection_of(run: Run, stage: Stage, hop_samples: int) -> Detection:
    """For the student of a stage, in windows every `hop_samples`; each class is written down, so that whoever reads a
    bundle sees it. Raises `InputError` as `read_thresholds` does."""
    found = read_thresholds(run, stage)
    background = background_of(run.classes, run.config.data.background)
    events = [name for name in run.classes if name != background]
    opens = dict.fromkeys(events, DEFAULT_OPEN)
    closes = dict.fromkeys(events, round(CLOSE_SHARE * DEFAULT_OPEN, 6))
    for name, each in found.classes.items() if found is not None else ():
        if each.open is not None and each.close is not None:
            opens[name], closes[name] = each.open, each.close
    return Detection(
        hop_samples=hop_samples,
        open=opens,
        close=closes,
        background=background,
        chosen=None if found is None else _words(found),
    )


def _words(found: Thresholds) -> str:
    return f"{found.aim.words}, on the validation side: {found.clips} clips, {found.hours:.3g} h"

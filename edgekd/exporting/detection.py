"""What makes an event of what a run's student says: the thresholds that were chosen for it, defaults for the rest."""

from __future__ import annotations

from edgekd.exporting.manifest import Detection
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import Thresholds, read_thresholds


def detection_of(run: Run, stage: Stage, hop_samples: int) -> Detection:
    """For the student of a stage, in windows every `hop_samples`. Raises `InputError` as `read_thresholds` does."""
    defaults = Detection.of_nobody(run.classes, hop_samples, run.config.data.background)
    found = read_thresholds(run, stage)
    if found is None:
        return defaults
    events = {name: each for name, each in found.classes.items() if name != defaults.background}
    opens = {name: each.open for name, each in events.items() if each.open is not None}
    closes = {name: each.close for name, each in events.items() if each.close is not None}
    return defaults.model_copy(
        update={
            "open": {**defaults.open, **opens},
            "close": {**defaults.close, **closes},
            "chosen": _words(found),
        }
    )


def _words(found: Thresholds) -> str:
    return f"{found.aim.words}, on the validation side: {found.clips} clips, {found.hours:.3g} h"

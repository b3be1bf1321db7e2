"""Whether the run that a bundle was made of would ship something else by now."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgekd.device.runner.detection import CLOSE_SHARE, DEFAULT_OPEN
from edgekd.errors import InputError, UsageError
from edgekd.exporting.kept_rejection import kept_rejection
from edgekd.exporting.manifest import Bundle, Manifest
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import read_thresholds


def run_of(bundle: Bundle) -> Run:
    """The run that `bundle` was exported from, where its manifest says that it lies. Raises `InputError` or
    `UsageError` where there is none now, or another."""
    classifier = bundle.manifest.classifier
    run = Run.open(Path(bundle.manifest.provenance.run))
    data = run.config.data
    heard = (run.classes, run.task.activation, data.sample_rate, round(data.sample_rate * data.clip_seconds))
    if heard != (classifier.classes, classifier.activation, classifier.sample_rate, classifier.clip_samples):
        raise InputError(f"{run.folder}: now another run than the one the bundle came from.")
    return run


def since_export(bundle: Bundle) -> str | None:
    """In words what was chosen anew in the run of `bundle` after it was exported; None where nothing was, and where
    the run cannot be found."""
    manifest = bundle.manifest
    with suppress(InputError, UsageError, OSError):
        run = run_of(bundle)
        stage: Stage = "int8" if manifest.precision == "int8" else "student"
        if run.config.seed != manifest.provenance.seed or not run.finished(stage):
            return None
        changed = [*_scores(run, stage, manifest), *_rejection(run, manifest)]
        if changed:
            return (
                f"{bundle.folder} was exported before {run.folder} was given {' and '.join(changed)}, so the two answer"
                " differently. Next: export the run again."
            )
    return None


def _scores(run: Run, stage: Stage, manifest: Manifest) -> list[str]:
    found, detection = read_thresholds(run, stage), manifest.detection
    if found is None:
        return []
    changed = []
    if found.temperature.value != manifest.classifier.temperature:
        changed.append("another temperature")
    for name, each in found.classes.items():
        opens = detection.open.get(name, DEFAULT_OPEN)
        closes = detection.close.get(name, CLOSE_SHARE * opens)
        pairs = ((each.open, opens), (each.close, closes))
        if any(now is not None and abs(now - then) > 1e-9 for now, then in pairs):
            return [*changed, "other thresholds"]
    return changed


def _rejection(run: Run, manifest: Manifest) -> list[str]:
    now, then = kept_rejection(run), manifest.detection.reject
    if (None if now is None else (now.score, now.share)) == (None if then is None else (then.score, then.share)):
        return []
    return ["another way to tell the unknown (--reject)"]

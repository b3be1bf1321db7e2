"""A teacher that one run has adapted and others take over, as the cells of a comparison do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig
from edgekd.data.splits import read_splits
from edgekd.errors import InputError, UsageError
from edgekd.losses.terms import needs_of
from edgekd.models.build import teacher_front_end
from edgekd.runs.data import RunData
from edgekd.runs.predictions import read_predictions
from edgekd.runs.run import Run
from edgekd.training.outcome import Probabilities


def teacher_settings(config: DistillConfig) -> dict[str, Any]:
    """All of `config` that decides the adapted teacher and what it is asked: where it is equal, one run's teacher can
    be lent to another."""
    several = len(config.teacher.members()) > 1
    kept = {"teacher": {"cache"} if several else {"cache", "weights_of"}, "data": {"unlabelled"}}
    # A teacher that need not answer may have no head (`new_teacher`), so it cannot be lent to who asks it.
    silent_ones = config.teacher.adaptation == "none" and "logits" not in needs_of(config.loss.terms)
    asked = {"time_shift", "shifts_per_clip", "mixes_per_clip", "mix_share", "gain_db"}
    if not config.data.leave_out:
        kept["data"].add("leave_out")  # as it was before there was such a setting
    plain = config.teacher.adaptation != "full"  # a head is trained on the embeddings of clips as they are
    return {
        **config.model_dump(mode="json", include={"data", "teacher", "seed"}, exclude=kept),
        "frontend": teacher_front_end(config),
        "augment": config.augment.model_dump(mode="json", include=asked if plain else None),
        **({"loss": {"terms": ["classification", "structural"]}} if silent_ones else {}),
        "training": {} if plain else config.training.model_dump(mode="json", include={"patience", "decay_power"}),
        **_balance(config),
    }


def _balance(config: DistillConfig) -> dict[str, Any]:
    """How classes are balanced, where they are: the teacher's too."""
    names = {"class_weights", "sampling"}
    if config.teacher.adaptation == "none":
        return {}
    changed = config.training.model_dump(mode="json", include=names, exclude_defaults=True)
    return {"balance": changed} if changed else {}


def borrow_teacher(run: Run, data: RunData, lender: Run) -> Probabilities | None:
    """Take over the teacher of `lender`, its curves and its answers; return what it says of the test side, None where
    it does not know the classes.

    Raises `UsageError` where it was adapted with other settings, `InputError` where it is
    not finished or has another split.
    """
    own, theirs = teacher_settings(run.config), teacher_settings(lender.config)
    different = [name for name, value in own.items() if theirs.get(name) != value]
    if different:
        raise UsageError(
            f"{lender.folder}: its teacher was adapted with other settings ({', '.join(different)}) than {run.folder} "
            "asks for. Take the same, or let the run adapt its own."
        )
    summary = lender.report().get("training", {}).get("teacher")
    weights = lender.weights("teacher")
    if summary is None or not weights.is_file():
        raise InputError(f"{lender.folder}: its teacher is not finished, so it cannot be lent.")
    says = summary.get("scored", True)
    lent = read_predictions(lender.folder, "teacher", run.classes, run.task) if says else None
    if (lent is not None and lent.rows != data.split.test) or read_splits(
        lender.folder / "splits.csv", data.index
    ) != data.split:
        raise InputError(f"{lender.folder}: its split is not that of {run.folder}: its teacher would know test clips.")
    folder = run.stage_folder("teacher")
    _link(weights, folder / weights.name)
    run.metrics().take_over("teacher", lender.metrics())
    run.update_report("training", {"teacher": {**summary, "from": str(lender.folder)}})  # last: now it is finished
    return None if lent is None else lent.probabilities


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no such links; files are replaced, not changed."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

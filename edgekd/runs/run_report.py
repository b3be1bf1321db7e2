"""What `report.json` of a run must be like to be read: the types of what later commands ask of it.

Everything else that it holds is kept as it is, so that a report of another version is read as far as it is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from edgekd.data.index import Dropped
from edgekd.json_files import Amount, Count, Share, checked, read_json

REPORT_VERSION = 1

Text = Annotated[str, Field(strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class _Tested(_Part):
    """A subject's scores (`scoring.scores.Scores`)."""

    classes: tuple[Text, ...]
    clips: Count
    groups: Count
    accuracy: Share
    accuracy_interval: tuple[Share, Share]
    macro_f1: Share
    macro_f1_interval: tuple[Share, Share]
    recall: tuple[Share | None, ...]
    confusion: tuple[tuple[Count, ...], ...]
    calibration_error: Share


class _TestedLabels(_Part):
    """Those of clips of several classes (`scoring.label_scores.LabelScores`)."""

    classes: tuple[Text, ...]
    clips: Count
    groups: Count
    mean_average_precision: Share
    mean_average_precision_interval: tuple[Share, Share]
    macro_f1: Share
    macro_f1_interval: tuple[Share, Share]
    average_precision: tuple[Share | None, ...]
    precision: tuple[Share | None, ...]
    recall: tuple[Share | None, ...]
    clips_of: tuple[Count, ...]
    thresholds: tuple[Share, ...]
    calibration_error: Share


class _Trained(_Part):
    """What a stage of training was."""

    seconds: Amount = 0.0
    scored: bool | None = None


class _Unlabelled(_Part):
    """What became of the clips without labels."""

    clips: Count
    used: Count
    dropped: dict[Dropped, Count]


class _Audit(_Part):
    """What was found of the split."""

    clips: dict[str, Count] = {}
    unlabelled: _Unlabelled | None = None


def _kind_of_scores(values: Any) -> str:
    return "labels" if isinstance(values, dict) and "mean_average_precision" in values else "classes"


_AnyTested = Annotated[
    Annotated[_Tested, Tag("classes")] | Annotated[_TestedLabels, Tag("labels")], Discriminator(_kind_of_scores)
]


class _Report(_Part):
    version: Literal[1]
    test: dict[str, _AnyTested] = {}
    training: dict[str, _Trained] = {}
    audit: _Audit = _Audit()
    warnings: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
    only_float: bool = False


def read_report(path: Path) -> dict[str, Any]:
    """The contents of a run's `report.json`. Raises `InputError` for one that is damaged, or of another version."""
    advice = "The run is damaged: restore the file, or make the run anew (--overwrite)."
    values = read_json(path, advice)
    checked(_Report, values, str(path), advice)
    return dict(values)

"""`thresholds.json`, read back or refused."""

from __future__ import annotations

import json

import pytest

from edgekd.errors import InputError
from edgekd.runs.run import Run
from edgekd.runs.thresholds import Aim, read_thresholds, temperature_of, write_thresholds


def test_what_is_written_is_read_back(tiny_copy: Run) -> None:
    kept = read_thresholds(tiny_copy, "int8")
    assert kept is not None
    other = kept.model_copy(update={"aim": Aim(by="max-false-alarms", an_hour=0.5)})
    write_thresholds(tiny_copy, "int8", other)
    assert read_thresholds(tiny_copy, "int8") == other
    assert temperature_of(tiny_copy, "int8") == other.temperature.value


def test_a_run_of_an_older_version_has_none(tiny_copy: Run) -> None:
    (tiny_copy.folder / "int8" / "thresholds.json").unlink()
    assert read_thresholds(tiny_copy, "int8") is None
    assert temperature_of(tiny_copy, "int8") == 1
    assert read_thresholds(tiny_copy, "teacher") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version"),
        ({"temperature": {"value": 0, "note": ""}}, "temperature.value"),
        ({"classes": {}}, "of classes ; the run has"),
        ({"hours": None}, "hours"),
    ],
)
def test_a_damaged_one_is_named(tiny_copy: Run, change: dict[str, object], said: str) -> None:
    file = tiny_copy.folder / "int8" / "thresholds.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=r"int8/thresholds.json: .*Choose anew: edgekd thresholds") as refused:
        read_thresholds(tiny_copy, "int8")
    assert said in str(refused.value)


def test_thresholds_of_other_classes_are_refused(tiny_copy: Run) -> None:
    file = tiny_copy.folder / "int8" / "thresholds.json"
    values = json.loads(file.read_text())
    values["classes"]["whale"] = values["classes"].pop(tiny_copy.classes[0])
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="whale; the run has"):
        read_thresholds(tiny_copy, "int8")

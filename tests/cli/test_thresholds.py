from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.runs.run import Run


def test_thresholds_are_shown_for_both_sides(edgekd: Callable, tiny_copy: Run) -> None:
    shown = edgekd("thresholds", tiny_copy.folder, "--quiet")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("Thresholds of the int8 student for best F1, chosen on the validation side:")
    assert any(line.startswith("validation ") for line in lines)
    assert any(line.startswith("test ") for line in lines)
    for name in tiny_copy.classes:
        assert sum(line.startswith(f"{name} ") for line in lines) == (0 if name == "background" else 2)
    assert max(map(len, lines[:-2])) <= 80


def test_a_target_is_kept_for_both_students_and_best_f1_comes_back(edgekd: Callable, tiny_copy: Run) -> None:
    files = [tiny_copy.folder / stage / "thresholds.json" for stage in ("int8", "student")]
    before = [file.read_bytes() for file in files]
    told = edgekd("thresholds", tiny_copy.folder, "--max-false-alarms", "12/day", "--json", "--quiet").json()
    assert (told["run"], told["ships"], list(told["students"])) == (str(tiny_copy.folder), "int8", ["int8", "student"])
    int8 = told["students"]["int8"]
    assert int8["aim"] == {"by": "max-false-alarms", "an_hour": 0.5}
    assert all(each["validation"]["false_alarms"] == 0 for each in int8["classes"].values())
    assert list(int8["test"]) == list(tiny_copy.classes)
    assert "0.5/h cannot be promised from" in " ".join(int8["notes"])
    assert json.loads(files[0].read_text())["aim"]["an_hour"] == 0.5
    assert edgekd("thresholds", tiny_copy.folder, "--best-f1", "--quiet").code == 0
    assert [file.read_bytes() for file in files] == before


def test_a_run_of_an_older_version_is_asked_about_its_validation_side(edgekd: Callable, tiny_copy: Run) -> None:
    expected = (tiny_copy.folder / "int8" / "thresholds.json").read_bytes()
    for stage in ("int8", "student"):
        (tiny_copy.folder / stage / "thresholds.json").unlink()
        (tiny_copy.folder / stage / "validation.csv").unlink()
    assert edgekd("thresholds", tiny_copy.folder, "--quiet").code == 0
    found = json.loads((tiny_copy.folder / "int8" / "thresholds.json").read_text())
    assert {name: each["open"] for name, each in found["classes"].items()} == pytest.approx(
        {name: each["open"] for name, each in json.loads(expected)["classes"].items()}, abs=1e-4
    )


@pytest.mark.parametrize("rate", ["0/h", "-1/h", "1", "many/h", "nan/h", "1/min", "inf/h", "/h", ""])
def test_rates_that_are_none_are_refused(edgekd: Callable, tiny_run: Run, rate: str) -> None:
    refusal = edgekd("thresholds", tiny_run.folder, f"--max-false-alarms={rate}").refusal(2)
    assert refusal.startswith(f"--max-false-alarms '{rate}': ")


def test_two_targets_are_refused(edgekd: Callable, tiny_run: Run) -> None:
    refusal = edgekd("thresholds", tiny_run.folder, "--best-f1", "--max-false-alarms", "1/h").refusal(2)
    assert "one of the two" in refusal


def test_a_run_that_is_not_finished_is_refused(edgekd: Callable, tiny_copy: Run) -> None:
    tiny_copy.forget("test")
    assert "is at work or was interrupted" in edgekd("thresholds", tiny_copy.folder).refusal(3)


def test_without_a_finished_int8_student_the_float_one_is_what_ships(edgekd: Callable, tiny_copy: Run) -> None:
    tiny_copy.forget("test", "int8")
    told = edgekd("thresholds", tiny_copy.folder, "--json", "--quiet").json()
    assert (told["ships"], list(told["students"])) == ("student", ["student"])


def sides(run: Run, keep: Callable[[dict[str, str]], bool]) -> None:
    """Turn the clips of the validation side that are not to be kept into test clips."""
    path = run.folder / "splits.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["side"] == "validation" and not keep(row):
            row["side"] = "train"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for stage in ("int8", "student"):
        (run.folder / stage / "validation.csv").unlink()


def test_a_run_without_a_validation_side_is_refused(edgekd: Callable, tiny_copy: Run) -> None:
    sides(tiny_copy, lambda _: False)
    refusal = edgekd("thresholds", tiny_copy.folder, "--quiet").refusal(3)
    assert "no clip is on the validation side" in refusal


def test_a_validation_side_of_one_class_is_told(edgekd: Callable, tiny_copy: Run) -> None:
    _, name, *others = tiny_copy.classes  # but for the background
    sides(tiny_copy, lambda row: row["class"] == name)
    told = edgekd("thresholds", tiny_copy.folder, "--json", "--quiet").json()["students"]["int8"]
    assert told["classes"][name]["open"] is not None
    assert all(told["classes"][other]["open"] is None for other in others)
    assert told["notes"] == [f"Note: {', '.join(others)}: no window of this class to choose on."]
    strict = edgekd("thresholds", tiny_copy.folder, "--max-false-alarms", "1/h", "--quiet")
    assert f"{name}: no window of anything else." in strict.out


def test_damaged_answers_are_named(edgekd: Callable, tiny_copy: Run) -> None:
    file = tiny_copy.folder / "int8" / "validation.csv"
    file.write_text(file.read_text().replace("int8,", "int9,"))
    assert "validation.csv: nothing of the int8" in edgekd("thresholds", tiny_copy.folder).refusal(3)


def test_what_is_no_run_is_refused(edgekd: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    assert "not a run folder" in edgekd("thresholds", copied).refusal(3)

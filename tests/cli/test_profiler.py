from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.profiling import profiler
from edgekd.profiling.visit import HostFailure
from edgekd.report.results import read_profile
from edgekd.runs.run import Run

QUICKLY = ("--quick", "--quiet")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    take_turns = profiler.take_turns
    monkeypatch.setattr(profiler, "take_turns", lambda timers, **more: take_turns(timers, **more | {"repetitions": 10}))


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_run_is_profiled_into_its_folder(edgekd: Callable, tiny_copy: Run) -> None:
    before = tiny_copy.report()
    shown = edgekd("profile", tiny_copy.folder, "--quiet", "--batches", "1,2", "--layers")
    assert (shown.code, shown.err) == (0, "")
    folder = tiny_copy.folder / "profile"
    found = read_profile(folder / "report.json")
    assert [subject.name for subject in found.subjects] == ["teacher", "student", "int8"]
    assert all(subject.layers and subject.robustness and subject.energy for subject in found.subjects)
    assert found.command[:2] == ("edgekd", "profile")
    assert tiny_copy.report() == before
    assert str(folder) in shown.out
    lines = [line for line in shown.out.splitlines() if str(tiny_copy.folder) not in line]
    assert max(map(len, lines)) <= 80, "it fits a terminal"
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_quick_one_is_accuracy_and_latency_alone(edgekd: Callable, bundle: Path) -> None:
    found = edgekd("profile", bundle, *QUICKLY, "--json").json()
    (subject,) = found["subjects"]
    assert (subject["throughput"], subject["robustness"], subject["energy"], subject["layers"]) == ([], None, None, [])
    assert subject["scores"]["accuracy"] > 0
    assert json.loads((bundle / "profile" / "report.json").read_text()) == found
    assert edgekd("profile", bundle, *QUICKLY).code == 0, "the report is no change of the bundle"


def test_runs_bundles_and_graphs_go_into_one_report(
    edgekd: Callable, tiny_run: Run, bundle: Path, tmp_path: Path
) -> None:
    shown = edgekd(
        *("profile", tiny_run.folder / "teacher", bundle, bundle / "model.onnx"),
        *(*QUICKLY, "--json", "--out", tmp_path / "out"),
    )
    found = shown.json()
    assert [subject["name"] for subject in found["subjects"]] == ["teacher", "bundle", "model"]
    assert found["baseline"] == "teacher"
    assert len({subject["scores"]["clips"] for subject in found["subjects"]}) == 1
    assert (tmp_path / "out" / "report.md").is_file()


def test_the_gate_refuses_what_is_worse_and_passes_what_is_not(edgekd: Callable, bundle: Path, tmp_path: Path) -> None:
    edgekd("profile", bundle, *QUICKLY, "--out", tmp_path / "before")
    before = tmp_path / "before" / "report.json"
    gate = ("--against", before, "--max-slowdown", "1000")  # times decide no test
    assert edgekd("profile", bundle, *QUICKLY, *gate).code == 0
    values = json.loads(before.read_text())
    values["subjects"][0]["scores"]["accuracy"] += 0.02
    before.write_text(json.dumps(values))
    shown = edgekd("profile", bundle, *QUICKLY, *gate)
    assert shown.code == 4
    assert "accuracy fell by 2.00 points" in shown.err
    assert (bundle / "profile" / "report.json").is_file(), "what was found is kept"
    assert edgekd("profile", bundle, *QUICKLY, *gate, "--max-drop", "2.5").code == 0


def test_a_report_that_cannot_be_read_is_refused_before_anything_is_measured(edgekd: Callable, bundle: Path) -> None:
    assert "No such file" in edgekd("profile", bundle, "--against", bundle / "none.json").refusal(3)
    assert not (bundle / "profile").exists()


def test_a_host_that_fails_is_told_of_and_the_rest_is_kept(
    edgekd: Callable, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = HostFailure("me@gone", "me@gone: does not answer.")
    monkeypatch.setattr(profiler, "profile_hosts", lambda *_, **__: [failure])
    shown = edgekd("profile", bundle, *QUICKLY, "--host", "me@gone")
    assert shown.code == 3
    assert shown.err.strip() == "edgekd: error: me@gone: does not answer."
    assert read_profile(bundle / "profile" / "report.json").failures == ("me@gone: does not answer.",)


def test_all_subjects_are_looked_at_before_any_is_measured(edgekd: Callable, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = edgekd("profile", bundle, tmp_path / "nowhere").refusal(3)
    assert line.startswith(f"{tmp_path / 'nowhere'}: no such folder. Name a run")
    assert edgekd("profile", tmp_path / "file").refusal(3).startswith(f"{tmp_path / 'file'}: a file. Name a run")
    assert edgekd("profile", tmp_path).refusal(3).startswith(f"{tmp_path}: neither a run folder")
    assert not (bundle / "profile").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Nothing to profile"),
        (("{bundle}", "--batches", "1;2"), "--batches '1;2'"),
        (("{bundle}", "--backend", "tensorflow"), "tensorflow"),
        (("{bundle}", "--duty-cycle", "2"), "duty_cycle"),
        (("{bundle}", "--provider", "TPU"), "Unknown execution provider"),
        (("{bundle}", "--host", ""), "--host"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_wrong_options_get_one_line(edgekd: Callable, bundle: Path, arguments: tuple[str, ...], words: str) -> None:
    line = edgekd("profile", *(word.format(bundle=bundle) for word in arguments)).refusal(2)
    assert words in line


def test_the_schema_is_printed(edgekd: Callable) -> None:
    schema = edgekd("profile", "--schema").json()
    assert schema["title"] == "Profile"
    assert schema["properties"]["version"]["const"] == 3

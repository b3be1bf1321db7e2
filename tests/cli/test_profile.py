from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.export.onnx_graph import Form
from edgekd.profiling import report
from edgekd.training import Run

KEYS = {
    *("version", "kind", "folder", "dataset", "clips", "sample_rate"),
    *("clip_seconds", "machine", "notes", "subjects"),
}
SUBJECT_KEYS = {"architecture", "precision", "runtime", "scores", "cost", "latency"}
LATENCY_KEYS = {
    *("mean_ms", "p50_ms", "p95_ms", "p99_ms", "repetitions"),
    *("frontend_ms", "network_ms", "real_time_factor"),
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch, graph_of_tiny_run: Callable[..., bytes]) -> None:
    monkeypatch.setattr(report, "REPETITIONS", 5)
    monkeypatch.setattr(report, "quantized_onnx", lambda *arguments: graph_of_tiny_run(*arguments, Form()))


def check(profile: dict, subjects: set[str]) -> None:
    assert set(profile) == KEYS
    assert set(profile["subjects"]) == subjects
    for subject in profile["subjects"].values():
        assert set(subject) == SUBJECT_KEYS
        assert set(subject["latency"]) == LATENCY_KEYS
        assert set(subject["cost"]) == {"parameters", "macs", "frontend_macs", "file_bytes"}
        assert {"accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval"} <= set(subject["scores"])


def test_a_run_is_profiled_and_keeps_its_scores(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    shown = edgekd("profile", folder, "--quiet")
    assert (shown.code, shown.err) == (0, "")
    written = json.loads((folder / "report.json").read_text())
    check(written["profile"], {"teacher", "student", "int8"})
    assert written["test"] == tiny_run.report()["test"]
    assert shown.out.splitlines()[-1] == f"Written: {folder / 'report.json'}"
    rows = [line for line in shown.out.splitlines() if " %" in line and "intervals" not in line]
    assert len(rows) == 3
    tables = [line for line in shown.out.splitlines() if "─" in line or line.startswith(("teacher", "float", "int8"))]
    assert len(tables) == 8
    assert max(map(len, tables)) <= 80


def test_a_bundle_is_profiled_and_stays_whole(edgekd: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    found = edgekd("profile", folder, "--json").json()
    check(found, {"int8"})
    assert (found["kind"], found["folder"]) == ("bundle", str(folder))
    assert json.loads((folder / "report.json").read_text()) == found
    assert edgekd("profile", folder, "--quiet").code == 0, "the report is no change of the bundle"


def test_several_are_profiled_into_one_object(edgekd: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        shutil.copytree(tiny_bundle, folder)
    found = edgekd("profile", *folders, "--json").json()
    assert [profile["folder"] for profile in found["profiles"]] == list(map(str, folders))


def test_all_folders_are_looked_at_before_any_is_measured(edgekd: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    (tmp_path / "file").touch()
    line = edgekd("profile", folder, tmp_path / "nowhere").refusal(3)
    assert line.startswith(f"{tmp_path / 'nowhere'}: no such folder. Name a run")
    assert edgekd("profile", tmp_path / "file").refusal(3).startswith(f"{tmp_path / 'file'}: a file. Name a run")
    assert not (folder / "report.json").exists()


def test_a_folder_that_is_neither_is_refused(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("profile", tmp_path).refusal(3)
    assert line == f"{tmp_path}: neither a run folder (config.toml) nor a bundle (manifest.json)."

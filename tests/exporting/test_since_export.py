from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekd.config import ProfileConfig
from edgekd.exporting.export import export
from edgekd.exporting.manifest import Bundle, read_bundle
from edgekd.exporting.predict import open_predictor
from edgekd.exporting.since_export import since_export
from edgekd.files.whole import write_json
from edgekd.profiling.subjects import candidates
from edgekd.runs.run import Run
from edgekd.runs.thresholds import read_thresholds, write_thresholds


@pytest.fixture
def run(tiny_copy: Run) -> Run:
    return tiny_copy


@pytest.fixture
def bundle(run: Run, tmp_path: Path) -> Bundle:
    return export(run, "cpu", tmp_path / "bundle")


def test_a_bundle_that_is_behind_its_run_says_so(run: Run, bundle: Bundle) -> None:
    assert since_export(bundle) is None and open_predictor(bundle.folder).notes == ()
    found = read_thresholds(run, "int8")
    assert found is not None
    (name, first), *others = found.classes.items()
    moved = first.model_copy(update={"open": 0.123})
    write_thresholds(run, "int8", found.model_copy(update={"classes": {name: moved, **dict(others)}}))
    words = (
        f"{bundle.folder} was exported before {run.folder} was given other thresholds, so the two answer differently"
    )
    (note,) = open_predictor(bundle.folder).notes
    assert note == f"{words}. Next: export the run again."
    (candidate,) = candidates([bundle], ProfileConfig())
    assert note in candidate.notes
    warmer = found.temperature.model_copy(update={"value": 1.5})
    write_thresholds(run, "int8", found.model_copy(update={"temperature": warmer}))
    write_json(run.folder / "reject.json", {"score": "energy", "share": 0.05})
    assert "another temperature and another way to tell the unknown (--reject)" in (since_export(bundle) or "")


def test_a_bundle_whose_run_is_not_at_hand_says_nothing(run: Run, bundle: Bundle) -> None:
    write_thresholds(run, "student", read_thresholds(run, "int8"))  # type: ignore[arg-type]
    assert since_export(bundle) is None, "that is not what was shipped"
    write_json(run.folder / "reject.json", {"score": "energy", "share": 0.05})
    text = (run.folder / "config.toml").read_text()
    (run.folder / "config.toml").write_text(text.replace("seed = 3", "seed = 4", 1))
    assert since_export(read_bundle(bundle.folder)) is None, "another run"
    (run.folder / "config.toml").write_text(text)
    assert since_export(bundle) is not None
    shutil.rmtree(run.folder)
    assert since_export(bundle) is None

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.demo import Demonstration
from edgekd.exporting.manifest import read_bundle
from edgekd.report.results import Profile
from edgekd.runs.run import Run


def test_an_existing_folder_is_refused_with_what_the_demo_can_do(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("demo", "--out", tmp_path).refusal(2)
    assert line == f"{tmp_path} exists already. Replace it (--overwrite) or name another folder (--out)."


def test_an_unknown_target_is_told_before_minutes_have_passed(edgekd: Callable, tmp_path: Path) -> None:
    assert "Did you mean 'jetson'?" in edgekd("demo", "--out", tmp_path / "demo", "--target", "jetsn").refusal(2)
    assert not (tmp_path / "demo").exists()


def test_what_the_demo_made_is_shown_side_by_side_with_what_to_try_next(
    edgekd: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Run,
    tiny_bundle: Path,
    sample_profile: Profile,
) -> None:
    calls: list[tuple[object, ...]] = []

    def demonstrate(*arguments: object, overwrite: bool) -> Demonstration:
        """One that takes no minutes."""
        calls.append((*arguments[:3], overwrite))
        return Demonstration(tiny_run, read_bundle(tiny_bundle), sample_profile)

    monkeypatch.setattr(sys.modules["edgekd.demo"], "demonstrate", demonstrate)
    shown = edgekd("demo", "--out", tmp_path / "demo", "--device", "cpu", "--quiet")
    assert (shown.code, shown.err) == (0, "")
    assert f"Try: edgekd predict {tiny_bundle} " in shown.out
    assert sample_profile.subjects[2].name in shown.out
    found = edgekd("demo", "--out", tmp_path / "demo", "--overwrite", "--quiet", "--json").json()
    assert (found["run"], found["bundle"]) == (str(tiny_run.folder), str(tiny_bundle))
    assert calls == [(tmp_path / "demo", "cpu", "cpu", False), (tmp_path / "demo", "cpu", "auto", True)]

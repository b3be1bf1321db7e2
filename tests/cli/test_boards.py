from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Target, list_targets, load_target
from edgekd.resources import named_resources


def test_every_target_is_listed_by_a_name_that_can_be_copied(edgekd: Callable) -> None:
    shown = edgekd("targets")
    assert (shown.code, shown.err) == (0, "")
    first_words = [line.split()[0] for line in shown.out.splitlines() if line[:1].strip()]
    assert {target.name for target in list_targets()} <= set(first_words)
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_list_says_what_runs_where(edgekd: Callable) -> None:
    lines = {line.split()[0]: line for line in edgekd("targets").out.splitlines() if line[:1].strip()}
    assert "TensorRT 8.2" in lines["jetson-nano"]
    assert lines["jetson-nano"].rstrip().endswith("4.6.1    fp16 fp32")
    assert lines["raspberry-pi-4"].rstrip().endswith("int8 fp32")


def test_the_list_is_of_the_boards_as_they_are_when_checked(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # a line a board
    lines = {line.split()[0]: " ".join(line.split()) for line in edgekd("targets").out.splitlines() if line.strip()}
    for target in list_targets():
        device = target.tensorrt
        runtime = RUNTIMES[target.runtime].describe(target) if target.runtime != "onnxruntime" else target.runtime
        cells = [target.name, ", ".join(target.aliases), runtime, (device and device.jetpack) or ""]
        assert lines[target.name] == " ".join(cell for cell in (*cells, *target.precisions) if cell)


@pytest.mark.parametrize("name", [target.name for target in list_targets()])
def test_a_target_is_shown_as_the_toml_it_is_read_from(edgekd: Callable, name: str) -> None:
    shown = edgekd("targets", name).out
    assert Target.model_validate(tomllib.loads(shown)) == load_target(name)


def test_targets_as_json(edgekd: Callable) -> None:
    targets = edgekd("targets", "--json").json()["targets"]
    assert [Target.model_validate(target) for target in targets] == list_targets()
    assert Target.model_validate(edgekd("targets", "jetson", "--json").json()) == load_target("jetson")


def test_a_users_own_file_is_shown_and_its_mistakes_are_told(edgekd: Callable, tmp_path: Path) -> None:
    path = tmp_path / "buoy.toml"
    path.write_text(named_resources("targets")["cpu"].read_text().replace('"cpu"', '"buoy"'))
    assert 'name = "buoy"' in edgekd("targets", str(path)).out
    path.write_text(path.read_text().replace("opset = 20", "opset = 12"))
    assert "buoy.toml: opset = 12: input should be greater than or equal to 13" in edgekd("targets", str(path)).refusal(
        2
    )


def test_an_unknown_target_gets_the_nearest(edgekd: Callable) -> None:
    assert "Did you mean 'jetson'?" in edgekd("targets", "jetsn").refusal(2)

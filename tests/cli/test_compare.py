"""The command, and one grid that is really trained, by two worker processes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RATE = 4_000
SMALL = [
    *("--sample-rate", str(RATE), "--clip-seconds", "0.5", "--epochs", "1", "--device", "cpu", "--batch-size", "8"),
    *("--set", "frontend.f_max=1900", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
    *("--set", "frontend.n_mels=32", "--teacher", "convnet", "--adaptation", "full", "--set", "teacher.epochs=1"),
    *("--set", "augment.mixes_per_clip=0", "--quiet"),
]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield


@pytest.mark.timeout(900)  # three processes that load torch, on a machine that may have other work
@pytest.mark.usefixtures("one_thread")
def test_a_grid_is_trained_with_a_hole(edgekd: Callable, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    broken = tmp_path / "broken.toml"
    broken.write_text(f'[teacher]\nweights = "{tmp_path / "later.safetensors"}"\n')
    command = ["compare", *SMALL, "--data-dir", recordings, "--out", out, "--seeds", "1", "--jobs", "2", "--methods"]
    first = edgekd(*command, f"labels,mine={broken}")
    assert first.code == 3, first.err
    assert [line.split()[:2] for line in first.out.splitlines()[2:4]] == [["labels", "1/1"], ["mine", "0/1"]]
    assert "1 of 2 cells failed" in first.err
    assert "mine/split0-seed0 failed: its teacher failed: edgekd: error: " in first.err
    assert "later.safetensors: no such weights file" in first.err
    found = edgekd(*command, "labels", "--json").json()
    assert [(row["method"], row["cells"]) for row in found["methods"]] == [("labels", 1)], "what is finished is shown"


def test_a_plan_tells_the_grid_and_can_be_read_back(edgekd: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[loss]\ntemperature = 3.0\n")
    methods = f"labels,warm={tmp_path / 'mine.toml'}"
    plan = edgekd("compare", "--methods", methods, "--seeds", "4,9", *SMALL, "--dry-run")
    assert plan.code == 0
    assert plan.out.startswith("# 2 methods, folds all, seeds 4, 9; shared settings:\n")
    assert tomllib.loads(plan.out)["training"]["epochs"] == 1
    assert "# warm changes:\n# [loss]\n# temperature = 3.0\n" in plan.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--methods", "labels,ssatk"), "Unknown method 'ssatk'. Did you mean 'ssatkd'?"),
        (("--methods", "labels,labels"), "--methods: 'labels' is named twice."),
        (("--methods", "kd=x.toml"), "--methods kd=x.toml: give it a name of its own"),
        (("--methods", "../x=x.toml"), "--methods ../x=x.toml: give it a name of its own"),
        (("--methods", "mine=nowhere.toml"), "nowhere.toml: no such configuration file."),
        (("--folds", "one"), "--folds 'one': whole numbers by comma, such as 1,3."),
        (("--seeds", ","), "--seeds ',': whole numbers by comma, such as 1,3."),
        (("--seeds", "0"), "--seeds '0': how many, from 1 to 10000."),
        (("--methods", ""), "--methods: name at least one."),
    ],
)
def test_what_cannot_be_meant_is_refused(flags: tuple[str, ...], words: str, edgekd: Callable, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    assert words in edgekd("compare", "--dataset", "sonar_sim", "--out", out, *SMALL, *flags).refusal(2)
    assert not out.exists()


def test_all_of_a_methods_wrong_names_are_told_before_anything_is_read(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("compare", "--dataset", "esc5", "--student", "hltdn", "--teacher", "yamne", "--quiet").refusal(2)
    assert "Unknown data set 'esc5'" in line
    assert "Unknown student 'hltdn'" in line

"""A grid that is run, with runs that are made up in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.config import DistillConfig
from edgekd.errors import GateError, InputError, UsageError
from edgekd.experiments.compare import compare, write_tables
from edgekd.experiments.comparison import Comparison
from edgekd.experiments.plan import METHODS as ALL_METHODS
from tests.experiments.made import STOPPED, Made

TinyConfig = Callable[..., DistillConfig]
Compare = Callable[..., Comparison]
METHODS = ["labels", "kd"]


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def compare_made(made: Made) -> Compare:
    """Without pictures, which take most of the time."""
    return partial(compare, start=made.start, write=write_tables)


def test_every_method_has_the_same_split_seed_and_teacher(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    found = compare_made(
        tiny_config(tmp_path / "grid"), ["labels", "kd", "ssatkd"], splits=2, seeds=[0, 7], start=made.start
    )
    assert [cell.method for cell in found.cells[:3]] == ["labels", "kd", "ssatkd"]
    assert made.order[:5] == [
        *("labels/split0-seed0", "teachers/split0-seed0", "kd/split0-seed0", "ssatkd/split0-seed0"),
        "labels/split1-seed0",
    ]
    assert len(made.jobs) == 12 + 4, "a teacher for each split and seed, not for each method"
    for job in made.jobs:
        if job.student and job.config.out.parent.name != "labels":
            assert job.teacher == tmp_path / "grid" / "teachers" / job.config.out.name
    students = [job.config for job in made.jobs if job.config.out.name == "split1-seed7" and job.student]
    same = {config.model_dump_json(exclude={"out", "loss"}) for config in students}
    assert len(same) == 1
    assert [config.loss.terms for config in students] == [
        ("classification",),
        ("classification", "distillation"),
        ("classification", "statistical", "structural", "distillation"),
    ]
    assert students[1].loss.distillation == "kl"


def test_what_is_kept_of_a_teacher_makes_no_other_teacher_of_it(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    config, methods = tiny_config(tmp_path / "grid", teacher={"cache": "logits"}), {"kd": ALL_METHODS["kd"]}
    compare_made(config, methods, seeds=[3])
    made.jobs.clear()
    compare_made(tiny_config(tmp_path / "grid", teacher={"cache": "off"}), methods, seeds=[3])
    assert made.jobs == [], "the cells that are there are those that are wanted"


def test_a_finished_cell_is_never_trained_twice(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    config = tiny_config(tmp_path / "grid")
    first = compare_made(config, METHODS, seeds=[0])
    made.jobs.clear()
    assert compare_made(config, METHODS, seeds=[0]).to_dict() == first.to_dict()
    assert made.jobs == []
    compare_made(config, [*METHODS, "ssatkd"], seeds=[0, 1])
    assert made.order == [
        *("ssatkd/split0-seed0", "labels/split0-seed1", "teachers/split0-seed1", "kd/split0-seed1"),
        "ssatkd/split0-seed1",
    ]
    made.jobs.clear()
    compare_made(config, METHODS, seeds=[0], quantize=True)
    assert made.order == ["labels/split0-seed0", "kd/split0-seed0"], "int8 students are made up for"


def test_a_cell_that_fails_is_a_hole_and_is_tried_again(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    config = tiny_config(tmp_path / "grid")
    made.failing = {"kd/split0-seed1"}
    found = compare_made(config, METHODS, seeds=[0, 1])
    (lost,) = found.failed
    assert (lost.method, lost.seed, lost.measure, lost.exit_code) == ("kd", 1, None, 3)
    assert lost.error == STOPPED.line
    labels, kd = found.methods
    assert [(result.cells, result.planned) for result in (labels, kd)] == [(2, 2), (1, 2)]
    assert kd.difference is not None
    assert kd.difference.trials == 1
    log = tmp_path / "grid" / "cells" / "kd" / "split0-seed1.log"
    assert log.read_text() == STOPPED.log
    made.failing.clear()
    made.jobs.clear()
    assert compare_made(config, METHODS, seeds=[0, 1]).failed == []
    assert made.order == ["kd/split0-seed1"]
    assert not log.exists()


def test_a_teacher_that_fails_takes_only_its_own_students(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    made.failing = {"teachers/split0-seed1"}
    found = compare_made(tiny_config(tmp_path / "grid"), [*METHODS, "ssatkd"], seeds=[0, 1])
    assert [(cell.method, cell.seed) for cell in found.failed] == [("kd", 1), ("ssatkd", 1)]
    assert found.failed[0].error == f"its teacher failed: {STOPPED.line}"
    assert [result.cells for result in found.methods] == [2, 1, 1]
    assert [(result.cells, result.planned) for result in found.teachers] == [(1, 2)]


def test_cells_of_other_settings_are_refused_or_made_anew(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    compare_made(tiny_config(tmp_path / "grid"), METHODS, seeds=[0])
    changed = tiny_config(tmp_path / "grid", training={"epochs": 2})
    made.jobs.clear()
    with pytest.raises(UsageError, match=r"labels/split0-seed0: made with other settings \(training\.epochs\)"):
        compare_made(changed, METHODS, seeds=[0])
    assert made.jobs == []
    compare_made(changed, ["labels"], seeds=[0], overwrite=True)
    compare_made(changed, METHODS, seeds=[0], overwrite=True)
    # The teacher learns under training.patience, which is as it was: it is kept.
    assert made.order == ["labels/split0-seed0", "kd/split0-seed0"]
    made.jobs.clear()
    compare_made(changed, METHODS, seeds=[0], overwrite=True)
    assert made.jobs == [], "what is of these settings is kept"


def test_an_interruption_closes_the_workers_and_keeps_what_is_finished(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    config = tiny_config(tmp_path / "grid")

    def interrupt(stage: str, done: int, total: int, /, **_: float | str) -> None:
        if (stage, done) == ("cells", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_made(config, METHODS, seeds=[0, 1], progress=interrupt)
    assert made.closed == 1
    table = json.loads((tmp_path / "grid" / "comparison.json").read_text())
    assert [result["cells"] for result in table["methods"]] == [1, 1]
    made.jobs.clear()
    compare_made(config, METHODS, seeds=[0, 1])
    assert "labels/split0-seed0" not in made.order


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"student": "hltdn"}, UsageError, "Unknown student 'hltdn'"),
        ({"teacher": {"name": "yamnet"}}, UsageError, "'yamnet' needs pre-trained weights"),
        ({"data": {"dataset": "folder", "data_dir": Path("nowhere")}}, InputError, "nowhere: no such folder"),
    ],
)
def test_what_no_cell_could_use_is_refused_at_once(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    tiny_config: TinyConfig,
    tmp_path: Path,
    made: Made,
    compare_made: Compare,
) -> None:
    with pytest.raises(error, match=words):
        compare_made(tiny_config(tmp_path / "grid", **changes), METHODS, seeds=[0])
    assert not (tmp_path / "grid").exists()


def test_a_leaking_split_is_refused_at_once(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    lines = ["path,label,group,split"]
    for label in ("a", "b"):  # a group is all of a class
        for side in ("train", "validation", "test"):
            soundfile.write(tmp_path / f"{label}-{side}.wav", np.full(4000, 0.1), 4000)
            lines.append(f"{label}-{side}.wav,{label},of {label},{side}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    config = tiny_config(tmp_path / "grid", data={"dataset": "manifest", "data_dir": tmp_path / "manifest.csv"})
    with pytest.raises(GateError, match="the split leaks"):
        compare_made(config, METHODS, seeds=[0])
    assert made.jobs == []
    assert not (tmp_path / "grid").exists()


def test_jobs_are_done_at_the_same_time(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, compare_made: Compare
) -> None:
    meeting = threading.Barrier(3, timeout=20)
    made.at_job = lambda _: print(meeting.wait())
    comparison = compare_made(tiny_config(tmp_path / "grid"), ["labels"], seeds=range(6), jobs=3)
    assert comparison.failed == []
    assert (made.started, made.closed) == (3, 3)


def test_a_method_of_no_known_name_is_refused_with_the_nearest(
    tiny_config: TinyConfig, tmp_path: Path, compare_made: Compare
) -> None:
    with pytest.raises(UsageError, match=r"Unknown method 'ssatdk'\. Did you mean 'ssatkd'\? Valid: embedding, kd, "):
        compare_made(tiny_config(tmp_path / "grid"), ["labels", "ssatdk"])
    assert not (tmp_path / "grid").exists()

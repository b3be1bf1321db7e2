from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.config import DistillConfig
from edgekd.errors import UsageError
from edgekd.experiments.grid import Job, has_teacher, is_finished, refuse_other_settings, scores_of
from edgekd.experiments.plan import METHODS, Cell, plan_cells
from edgekd.runs.run import Run
from tests.experiments.made import make_run

TinyConfig = Callable[..., DistillConfig]


@pytest.fixture
def cell(tiny_config: TinyConfig, tmp_path: Path) -> Cell:
    (cell,) = plan_cells(tiny_config(tmp_path / "grid"), {"kd": METHODS["kd"]}, {"split0": {}}, [0])
    return cell


@pytest.mark.parametrize("teacher", [None, Path("a teacher's run")])
def test_a_job_is_a_line_and_back(cell: Cell, teacher: Path | None) -> None:
    job = Job(cell.config, True, teacher, True)
    line = job.to_line()
    assert "\n" not in line
    assert Job.from_line(line) == job


def test_a_cell_is_finished_when_it_has_the_scores_that_it_is_to_have(cell: Cell) -> None:
    assert not is_finished(cell, quantize=False)
    assert scores_of(cell.config) == {}
    make_run(Job(cell.config, student=True))
    assert is_finished(cell, quantize=False)
    assert not is_finished(cell, quantize=True)
    make_run(Job(cell.config, student=True, quantize=True))
    assert is_finished(cell, quantize=True)
    assert scores_of(cell.config).keys() == {"student", "int8"}


def test_a_teacher_is_there_when_it_is_scored_or_never_will_be(cell: Cell) -> None:
    teacher = cell.teacher
    assert teacher is not None
    assert not has_teacher(teacher)
    run = Run.create(teacher, ("a",), "cpu")
    run.stage_folder("teacher").joinpath("best.safetensors").touch()
    run.update_report("training", {"teacher": {"name": "yamnet"}})
    assert not has_teacher(teacher), "adapted, and not scored yet"
    run.update_report("training", {"teacher": {"name": "yamnet", "scored": False}})
    assert has_teacher(teacher)
    make_run(Job(teacher))
    assert has_teacher(teacher)


def test_a_run_of_other_settings_stops_a_grid_and_scores_nothing(cell: Cell) -> None:
    other = cell.config.model_copy(update={"seed": 5})
    make_run(Job(other, student=True))
    with pytest.raises(UsageError, match=r"kd/split0-seed0: made with other settings \(seed\)"):
        refuse_other_settings([cell])
    assert Run.open(cell.config.out).config.seed == 5
    assert scores_of(cell.config) == {}
    assert not is_finished(cell, quantize=False)

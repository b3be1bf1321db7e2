"""The grid and its result, with runs that are made up in this process: what a student says is drawn, not learnt."""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.config import DistillConfig
from edgekd.data.index import Clip, ClipIndex
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, write_splits
from edgekd.errors import GateError, InputError, UsageError
from edgekd.experiments import grid
from edgekd.experiments.compare import Comparison, compare
from edgekd.experiments.grid import Job, plan_cells, plan_parts
from edgekd.experiments.workers import Failure
from edgekd.runs.predictions import write_predictions
from edgekd.runs.run import Run
from edgekd.scoring.scores import score

TinyConfig = Callable[..., DistillConfig]
CHANCE = {"labels": 0.5, "kd": 0.7, "ssatkd": 0.8, "mine": 0.6, "teachers": 0.9}
STOPPED = Failure(3, "edgekd: error: recordings/cargo-01.wav: no such file.", "edgekd: error: no such file.\n")


class Made:
    """Stands for `Worker`: makes the run that a job asks for at once, and keeps an account."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.failing: set[str] = set()
        self.closed = 0
        self.hired = 0
        self.at_job: Callable[[Job], None] = lambda _: None

    def hire(self, _command: Sequence[str], environment: dict[str, str], _errors: object) -> Made:
        self.environment = environment
        self.hired += 1
        return self

    def do(self, line: str) -> Failure | None:
        job = Job.from_line(line)
        self.jobs.append(job)
        self.at_job(job)
        if short(job) in self.failing:
            return STOPPED
        make_run(job)
        return None

    def close(self) -> None:
        self.closed += 1

    @property
    def order(self) -> list[str]:
        return [short(job) for job in self.jobs]


def short(job: Job) -> str:
    return f"{job.config.out.parent.name}/{job.config.out.name}"


def make_run(job: Job) -> None:
    config = job.config
    index = load_index(config.data)
    split = make_split(index, config.data)
    run = Run.create(config, index.classes, "cpu")
    write_splits(run.folder / "splits.csv", index, split)
    labels, groups = [index.clips[row].label for row in split.test], [index.clips[row].group for row in split.test]
    rng = np.random.default_rng([config.seed, config.data.split_seed, len(config.out.parent.name)])
    subjects = ["teacher"] if not job.student else ["student", "int8"] if job.quantize else ["student"]
    hit = rng.random(len(labels)) < CHANCE[config.out.parent.name]
    for subject in subjects:
        right = hit if subject != "int8" else hit & (np.arange(len(hit)) != 0)  # int8 never knows the first clip
        said = np.eye(5, dtype=np.float32)[np.where(right, labels, (np.array(labels) + 1) % 5)]
        write_predictions(run.folder, subject, index, split.test, said)
        run.update_report("test", {subject: score(said, labels, groups, index.classes).to_dict()})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(grid, "Worker", made.hire)
    monkeypatch.setattr(
        sys.modules["edgekd.experiments.compare"], "plot_comparison", lambda *_: None
    )  # slow, as it goes
    return made


METHODS = ["labels", "kd"]


# Which cells


def test_every_method_has_the_same_split_seed_and_teacher(tiny_config: TinyConfig, tmp_path: Path, made: Made) -> None:
    found = compare(tiny_config(tmp_path / "grid"), ["labels", "kd", "ssatkd"], splits=2, seeds=[0, 7])
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


def test_a_method_of_ones_own_changes_what_it_names(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "grid")
    mine = {"loss": {"temperature": 4.0}, "training": {"epochs": 2}}
    other = {"teacher": {"epochs": 9}}
    (cell, taught) = plan_cells(config, {"mine": mine, "other": other}, {"split0": {}}, [3])
    assert cell.config.model_dump(exclude={"out"}) == DistillConfig.model_validate(
        {
            **config.model_dump(),
            "loss": {**config.loss.model_dump(), "temperature": 4.0},
            "training": {**config.training.model_dump(), "epochs": 2},
        }
    ).model_dump(exclude={"out"})
    assert cell.teacher is not None
    assert taught.teacher is not None
    assert cell.teacher.out.name == "split0-seed3", "the teacher that the others have"
    assert taught.teacher.out.name.startswith("split0-seed3-"), "a teacher to itself"
    assert taught.teacher.teacher.epochs == 9


def test_what_is_kept_of_a_teacher_makes_no_other_teacher_of_it(
    tiny_config: TinyConfig, tmp_path: Path, made: Made
) -> None:
    config, methods = tiny_config(tmp_path / "grid", teacher={"cache": "logits"}), {"kd": grid.METHODS["kd"]}
    (cell,) = plan_cells(config, methods, {"split0": {}}, [3])
    assert cell.teacher is not None
    assert (cell.config.teacher.cache, cell.teacher.teacher.cache) == ("logits", "logits")
    assert cell.teacher.out.name == "split0-seed3"
    compare(config, methods, seeds=[3])
    made.jobs.clear()
    compare(tiny_config(tmp_path / "grid", teacher={"cache": "off"}), methods, seeds=[3])
    assert made.jobs == [], "the cells that are there are those that are wanted"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"los": {}}, r"method 'mine': unknown key 'los'\. Did you mean 'loss'\?"),
        ({"training": {"epochs": 0}}, r"method 'mine': training\.epochs = 0"),
        ({"seed": 1}, r"Method 'mine' sets seed: it is the same for all methods"),
        ({"data": {"fold": 2, "padding": "zeros"}}, r"Method 'mine' sets data\.fold"),
    ],
)
def test_a_method_with_wrong_settings_is_refused(
    changes: dict[str, Any], words: str, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        plan_cells(tiny_config(tmp_path / "grid"), {"mine": changes}, {"split0": {}}, [0])


def index_of(**given: Any) -> ClipIndex:
    folds = given.pop("folds", [None])
    return ClipIndex("set", Path(), ("a",), tuple(Clip(Path("x"), 0, "g", fold, 0, 1, **given) for fold in folds))


def test_parts_are_folds_or_the_given_split_or_splits_by_group(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "grid", data={"split_seed": 4})
    folds, given, plain = index_of(folds=[3, 1, 2, 1]), index_of(side="test"), index_of()
    assert plan_parts(config, folds, None, 1) == {f"fold{fold}": {"data": {"fold": fold}} for fold in (1, 2, 3)}
    assert list(plan_parts(config, folds, [2], 1)) == ["fold2"]
    assert plan_parts(config, given, None, 1) == {"given": {}}
    assert plan_parts(config, plain, None, 2) == {f"split{seed}": {"data": {"split_seed": seed}} for seed in (4, 5)}
    by_group = tiny_config(tmp_path / "grid", data={"given_split": False})
    assert list(plan_parts(by_group, folds, None, 2)) == ["split0", "split1"]
    for index, chosen, splits, words in (
        (plain, [1], 1, r"--folds: set is used without folds; it is split by groups: pass --splits N"),
        (given, [1], 1, r"--folds: .* comes with its split"),
        (folds, None, 3, r"--splits 3: set has folds \(1, 2, 3\): pass --folds"),
    ):
        with pytest.raises(UsageError, match=words):
            plan_parts(config, index, chosen, splits)


# Running them


def test_a_finished_cell_is_never_trained_twice(tiny_config: TinyConfig, tmp_path: Path, made: Made) -> None:
    config = tiny_config(tmp_path / "grid")
    first = compare(config, METHODS, seeds=[0])
    made.jobs.clear()
    assert compare(config, METHODS, seeds=[0]).to_dict() == first.to_dict()
    assert made.jobs == []
    compare(config, [*METHODS, "ssatkd"], seeds=[0, 1])
    assert made.order == [
        *("ssatkd/split0-seed0", "labels/split0-seed1", "teachers/split0-seed1", "kd/split0-seed1"),
        "ssatkd/split0-seed1",
    ]
    made.jobs.clear()
    compare(config, METHODS, seeds=[0], quantize=True)
    assert made.order == ["labels/split0-seed0", "kd/split0-seed0"], "int8 students are made up for"


def test_a_cell_that_fails_is_a_hole_and_is_tried_again(tiny_config: TinyConfig, tmp_path: Path, made: Made) -> None:
    config = tiny_config(tmp_path / "grid")
    made.failing = {"kd/split0-seed1"}
    found = compare(config, METHODS, seeds=[0, 1])
    (lost,) = found.failed
    assert (lost.method, lost.seed, lost.accuracy, lost.exit_code) == ("kd", 1, None, 3)
    assert lost.error == STOPPED.line
    labels, kd = found.methods
    assert [(result.cells, result.planned) for result in (labels, kd)] == [(2, 2), (1, 2)]
    assert kd.difference is not None
    assert kd.difference.trials == 1
    log = tmp_path / "grid" / "cells" / "kd" / "split0-seed1.log"
    assert log.read_text() == STOPPED.log
    made.failing.clear()
    made.jobs.clear()
    assert compare(config, METHODS, seeds=[0, 1]).failed == []
    assert made.order == ["kd/split0-seed1"]
    assert not log.exists()


def test_a_teacher_that_fails_takes_only_its_own_students(tiny_config: TinyConfig, tmp_path: Path, made: Made) -> None:
    made.failing = {"teachers/split0-seed1"}
    found = compare(tiny_config(tmp_path / "grid"), [*METHODS, "ssatkd"], seeds=[0, 1])
    assert [(cell.method, cell.seed) for cell in found.failed] == [("kd", 1), ("ssatkd", 1)]
    assert found.failed[0].error == f"its teacher failed: {STOPPED.line}"
    assert [result.cells for result in found.methods] == [2, 1, 1]
    assert [(result.cells, result.planned) for result in found.teachers] == [(1, 2)]


def test_cells_of_other_settings_are_refused_or_made_anew(tiny_config: TinyConfig, tmp_path: Path, made: Made) -> None:
    compare(tiny_config(tmp_path / "grid"), METHODS, seeds=[0])
    changed = tiny_config(tmp_path / "grid", training={"epochs": 2})
    made.jobs.clear()
    with pytest.raises(UsageError, match=r"labels/split0-seed0: made with other settings \(training\.epochs\)"):
        compare(changed, METHODS, seeds=[0])
    assert made.jobs == []
    compare(changed, ["labels"], seeds=[0], overwrite=True)
    compare(changed, METHODS, seeds=[0], overwrite=True)
    # The teacher learns under training.patience, which is as it was: it is kept.
    assert made.order == ["labels/split0-seed0", "kd/split0-seed0"]
    made.jobs.clear()
    compare(changed, METHODS, seeds=[0], overwrite=True)
    assert made.jobs == [], "what is of these settings is kept"


def test_jobs_are_done_at_the_same_time_each_with_its_share_of_cores(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    meeting = threading.Barrier(3, timeout=20)
    made.at_job = lambda _: print(meeting.wait())
    found = compare(tiny_config(tmp_path / "grid"), ["labels"], seeds=range(6), jobs=3)
    assert found.failed == []
    assert (made.hired, made.closed) == (3, 3)
    assert made.environment["OMP_NUM_THREADS"] == "2"


def test_an_interruption_closes_the_workers_and_keeps_what_is_finished(
    tiny_config: TinyConfig, tmp_path: Path, made: Made
) -> None:
    config = tiny_config(tmp_path / "grid")

    def interrupt(stage: str, done: int, total: int, /, **_: float | str) -> None:
        if (stage, done) == ("cells", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(config, METHODS, seeds=[0, 1], progress=interrupt)
    assert made.closed == 1
    table = json.loads((tmp_path / "grid" / "comparison.json").read_text())
    assert [result["cells"] for result in table["methods"]] == [1, 1]
    made.jobs.clear()
    compare(config, METHODS, seeds=[0, 1])
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
    changes: dict[str, Any], error: type[Exception], words: str, tiny_config: TinyConfig, tmp_path: Path, made: Made
) -> None:
    with pytest.raises(error, match=words):
        compare(tiny_config(tmp_path / "grid", **changes), METHODS, seeds=[0])
    assert not (tmp_path / "grid").exists()


def test_a_leaking_split_is_refused_at_once(
    tiny_config: TinyConfig, tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaks(*_: object) -> None:
        raise GateError("the split leaks")

    monkeypatch.setattr(sys.modules["edgekd.experiments.compare"], "make_split", leaks)
    with pytest.raises(GateError):
        compare(tiny_config(tmp_path / "grid"), METHODS, seeds=[0])
    assert made.jobs == []


# What comes out


@pytest.fixture(scope="module")
def found(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    config = tiny_config(tmp_path_factory.mktemp("comparison") / "grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "Worker", Made().hire)
        return compare(config, METHODS, splits=2, seeds=[0, 1], quantize=True)


def accuracies(found: Comparison, method: str, figure: str = "accuracy") -> dict[tuple[str, int], float]:
    return {(cell.part, cell.seed): getattr(cell, figure) for cell in found.cells if cell.method == method}


def test_means_are_over_cells_and_deviations_over_seeds_and_cells(found: Comparison) -> None:
    for result in found.methods:
        each = accuracies(found, result.method)
        by_seed = [np.mean([each[part, seed] for part in ("split0", "split1")]) for seed in (0, 1)]
        assert result.accuracy is not None
        assert result.accuracy.mean == pytest.approx(np.mean(list(each.values())))
        assert result.accuracy.over_seeds == pytest.approx(np.std(by_seed, ddof=1))
        assert result.accuracy.over_cells == pytest.approx(np.std(list(each.values()), ddof=1))
    labels, kd = found.methods
    assert labels.difference is None
    assert kd.difference is not None
    assert labels.accuracy is not None
    assert kd.accuracy is not None
    assert kd.difference.accuracy == pytest.approx(kd.accuracy.mean - labels.accuracy.mean, abs=1e-6)


def test_int8_is_compared_with_the_float_student_it_comes_from(found: Comparison) -> None:
    for result in found.methods:
        floats, int8 = (accuracies(found, result.method, figure) for figure in ("accuracy", "int8_accuracy"))
        assert result.int8_difference is not None
        expected = np.mean(list(int8.values())) - np.mean(list(floats.values()))
        assert result.int8_difference.accuracy == pytest.approx(expected, abs=1e-6)
        assert result.int8_difference.only_first == 0


def test_the_folder_holds_the_result_in_every_form(found: Comparison) -> None:
    folder = found.folder
    assert json.loads((folder / "comparison.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    with open(folder / "comparison.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["labels", "kd", "teacher"]
    kd = found.methods[1]
    assert kd.difference is not None
    assert float(rows["kd"]["difference_accuracy_low"]) == pytest.approx(kd.difference.accuracy_interval[0], abs=1e-6)
    assert rows["labels"]["difference_accuracy"] == "", "the first has nothing to differ from"
    with open(folder / "cells.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    with Image.open(folder / "comparison.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 600

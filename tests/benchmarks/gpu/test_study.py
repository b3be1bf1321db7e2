"""The study: cut by time, it goes on, and comes to the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.config import DistillConfig
from edgekd.data.load import load_index
from edgekd.errors import InputError
from edgekd.experiments.grid import Job
from edgekd.experiments.names import check_names
from edgekd.experiments.pool import Failure
from edgekd.experiments.worker import train
from edgekd.progress import silent
from edgekd.training.cut_start import check_cut
from tests.benchmarks.gpu.study import SETTLING, Clock, conduct
from tests.benchmarks.gpu.study_plan import OF_YAMNET, Study, Subject, plan_study
from tests.benchmarks.gpu.study_results import show
from tests.experiments.made import Made

TinyConfig = Callable[..., DistillConfig]
TINY = (
    (Subject("hltdnn_ds", {"student": "hltdnn_ds"}, ("labels", "kd")),),
    (Subject("hltdnn", {"student": "hltdnn"}, ("kd",), against="hltdnn_ds"),),
)


class Clockwork(Made):
    """Hands that make up runs, each in `cost` seconds of a clock of their own."""

    def __init__(self, cost: float = 1.0) -> None:
        super().__init__()
        self.time, self.cost = 0.0, cost
        self.at_job = self._pass

    def _pass(self, job: Job) -> None:
        self.time += self.cost

    def clock(self, jobs: float) -> Clock:
        """Time for so many jobs."""
        return Clock(jobs * self.cost + SETTLING, lambda: self.time)


class Learning(Clockwork):
    """Hands that train, in this process."""

    def do(self, line: str, /) -> Failure | None:
        job = Job.from_line(line)
        self.jobs.append(job)
        train(job)
        self._pass(job)
        return None


@pytest.fixture
def study(tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    config = tiny_config(
        tmp_path / "unused",
        training={"epochs": 1},
        teacher={"epochs": 1},
        quantize={"method": "ptq"},
        augment={"time_shift": False},
    )
    monkeypatch.setattr("tests.benchmarks.gpu.study_plan.SPLITS", 2)
    for name in ("hltdnn_ds.labels", "hltdnn_ds.kd", "hltdnn.kd"):
        monkeypatch.setitem(_chances(), name, 0.6)
    return Study(config, load_index(config.data), TINY, seeds=(0, 1))


def _chances() -> dict[str, float]:
    from tests.experiments import made

    return made.CHANCE


def told(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


def test_cut_by_time_it_goes_on_elsewhere_and_comes_to_the_same(study: Study, tmp_path: Path) -> None:
    once = Clockwork()
    whole = conduct(study, tmp_path / "once", tmp_path / "place", once.clock(99), 1, silent, once.start)
    assert (whole["cells"], whole["planned"]) == (12, 12)

    hands, folder = Clockwork(), tmp_path / "first"
    first = conduct(study, folder, tmp_path / "there", hands.clock(4.5), 1, silent, hands.start)
    assert hands.order == [
        *("hltdnn_ds.labels/split0-seed0", "teachers/split0-seed0", "hltdnn_ds.kd/split0-seed0"),
        "hltdnn_ds.labels/split1-seed0",
    ], "a job more would not have ended in time"
    assert first["cells"] == 3
    (folder / "study.json").chmod(0o444)  # as it comes back
    again = Clockwork()
    last = conduct(study, folder, tmp_path / "elsewhere", again.clock(99), 1, silent, again.start)
    assert told(last) == told(whole)
    assert len([job for job in again.jobs if job.student]) == 9, "what is known is not made again"
    assert [path.name for path in folder.iterdir()] == ["study.json"]
    assert not (tmp_path / "elsewhere").exists()


def test_trained_in_two_goes_it_says_the_same(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for plot in ("plot_curves", "plot_confusion"):  # which take longer than the training
        monkeypatch.setattr(f"edgekd.training.outcome.{plot}", lambda *_, **__: None)
    monkeypatch.setattr("tests.benchmarks.gpu.study_plan.SPLITS", 1)
    small = Study(study.config, study.index, (TINY[0],), seeds=(0,))
    once, *often = Learning(), Learning(), Learning()
    whole = conduct(small, tmp_path / "once", tmp_path / "place", once.clock(99), 1, silent, once.start)
    assert (whole["cells"], whole["failed"]) == (2, {})
    for hands, jobs in zip(often, (1.5, 99), strict=True):
        found = conduct(small, tmp_path / "often", tmp_path / "there", hands.clock(jobs), 1, silent, hands.start)
    assert [hands.order for hands in often] == [once.order[:1], once.order[1:]]
    assert told(found) == told(whole)
    (teacher,) = found["teachers"]
    assert (teacher["teacher"], teacher["cells"]) == ("convnet (trained whole), 4000 Hz", 1)
    assert _held(tmp_path / "often") == _held(tmp_path / "once")


def test_a_cell_under_way_when_the_time_is_up_is_ended_and_made_later(study: Study, tmp_path: Path) -> None:
    class Slow(Clockwork):
        def do(self, line: str, /) -> Failure | None:
            self.time += 90
            return Failure(1, "its process was ended by SIGTERM", "")

    hands = Slow()
    cut = conduct(study, tmp_path / "study", tmp_path / "place", hands.clock(50), 1, silent, hands.start)
    assert (cut["cells"], cut["failed"], cut["rows"]) == (0, {}, [])
    assert hands.closed
    again = Clockwork()
    assert (
        conduct(study, tmp_path / "study", tmp_path / "place", again.clock(99), 1, silent, again.start)["cells"] == 12
    )


def test_hands_are_closed_when_the_time_is_up(study: Study, tmp_path: Path) -> None:
    class Stuck(Clockwork):
        gone = threading.Event()

        def do(self, line: str, /) -> Failure | None:
            assert self.gone.wait(60)
            return Failure(1, "its process was ended by SIGTERM", "")

        def close(self) -> None:
            self.gone.set()

    hands = Stuck()
    found = conduct(study, tmp_path / "study", tmp_path / "place", Clock(SETTLING + 0.2), 1, silent, hands.start)
    assert found["cells"] == 0


def test_what_failed_is_a_hole_and_is_tried_again_last(study: Study, tmp_path: Path) -> None:
    hands = Clockwork()
    hands.failing = {"hltdnn_ds.labels/split0-seed0", "teachers/split1-seed1"}
    found = conduct(study, tmp_path / "study", tmp_path / "place", hands.clock(99), 1, silent, hands.start)
    assert set(found["failed"]) == {
        *("hltdnn_ds.labels/split0-seed0", "hltdnn_ds.kd/split1-seed1", "hltdnn.kd/split1-seed1"),
    }
    lines = list(show(found))
    assert lines[0] == "9 of 12 cells"
    assert sum(line.startswith("failed: ") for line in lines) == 3
    again = Clockwork()
    found = conduct(study, tmp_path / "study", tmp_path / "place", again.clock(3), 1, silent, again.start)
    assert (found["cells"], again.order[0]) == (11, "hltdnn_ds.labels/split0-seed0")


def test_methods_are_compared_with_labels_alone_over_what_both_have(study: Study, tmp_path: Path) -> None:
    hands = Clockwork()
    found = conduct(study, tmp_path / "study", tmp_path / "place", hands.clock(99), 1, silent, hands.start)
    labels, kd, other = found["rows"]
    assert labels["difference"] is None
    assert (kd["reference"], other["reference"]) == ("hltdnn_ds.labels", "hltdnn_ds.labels")
    assert kd["difference"]["accuracy"] == pytest.approx(kd["accuracy"]["mean"] - labels["accuracy"]["mean"])
    assert kd["difference"]["runs_resampled"]
    low, high = kd["accuracy"]["interval"]
    assert low < kd["accuracy"]["mean"] < high
    assert labels["int8_difference"]["accuracy"] < 0, "int8 never knows the first clip"


def test_cells_of_other_settings_or_clips_are_not_taken_up(
    study: Study, tmp_path: Path, tiny_config: TinyConfig
) -> None:
    hands = Clockwork()
    folder = tmp_path / "study"
    conduct(study, folder, tmp_path / "place", hands.clock(99), 1, silent, hands.start)
    longer = tiny_config(tmp_path / "unused", training={"epochs": 2})
    changed, again = Study(longer, study.index, study.ranks, study.seeds), Clockwork()
    assert conduct(changed, folder, tmp_path / "place", again.clock(0), 1, silent, again.start)["cells"] == 0
    (folder / "study.json").write_text("[]")
    with pytest.raises(InputError, match=r"study\.json: not the file of a study"):
        conduct(study, folder, tmp_path / "place", again.clock(1), 1, silent, again.start)


def test_the_plan_is_balanced_and_its_settings_stand(esc10: Path, tmp_path: Path) -> None:
    weights = tmp_path / "yamnet.npz"
    weights.touch()  # read only when a cell is trained
    study = plan_study("cpu", esc10, weights, silent)
    cells = study.cells(tmp_path)
    methods = [[name for subject in rank for name in subject.named()] for rank in OF_YAMNET]
    assert [cell.method for cell in cells[: 2 * len(methods[0])]] == 2 * methods[0]
    assert [cell.part for cell in cells[: 2 * len(methods[0])]] == [
        fold for fold in ("fold1", "fold2") for _ in methods[0]
    ]
    assert len(cells) == 3 * 5 * sum(map(len, methods))
    for cell in {cell.method: cell for cell in cells}.values():
        check_names(cell.config, int8=True)
        check_cut(cell.config)
    assert {cell.config.training.compile for cell in cells} == {"off"}
    assert set(study.references.values()) <= {cell.method for cell in cells}
    assert len({study.digest(cell) for cell in cells}) == len(cells)
    elsewhere = {study.digest(cell) for cell in study.cells(tmp_path / "elsewhere")}
    assert elsewhere == {study.digest(cell) for cell in cells}


def _held(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "study.json").read_text())
    for cell in held["cells"].values():
        assert cell.pop("seconds") is not None
    return held

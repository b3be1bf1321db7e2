"""Classes that were left out of training, and how well the scores of the students tell them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgekd.config import DistillConfig
from edgekd.data.load import load_index
from edgekd.errors import InputError, UsageError
from edgekd.experiments.compare import compare, write_tables
from edgekd.experiments.plan import without_each
from edgekd.experiments.unknown import FILE, is_measured, left_out_clips, measure_unknown, read_trials, results_of
from edgekd.exporting.known import KnownScore
from edgekd.report.terminal import print_comparison
from edgekd.runs.run import Run
from edgekd.scoring.familiarity import Gaussians, auroc
from edgekd.training.distill import distill
from tests.experiments.made import Made

TinyConfig = Callable[..., DistillConfig]


@pytest.fixture(scope="module")
def without_cargo(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = tiny_config(
        tmp_path_factory.mktemp("without") / "cargo",
        data={"leave_out": ("cargo",)},
        loss={"terms": ("classification",), "weighting": "fixed"},
        training={"epochs": 2},
    )
    run = distill(config)
    measure_unknown(run)
    return run


def test_a_class_that_is_left_out_is_neither_learned_nor_tested(without_cargo: Run) -> None:
    data = without_cargo.open_data()
    assert "cargo" not in without_cargo.classes and len(without_cargo.classes) == 4
    whole = load_index(without_cargo.config.data.model_copy(update={"leave_out": ()}))
    assert [whole.classes[clip.label] for clip in whole if whole.classes[clip.label] != "cargo"] == [
        data.index.classes[clip.label] for clip in data.index
    ]


def test_its_clips_test_what_is_unknown(without_cargo: Run) -> None:
    data = without_cargo.open_data()
    unknown = left_out_clips(without_cargo, data)
    assert {unknown.index.classes[clip.label] for clip in unknown.index} == {"cargo"}
    assert not {clip.group for clip in unknown.index} & {clip.group for clip in data.index}
    trials = read_trials(without_cargo, "student")
    assert list(trials) == ["softmax", "energy", "mahalanobis"]
    assert len(trials["energy"].unknown) == len(unknown.index) == 15
    assert list(trials["energy"].known_groups) == list(data.side("test").groups)


def test_scores_are_those_of_the_student(without_cargo: Run) -> None:
    data, student = without_cargo.open_data(), without_cargo.student()
    student.give_embedding()
    test, train = (student(data.waveforms(rows)) for rows in (data.split.test, data.split.train))
    trials = read_trials(without_cargo, "student")
    np.testing.assert_allclose(
        trials["energy"].known, np.logaddexp.reduce(test.logits.detach().numpy(), axis=1), atol=1e-4
    )
    near = Gaussians.fit(train.embedding.detach().numpy(), data.side("train").labels, 4)
    expected = KnownScore("mahalanobis", near).of(test.logits, test.logits, test.embedding).detach().numpy()
    np.testing.assert_allclose(trials["mahalanobis"].known, expected, rtol=1e-2, atol=0.05 * np.ptp(expected))


def test_figures_are_of_each_class_and_of_all(without_cargo: Run) -> None:
    trials = read_trials(without_cargo, "student")
    overall, *_, last = results_of("labels", "student", {"cargo": [trials], "tug": [trials]})
    one = trials["softmax"]
    assert (overall.left_out, overall.cells, overall.score) == (None, 2, "softmax")
    assert overall.told.auroc == pytest.approx(auroc(one.known, one.unknown))
    assert (last.left_out, last.cells, last.score) == ("tug", 1, "mahalanobis")


def test_a_damaged_table_is_told_of(without_cargo: Run, tmp_path: Path) -> None:
    import shutil

    run = Run.open(shutil.copytree(without_cargo.folder, tmp_path / "copy"))
    text = (run.folder / FILE).read_text()
    assert is_measured(run, quantize=False) and not is_measured(run, quantize=True)
    number = text.splitlines()[1].rsplit(",", 1)[1]
    (run.folder / FILE).write_text(text.replace(number, "x"))
    with pytest.raises(InputError, match="damaged"):
        read_trials(run, "student")
    (run.folder / FILE).write_text("a,b\n")
    with pytest.raises(InputError, match="not the columns"):
        is_measured(run, quantize=False)


def test_a_grid_leaves_out_each_class_in_turn(
    tiny_config: TinyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made()
    rng = np.random.default_rng(0)

    def measured(run: Run) -> None:
        lines = ["subject,set,path,start,group,class,softmax,energy,mahalanobis"]
        for name, high in (("validation", 2), ("test", 2), ("unknown", 0)):
            for clip in range(12):
                value = rng.normal(high, 1)
                lines.append(f"student,{name},a.wav,0,{name} {clip % 4},c,{value},{value},")
        (run.folder / FILE).write_text("\n".join(lines) + "\n")

    made.at_end = lambda job: measured(Run.open(job.config.out))
    run_grid = partial(
        compare,
        tiny_config(tmp_path / "grid"),
        ["labels"],
        seeds=[0],
        leave_out=["cargo", "tug"],
        start=made.start,
        write=write_tables,
    )
    found = run_grid()
    assert made.order == ["labels/split0-without-cargo-seed0", "labels/split0-without-tug-seed0"]
    assert [job.config.data.leave_out for job in made.jobs] == [("cargo",), ("tug",)]
    told = {(result.left_out, result.score): result.told.auroc for result in found.unknown}
    assert list(told) == [(left, score) for left in (None, "cargo", "tug") for score in ("softmax", "energy")]
    assert min(told.values()) > 0.7
    rows = (tmp_path / "grid" / "unknown.csv").read_text().splitlines()
    assert rows[0].startswith("method,subject,score,left_out,cells,auroc,auroc_low,auroc_high,false_alarms")
    assert len(rows) == 7
    stored = json.loads((tmp_path / "grid" / "comparison.json").read_text())
    assert stored["version"] == 2 and len(stored["unknown"]) == 6
    print_comparison(found)
    assert "each, labels" in capsys.readouterr().out
    (Path(found.cells[0].run) / FILE).unlink()
    made.jobs.clear()
    run_grid()
    assert made.order == ["labels/split0-without-cargo-seed0"], "what was not measured is gone back to, alone"


def test_names_of_classes_are_made_names_of_folders() -> None:
    parts = without_each({"fold1": {"data": {"fold": 1}}}, ["dog", "car/horn", "car horn"], [])
    assert next(iter(parts)) == "fold1-without-dog"
    assert len(parts) == 3 and not any(set("/ ") & set(name) for name in parts)
    assert parts["fold1-without-dog"] == {"data": {"fold": 1, "leave_out": ["dog"]}}


def test_a_class_that_is_not_there_is_named(tiny_config: TinyConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class to leave out"):
        compare(tiny_config(tmp_path / "grid"), ["labels"], leave_out=["carog"])
    with pytest.raises(UsageError, match="not two classes left"):
        load_index(tiny_config(tmp_path / "grid", data={"leave_out": ("cargo", "tug", "passengership", "tanker")}).data)

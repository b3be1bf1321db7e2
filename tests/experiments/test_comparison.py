"""What comes out of a grid, of runs that are made up in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgekd.config import DistillConfig
from edgekd.experiments.compare import compare, write_comparison, write_tables
from edgekd.experiments.comparison import Comparison
from edgekd.report.terminal import print_comparison
from tests.experiments.made import Made

TinyConfig = Callable[..., DistillConfig]
METHODS = ["labels", "kd"]


@pytest.fixture(scope="module")
def found(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    config = tiny_config(tmp_path_factory.mktemp("comparison") / "grid")
    return compare(config, METHODS, splits=2, seeds=[0, 1], quantize=True, start=Made().start, write=write_tables)


def accuracies(found: Comparison, method: str, figure: str = "measure") -> dict[tuple[str, int], float]:
    return {(cell.part, cell.seed): getattr(cell, figure) for cell in found.cells if cell.method == method}


def test_means_are_over_cells_and_deviations_over_seeds_and_cells(found: Comparison) -> None:
    for result in found.methods:
        each = accuracies(found, result.method)
        by_seed = [np.mean([each[part, seed] for part in ("split0", "split1")]) for seed in (0, 1)]
        assert result.measure is not None
        assert result.measure.mean == pytest.approx(np.mean(list(each.values())))
        assert result.measure.over_seeds == pytest.approx(np.std(by_seed, ddof=1))
        assert result.measure.over_cells == pytest.approx(np.std(list(each.values()), ddof=1))
    labels, kd = found.methods
    assert labels.difference is None
    assert kd.difference is not None
    assert labels.measure is not None
    assert kd.measure is not None
    assert kd.difference.accuracy == pytest.approx(kd.measure.mean - labels.measure.mean, abs=1e-6)


def test_int8_is_compared_with_the_float_student_it_comes_from(found: Comparison) -> None:
    for result in found.methods:
        floats, int8 = (accuracies(found, result.method, figure) for figure in ("measure", "int8_measure"))
        assert result.int8_difference is not None
        expected = np.mean(list(int8.values())) - np.mean(list(floats.values()))
        assert result.int8_difference.accuracy == pytest.approx(expected, abs=1e-6)
        assert result.int8_difference.only_first == 0


def test_a_method_that_recordings_cannot_tell_from_the_first_is_said_to_be(
    found: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    (difference,) = [result.difference for result in found.methods if result.difference is not None]
    assert difference.recordings is not None
    said = f"kd: {difference.recordings} recordings in 4 runs are too few to tell less than 25.0 points of accuracy"
    for accuracy, expected in ((0.0, True), (0.3, False)):
        shown = replace(difference, accuracy=accuracy, accuracy_interval=(accuracy - 0.2, accuracy + 0.25))
        methods = tuple(
            replace(result, difference=None if result.difference is None else shown) for result in found.methods
        )
        print_comparison(replace(found, methods=methods))
        assert (said in capsys.readouterr().out) == expected


def test_the_folder_holds_the_result_in_every_form(found: Comparison) -> None:
    folder = found.folder
    write_comparison(found)
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

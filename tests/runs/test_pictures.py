"""The pictures are real PNGs that show what they are given, and nothing global or half-written is left."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import pyplot
from PIL import Image

from edgekd.errors import InputError
from edgekd.runs.pictures import plot_comparison, plot_confusion, plot_curves, plot_spectrograms

HEADER = "stage,epoch,seconds,learning_rate,total,classification,structural,weight_classification,weight_structural,"
HEADER += "validation_loss,validation_accuracy\n"
TEACHER = "teacher,1,2.0,0.001,2.1,2.1,,,,1.9,0.4\nteacher,2,2.0,0.0005,1.1,1.1,,,,0.9,0.7\n"
STUDENT = "student,1,9.0,0.001,2.9,2.0,0.9,1,1,1.9,0.3\nstudent,2,9.0,0.0005,-0.4,0.9,0.0,1.2,2.5,1.1,0.6\n"


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def draw(folder: Path, text: str, name: str = "curves.png") -> npt.NDArray[np.uint8]:
    (folder / "metrics.csv").write_text(text)
    plot_curves(folder / "metrics.csv", folder / name)
    return pixels(folder / name)


def test_each_stage_has_its_column_of_curves(tmp_path: Path) -> None:
    one = draw(tmp_path, HEADER + TEACHER)
    two = draw(tmp_path, HEADER + TEACHER + STUDENT)
    assert two.shape[1] > one.shape[1] * 1.3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_a_loss_term_the_package_does_not_know_is_drawn_too(tmp_path: Path) -> None:
    known = draw(tmp_path, HEADER + STUDENT)
    header, first, second = (HEADER + STUDENT).splitlines()
    extra = "\n".join([header + ",contrastive", first + ",0.5", second + ",0.4"])
    drawn = draw(tmp_path, extra)
    assert drawn.shape != known.shape or (drawn != known).any()


def test_a_first_epoch_and_an_epoch_without_validation_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path, HEADER + "student,1,9.0,0.001,2.9,2.0,0.9,1,1,,\n")


@pytest.mark.parametrize("text", [None, HEADER])
def test_metrics_without_an_epoch_are_an_input_error_that_names_the_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.csv"):
        plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("classes", [2, 30])
def test_confusions_stand_side_by_side(tmp_path: Path, classes: int) -> None:
    names = [f"a rather long class name {i}" for i in range(classes)]
    flawless = np.diag(np.full(classes, 8))
    plot_confusion({"student": flawless}, names, tmp_path / "one.png")
    plot_confusion({"student": flawless, "int8": flawless}, names, tmp_path / "two.png")
    assert pixels(tmp_path / "two.png").shape[1] > pixels(tmp_path / "one.png").shape[1] * 1.3


def test_an_error_shows_against_a_flawless_matrix(tmp_path: Path) -> None:
    clips = np.diag([100, 100, 100])
    plot_confusion({"a": clips}, ["x", "y", "z"], tmp_path / "right.png")
    clips[0] = [98, 2, 0]
    plot_confusion({"a": clips}, ["x", "y", "z"], tmp_path / "wrong.png")
    right, wrong = pixels(tmp_path / "right.png").astype(int), pixels(tmp_path / "wrong.png").astype(int)
    assert right.shape == wrong.shape
    assert (np.abs(right - wrong).sum(axis=2) > 20).sum() > 1000  # a cell's worth of pixels


def test_a_class_without_clips_is_drawn_empty(tmp_path: Path) -> None:
    plot_confusion({"a": [[3, 0], [0, 0]]}, ["x", "y"], tmp_path / "confusion.png")


def test_a_dollar_in_a_name_opens_no_formula(tmp_path: Path) -> None:
    hard = r"$\frac$"
    plot_confusion({"a": [[3, 0], [0, 1]]}, [hard, "a$b^{$c\n$"], tmp_path / "confusion.png")
    plot_comparison({hard: [0.8], "kd": [0.7]}, {}, {"kd": (-0.1, (-0.2, 0.0))}, {hard: 0.9}, hard, tmp_path / "c.png")
    spectrogram = np.zeros((8, 4), dtype=np.float32)
    frequencies = np.array([50, 100, 200, 400], dtype=np.float32)
    plot_spectrograms({hard: spectrogram}, frequencies, 0.01, tmp_path / "spectrograms.png")
    for name in ("confusion.png", "c.png", "spectrograms.png"):
        assert pixels(tmp_path / name).any()


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    settings, figures = dict(matplotlib.rcParams), pyplot.get_fignums()
    plot_confusion({"a": [[1, 0], [0, 1]]}, ["x", "y"], tmp_path / "confusion.png")
    pixels(tmp_path / "confusion.png")
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == (settings, figures)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_spectrograms_are_drawn_for_any_number_of_classes(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    spectrograms = {f"class {number}": rng.normal(-40, 10, (30, 16)).astype(np.float32) for number in range(count)}
    plot_spectrograms(spectrograms, np.geomspace(60, 3900, 16).astype(np.float32), 0.01, tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 1000

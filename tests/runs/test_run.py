from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd import __version__
from edgekd.config import DistillConfig
from edgekd.errors import InputError, UsageError
from edgekd.runs.run import Run, check_folder

CLASSES = ("cargo", "tug")
SCORES: dict[str, Any] = {
    "classes": list(CLASSES),
    "clips": 4,
    "groups": 2,
    "accuracy": 0.5,
    "accuracy_interval": [0.25, 0.75],
    "macro_f1": 0.5,
    "macro_f1_interval": [0.25, 0.75],
    "recall": [0.5, None],
    "confusion": [[2, 2], [0, 0]],
    "calibration_error": 0.1,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(DistillConfig(out=tmp_path / "run"), CLASSES, "cpu")


# config.toml


def test_a_run_reads_back_the_configuration_it_was_made_with(tmp_path: Path) -> None:
    config = DistillConfig.model_validate(
        {
            "out": tmp_path / "run",
            "seed": 7,
            "student": "hltdnn",
            "data": {
                "data_dir": tmp_path / 'odd "name" \\ with \t and 船',
                "split": (0.6, 0.15, 0.25),
                "simulation": {"snr_db": (-3.5, 1e-3)},
            },
            "teacher": {"name": "yamnet", "weights": "weights/a 'b'.npz"},
            "loss": {"terms": ("classification", "structural")},
            "training": {"learning_rate": 1.25e-5},
        }
    )
    Run.create(config, ("a", 'b"\n'), "cpu")
    opened = Run.open(tmp_path / "run")
    assert opened.config == config
    assert opened.classes == ("a", 'b"\n')


def test_a_run_made_before_there_were_widths_opens_as_it_was(tmp_path: Path) -> None:
    config = DistillConfig(out=tmp_path / "run")
    Run.create(config, ("a", "b"), "cpu")
    file = tmp_path / "run" / "config.toml"
    text = file.read_text()
    assert "\nwidth = 1.0\n" in text
    file.write_text(text.replace("\nwidth = 1.0\n", "\n"))
    assert Run.open(tmp_path / "run").config == config
    check_folder(config, resume=True, overwrite=False)  # the same settings: it may go on
    with pytest.raises(UsageError, match=r"these differ: width\."):
        check_folder(config.model_copy(update={"width": 0.5}), resume=True, overwrite=False)


def test_a_weight_that_is_left_out_is_another_setting(tmp_path: Path) -> None:
    config = DistillConfig.model_validate({"out": tmp_path / "run", "loss": {"weights": {"structural": 2.0}}})
    Run.create(config, ("a", "b"), "cpu")
    check_folder(config, resume=True, overwrite=False)
    with pytest.raises(UsageError, match=r"these differ: loss\.weights\.structural\."):
        check_folder(DistillConfig(out=tmp_path / "run"), resume=True, overwrite=False)


def test_a_run_folder_can_be_moved(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    run.folder.rename(moved)
    assert Run.open(moved).config == run.config.model_copy(update={"out": moved})


def test_the_environment_says_what_the_run_was_made_with(run: Run) -> None:
    import torch

    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["edgekd"] == __version__
    assert torch.__version__.partition("+")[0] == environment["packages"]["torch"].partition("+")[0]
    assert (environment["device"], environment["seed"]) == ("cpu", 0)
    assert {"python", "platform", "git_revision", "command"} <= set(environment)


# Folders that are no run


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such run folder\. 'edgekd distill --out"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a run folder of 'edgekd distill' \(no config\.toml in it\)"):
        Run.open(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(InputError, match=r"no classes\.json in it"):
        Run.open(tmp_path)
    (tmp_path / "classes.json").write_text('["cargo", ')
    with pytest.raises(InputError, match=r"classes\.json: cannot be read as JSON"):
        Run.open(tmp_path)


def test_a_configuration_spoilt_by_hand_names_the_file_and_the_key(run: Run) -> None:
    path = run.folder / "config.toml"
    path.write_text(path.read_text() + "\n[colour]\n")
    with pytest.raises(InputError, match=r"config\.toml: unknown key 'colour'"):
        Run.open(run.folder)


# check_folder


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    check_folder(DistillConfig(out=tmp_path / "new"), resume=False, overwrite=False)
    check_folder(DistillConfig(out=tmp_path), resume=False, overwrite=False)
    check_folder(DistillConfig(out=tmp_path), resume=False, overwrite=True)
    assert tmp_path.is_dir()


def test_an_existing_run_is_refused_with_the_ways_on(run: Run) -> None:
    with pytest.raises(UsageError, match=r"exists already\. Go on with it \(--resume\), replace it \(--overwrite\)"):
        check_folder(run.config, resume=False, overwrite=False)
    assert (run.folder / "config.toml").is_file()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="out"):
            check_folder(DistillConfig(out=path), resume=False, overwrite=overwrite)
    assert path.read_text() == "precious"


def test_overwriting_removes_a_run_and_nothing_else(run: Run, tmp_path: Path) -> None:
    (run.folder / "metrics.csv").write_text("of the older run")
    check_folder(run.config, resume=False, overwrite=True)
    with Run.beginning(run.config, run.classes, "cpu") as begun:
        new = begun.begun()
    assert (run.folder / "metrics.csv").is_file()  # given up only when the new run is whole
    assert new.folder != run.folder
    assert new.take_place().folder == run.folder
    assert not (run.folder / "metrics.csv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not a run folder, so it is not overwritten"):
        check_folder(DistillConfig(out=tmp_path), resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        check_folder(DistillConfig(out=tmp_path / "new"), resume=True, overwrite=False)


def test_resuming_may_not_change_the_settings(run: Run) -> None:
    check_folder(run.config, resume=True, overwrite=False)
    changed = DistillConfig.model_validate({"out": run.folder, "seed": 9, "training": {"epochs": 3}})
    with pytest.raises(UsageError, match=r"these differ: seed, training\.epochs\. Leave them out"):
        check_folder(changed, resume=True, overwrite=False)


# report.json


def test_reports_merge_into_their_section(run: Run) -> None:
    assert run.report() == {"version": 1}
    run.update_report("test", {"teacher": {**SCORES, "accuracy": 0.9}})
    run.update_report("training", {"teacher": {"seconds": 1.0}})
    run.update_report("test", {"student": {**SCORES, "accuracy": 0.8}})
    run.update_report("test", {"teacher": {**SCORES, "accuracy": 0.95}})
    expected: dict[str, Any] = {
        "version": 1,
        "test": {"teacher": {**SCORES, "accuracy": 0.95}, "student": {**SCORES, "accuracy": 0.8}},
        "training": {"teacher": {"seconds": 1.0}},
    }
    assert run.report() == expected
    assert json.loads((run.folder / "report.json").read_text()) == expected


def test_an_entry_can_be_taken_out_of_a_report(run: Run) -> None:
    run.forget("test", "int8")
    assert run.report() == {"version": 1}
    run.update_report("test", {"student": {**SCORES, "accuracy": 0.8}, "int8": {**SCORES, "accuracy": 0.7}})
    run.forget("test", "int8")
    run.forget("test", "int8")
    assert run.report() == {"version": 1, "test": {"student": {**SCORES, "accuracy": 0.8}}}


def test_a_damaged_report_is_named(run: Run) -> None:
    (run.folder / "report.json").write_text("{")
    with pytest.raises(InputError, match=r"report\.json: cannot be read as JSON"):
        run.report()


# Unfinished runs


def test_an_unfinished_run_says_how_far_it_came_and_how_to_finish_it(run: Run) -> None:
    with pytest.raises(
        InputError, match=r"interrupted, before the student\. Wait for it, or finish it: edgekd distill --out "
    ):
        run.student()
    run.metrics().append("student", 1, total=1.0)
    run.metrics().append("student", 2, total=1.0)
    with pytest.raises(InputError, match=r"interrupted, after epoch 2 of 60 of the student\. .* --resume"):
        run.require_student()
    run.update_report("test", {"student": SCORES})
    run.require_student()


def test_a_finished_student_whose_weights_are_gone_is_an_input_error(run: Run) -> None:
    run.update_report("test", {"student": SCORES})
    with pytest.raises(InputError, match=r"student/best\.safetensors: no such weights file"):
        run.student()


def test_a_run_without_a_teacher_has_none(run: Run) -> None:
    assert run.teacher() is None


# On a whole run


def test_a_finished_run_gives_back_what_it_was_trained_on(tiny_run: Run, tiny_config: Callable[..., Any]) -> None:
    run = Run.open(tiny_run.folder)
    assert run.config == tiny_config(tiny_run.folder)
    assert run.classes == ("background", "cargo", "passengership", "tanker", "tug")
    data = run.open_data()
    index = data.index
    split = data.split
    assert len(index) == len(split.train) + len(split.validation) + len(split.test) == 75
    assert len(data.store) == 75
    teacher = run.teacher()
    assert teacher is not None
    assert not run.student().training
    assert not teacher.training


def test_data_that_changed_its_classes_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert tiny_run.config.data.data_dir is not None
    shutil.copytree(tiny_run.config.data.data_dir, data)
    (data / "tug").rename(data / "tugboat")
    moved = tiny_run.config.data.model_copy(update={"data_dir": data})
    run = Run(tiny_run.folder, tiny_run.config.model_copy(update={"data": moved}), tiny_run.classes)
    with pytest.raises(InputError, match=r"now has classes .*tugboat; the run was trained on .*tug"):
        run.open_data()

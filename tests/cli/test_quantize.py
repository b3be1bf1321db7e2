from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from edgekd.progress import ConsoleProgress
from edgekd.runs.run import Run


class Killed(BaseException):
    """Ends a stage as a kill would: nothing after it is run."""


def kill_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let training be killed once `epoch` of a stage is saved."""

    def die(_: ConsoleProgress, stage: str, done: int, total: int, /, **figures: float | str) -> None:
        if stage == "int8" and done == epoch and figures:
            raise Killed

    monkeypatch.setattr(ConsoleProgress, "__call__", die)


def test_other_settings_make_another_int8_student(edgekd: Callable, run: Path) -> None:
    recipe = run.parent / "mine.toml"
    recipe.write_text('clips = 4\nselection = "random"\nobserver = "absmax"\npercentile = 99.0\n')
    before = (run / "int8" / "best.safetensors").read_bytes()
    done = edgekd("quantize", run, "--recipe", recipe, "--epochs", "2", "--frozen-epochs", "1", "--quiet", "--json")
    assert set(done.json()["test"]) == {"student", "int8"}
    assert (run / "int8" / "best.safetensors").read_bytes() != before
    settings = tomllib.loads((run / "int8" / "quantize.toml").read_text())
    assert (settings["recipe"], settings["epochs"], settings["frozen_epochs"]) == (str(recipe), 2, 1)


def test_a_plan_shows_the_settings_and_changes_nothing(edgekd: Callable, run: Path) -> None:
    before = (run / "int8" / "best.safetensors").stat().st_mtime_ns
    plan = tomllib.loads(edgekd("quantize", run, "--epochs", "7", "--dry-run").out)
    assert (plan["epochs"], plan["frozen_epochs"], plan["recipe"]) == (7, 0, "default")
    assert (run / "int8" / "best.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "defalt"], "Unknown calibration recipe 'defalt'. Did you mean 'default'?"),
        (["--recipe", "nowhere.toml"], "nowhere.toml: no such configuration file."),
        (["--epochs", "0"], "epochs = 0: input should be greater than or equal to 1"),
        (["--epochs", "2", "--frozen-epochs", "2"], "frozen_epochs (2) must be below epochs (2)"),
        (["--keep-float", "stem"], "Unknown layer 'stem'. Did you mean 'stem.0'?"),
        (["--ptq", "--epochs", "3"], "--ptq trains nothing: leave out --epochs."),
        (["--ptq", "--resume"], "--ptq trains nothing: leave out --resume."),
        (["--auto-mixed", "--keep-float", "stem.0"], "finds the layers itself, by trying: leave out --keep-float."),
        (["--auto-mixed", "--dry-run"], "finds the layers itself, by trying: leave out --dry-run."),
        (["--max-drop", "1"], "Without --auto-mixed no layer is chosen by its drop: leave out --max-drop."),
        (["--sensitivity", "--ptq", "--resume"], "--sensitivity only measures: leave out --ptq/--qat, --resume."),
    ],
)
def test_a_mistake_leaves_the_int8_student_there(edgekd: Callable, run: Path, flags: list[str], words: str) -> None:
    assert words in edgekd("quantize", run, *flags).refusal(2)
    assert (run / "int8" / "best.safetensors").is_file()


def test_a_wrong_key_in_a_recipe_is_named_with_the_nearest(edgekd: Callable, run: Path) -> None:
    recipe = run.parent / "mine.toml"
    recipe.write_text("clip = 4\n")
    line = edgekd("quantize", run, "--recipe", recipe).refusal(2)
    assert line.startswith(f"{recipe}: unknown key 'clip'. Did you mean 'clips'?")


def test_a_folder_that_is_no_run_is_refused(edgekd: Callable, tmp_path: Path) -> None:
    assert "no such run folder" in edgekd("quantize", tmp_path / "nowhere").refusal(3)
    assert "not a run folder of 'edgekd distill' (no config.toml in it)" in edgekd("quantize", tmp_path).refusal(3)


@pytest.mark.parametrize("command", [["quantize"], ["export", "--target", "cpu"], ["profile"]])
def test_a_run_without_a_finished_student_is_refused_with_the_next_command(
    edgekd: Callable, run: Path, command: list[str]
) -> None:
    (run / "report.json").unlink()
    shutil.rmtree(run / "int8")
    line = edgekd(command[0], run, *command[1:]).refusal(3)
    assert line.startswith(f"{run}: this run is at work or was interrupted, after epoch 1 of 1 of the student.")
    assert line.endswith(f"edgekd distill --out {run} --resume")


def test_an_int8_training_that_was_killed_is_not_taken_for_finished(
    edgekd: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        assert edgekd("quantize", run, "--epochs", "3", "--quiet").code == 3
    line = edgekd("export", run, "--target", "cpu").refusal(3)
    assert "was interrupted after epoch 1 of its int8 training" in line
    assert line.endswith(" --resume")
    assert "int8" not in Run.open(run).report()["test"]


def test_resuming_goes_on_with_the_settings_that_were_begun_with(
    edgekd: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        assert edgekd("quantize", run, "--epochs", "3", "--quiet").code == 3
    line = edgekd("quantize", run, "--resume", "--epochs", "4").refusal(2)
    assert line == "--resume goes on with the settings that were begun with: leave out --epochs."
    assert edgekd("quantize", run, "--resume", "--quiet").code == 0
    assert Run.open(run).metrics().last_epoch("int8") == 3


def test_there_is_nothing_to_resume_where_nothing_was_begun(edgekd: Callable, run: Path) -> None:
    shutil.rmtree(run / "int8")
    line = edgekd("quantize", run, "--resume").refusal(3)
    assert line == f"{run}: no int8 training was begun here. Leave --resume out to begin one."


def test_calibration_alone_makes_an_int8_student_that_exports(edgekd: Callable, run: Path) -> None:
    shutil.rmtree(run / "int8")
    report = edgekd("quantize", run, "--ptq", "--recipe", "fast", "--keep-float", "stem.0", "--quiet", "--json").json()
    assert report["training"]["int8"]["method"] == "ptq"
    settings = tomllib.loads((run / "int8" / "quantize.toml").read_text())
    assert (settings["method"], settings["recipe"], settings["keep_float"]) == ("ptq", "fast", ["stem.0"])
    assert Run.open(run).metrics().last_epoch("int8") == 0
    shown = edgekd("quantize", run, "--resume", "--quiet")
    assert shown.code == 0
    assert "int8 student" in shown.out


def test_a_run_may_say_itself_that_it_is_not_trained(edgekd: Callable, run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace('method = "qat"', 'method = "ptq"'))
    assert tomllib.loads(edgekd("quantize", run, "--dry-run").out)["method"] == "ptq"
    assert tomllib.loads(edgekd("quantize", run, "--qat", "--epochs", "3", "--dry-run").out)["method"] == "qat"
    line = edgekd("quantize", run, "--epochs", "3").refusal(2)
    assert line == "The settings of this run say not to train (quantize.method): leave out --epochs."


def test_sensitivity_is_a_table_and_leaves_the_int8_student_alone(edgekd: Callable, run: Path) -> None:
    before = (run / "int8" / "best.safetensors").stat().st_mtime_ns
    shown = edgekd("quantize", run, "--sensitivity", "--recipe", "fast", "--quiet")
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines() if not line.startswith("Written: ")), shown.out
    assert "blocks.2.1.0" in shown.out
    assert "classifier" in shown.out
    stored = json.loads((run / "int8-sensitivity.json").read_text())
    assert len(stored["layers"]) == 14
    assert (run / "int8-sensitivity.png").is_file()
    assert (run / "int8" / "best.safetensors").stat().st_mtime_ns == before
    printed = edgekd("quantize", run, "--sensitivity", "--recipe", "fast", "--quiet", "--json").json()
    assert printed.pop("run") == str(run)
    assert printed == stored


def test_layers_chosen_for_their_drop_are_told_and_stored(
    edgekd: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.quantization.sensitivity import Loss

    bench = sys.modules["edgekd.quantization.sensitivity"]._Bench
    measured = bench.loss
    wanted = {"stem.0", "expand.0"}

    def loss(self: object, keep_float: Collection[str]) -> Loss:
        return Loss(2.5 * len(wanted - set(keep_float)), measured(self, keep_float).sqnr_db)

    monkeypatch.setattr(bench, "loss", loss)
    shown = edgekd("quantize", run, "--auto-mixed", "--ptq", "--quiet")
    assert shown.code == 0
    assert "All in int8: 5.00 points lost" in shown.out
    assert "at most 0.5 may be lost" in shown.out
    settings = tomllib.loads((run / "int8" / "quantize.toml").read_text())
    assert set(settings["keep_float"]) == wanted
    for layer in wanted:
        assert f"{layer} left in float: " in shown.out
    kept = edgekd("quantize", run, "--auto-mixed", "--max-drop", "5", "--ptq", "--quiet", "--json").json()["auto_mixed"]
    assert (kept["keep_float"], kept["max_drop"], kept["steps"]) == ([], 5.0, [])

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.cli import options
from edgekd.config import DistillConfig, parse
from edgekd.errors import UsageError

TAUGHT_BY_CONVNET = ("--teacher", "convnet", "--adaptation", "full")


def test_a_file_is_under_the_environment_under_flags_under_set(
    edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("seed = 1\n[training]\nepochs = 1\nbatch_size = 3\n[data]\nfold = 2\nsplit_seed = 7\n")

    def resolved(*flags: str) -> tuple[int, ...]:
        values = tomllib.loads(edgekd("distill", "--config", str(file), "--dry-run", *flags).out)
        training, data = values["training"], values["data"]
        return values["seed"], training["epochs"], training["batch_size"], data["fold"], data["split_seed"]

    assert resolved() == (1, 1, 3, 2, 7)
    monkeypatch.setenv("EDGEKD_EPOCHS", "20")
    monkeypatch.setenv("EDGEKD_BATCH_SIZE", "20")
    monkeypatch.setenv("EDGEKD_FOLD", "4")
    assert resolved() == (1, 20, 20, 4, 7)
    assert resolved("--epochs", "30", "--fold", "5") == (1, 30, 20, 5, 7)
    assert resolved("--epochs", "30", "--set", "training.epochs=40") == (1, 40, 20, 4, 7)


def test_the_file_itself_can_come_from_the_environment(
    edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text("seed = 11\n")
    monkeypatch.setenv("EDGEKD_CONFIG", str(tmp_path / "run.toml"))
    assert tomllib.loads(edgekd("distill", "--dry-run").out)["seed"] == 11


def test_a_plan_that_was_printed_can_be_read_back(edgekd: Callable, tmp_path: Path) -> None:
    flags = [
        *("--dataset", "esc10", "--data-dir", 'a "quoted" folder/häfen', "--fold", "3"),
        *("--terms", "classification, distillation", "--learning-rate", "1e-05", "--out", "runs/x", "--seed", "9"),
        *("--set", "data.split=[0.5, 0.25, 0.25]", "--set", "augment.time_shift=false", "--set", "data.val_fold=4"),
        *("--set", "loss.distillation=emd", "--teacher-weights", "w.pth", "--width", "0.75"),
    ]
    plan = edgekd("distill", *flags, "--dry-run")
    assert (plan.code, plan.err) == (0, "")
    values = tomllib.loads(plan.out)
    config = parse(DistillConfig, values, "plan")
    assert config.data.data_dir == Path('a "quoted" folder/häfen').absolute()
    assert (config.data.fold, config.data.val_fold, config.data.split) == (3, 4, (0.5, 0.25, 0.25))
    assert (config.loss.terms, config.loss.distillation) == (("classification", "distillation"), "emd")
    assert (config.training.learning_rate, config.augment.time_shift, config.seed) == (1e-5, False, 9)
    assert (config.student, config.width) == ("hltdnn_ds", 0.75)
    (tmp_path / "plan.toml").write_text(plan.out)
    assert edgekd("distill", "--config", tmp_path / "plan.toml", "--dry-run") == plan


def test_a_plan_says_what_follows_from_the_rate_and_forgets_what_was_said_before(
    edgekd: Callable, tmp_path: Path
) -> None:
    (tmp_path / "low.toml").write_text("[data]\nsample_rate = 8000\n[frontend]\nn_fft = 1024\nhop_length = 320\n")
    low = ["--config", tmp_path / "low.toml"]
    plan = edgekd("distill", "--dataset", "sonar_sim", "--dry-run", *low)
    told = (
        "# The front end at 8000 Hz: windows of 1024 samples (n_fft 1024) every 320, 50 to 4000 Hz; a clip is 126 x 64"
    )
    assert plan.out.startswith(told)
    ms = ["--set", "frontend.window_ms=32", "--set", "frontend.hop_ms=20"]
    plan = edgekd("distill", "--dataset", "sonar_sim", "--dry-run", *low, *ms)
    assert "windows of 256 samples (n_fft 256) every 160" in plan.out


def test_a_preset_is_put_over_a_file_and_flags_over_it(edgekd: Callable, tmp_path: Path) -> None:
    (tmp_path / "low.toml").write_text("[data]\nsample_rate = 8000\n[frontend]\nn_fft = 1024\nf_max = 3000\n")
    asked = ["distill", "--dataset", "sonar_sim", "--dry-run", "--config", tmp_path / "low.toml"]
    preset = [*asked, "--frontend-preset", "16k-20ms-40"]
    assert "at 16000 Hz: windows of 512 samples (n_fft 512) every 320, 50 to 8000 Hz" in edgekd(*preset).out
    assert "a clip is 251 x 40" in edgekd(*preset).out
    assert (
        "at 32000 Hz: windows of 1024 samples (n_fft 1024) every 640" in edgekd(*preset, "--sample-rate", "32000").out
    )
    finer = edgekd(*preset, "--set", "frontend.hop_length=128", "--set", "frontend.n_mels=48").out
    assert "every 128" in finer
    assert "a clip is 626 x 48" in finer
    assert "Did you mean '16k-20ms-40'?" in edgekd(*asked, "--frontend-preset", "16k-20ms-4").refusal(2)


def test_a_cut_student_keeps_the_front_end_of_its_teacher(edgekd: Callable) -> None:
    asked = ("distill", "--dataset", "sonar_sim", "--teacher", "yamnet", "--dry-run", "--frontend-preset", "16k")
    assert 'student = "hltdnn' in edgekd(*asked).out, "another student is taken where none is named"


def test_a_plan_makes_nothing(edgekd: Callable, tmp_path: Path) -> None:
    edgekd("distill", "--dataset", "sonar_sim", "--out", tmp_path / "run", "--dry-run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "esc5"], "Unknown data set 'esc5'. Did you mean 'esc50'?"),
        (["--teacher", "yamnt"], "Unknown teacher 'yamnt'. Did you mean 'yamnet'?"),
        (
            ["--teacher", "no_module_of_mine:make"],
            "'no_module_of_mine:make': Unknown module 'no_module_of_mine'.",
        ),
        (["--student", "hltdn"], "Unknown student 'hltdn'. Did you mean 'hltdnn'?"),
        (
            ["--student", "no_module_of_mine:make"],
            "Student 'no_module_of_mine:make': Unknown module 'no_module_of_mine'.",
        ),
        (["--student", "hltdnn", "--width", "0.5"], "Student 'hltdnn' has one size: leave --width out, or take "),
        (["--width", "0.1"], "width = 0.1: input should be greater than or equal to 0.25"),
        (["--width", "5"], "width = 5.0: input should be less than or equal to 4"),
        (["--set", "width=nan"], "width = nan: input should be a finite number"),
        (["--recipe", "defalt"], "Unknown calibration recipe 'defalt'. Did you mean 'default'?"),
        (["--recipe", "nowhere.toml"], "nowhere.toml: no such configuration file."),
        (["--device", "gpu"], "device = 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        (["--adaptation", "heads"], "teacher.adaptation = 'heads': input should be 'head', 'full' or 'none'"),
        (["--terms", "classifcation"], "'classification' must be one of the terms"),
        (["--terms", "classification,structral"], "Unknown loss term 'structral'. Did you mean 'structural'?"),
        (["--set", "training.epoch=3"], "unknown key 'training.epoch'. Did you mean 'epochs'?"),
        (["--set", "trainin.epochs=3"], "unknown key 'trainin'. Did you mean 'training'?"),
        (["--set", "training.epochs=many"], "training.epochs = 'many': input should be a valid integer"),
        (["--set", "training.epochs"], "--set training.epochs: write it as KEY=VALUE, e.g. "),
        (["--set", "seed=1", "--set", "seed.x=1"], "--set seed.x: 'seed' is a setting, not a section."),
        (["--set", "data.split=[0.5, 0.5]"], "data.split"),
        (
            ["--sample-rate", "8000", "--set", "frontend.f_max=14000"],
            "frontend.f_max (14000 Hz) is above half of data.sample_rate (4000 Hz)",
        ),
        (["--config", "nowhere.toml"], "nowhere.toml: no such configuration file."),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_a_mistake_in_the_settings_is_told_before_anything_is_done(
    edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str, dry: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgekd("distill", "--dataset", "sonar_sim", *TAUGHT_BY_CONVNET, *flags, *(["--dry-run"] if dry else []))
    assert words in done.refusal(2)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_file_names_the_file(edgekd: Callable, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[training]\nepoch = 3\n")
    assert edgekd("distill", "--config", file, "--epochs", "3").refusal(2).startswith(f"{file}: unknown key 'training")
    file.write_text("seed = = 3\n")
    assert "run.toml: not valid TOML" in edgekd("distill", "--config", file).refusal(2)


def test_all_wrong_values_and_keys_are_told_at_once(edgekd: Callable) -> None:
    line = edgekd(
        *("distill", "--sample-rate", "100", "--epochs", "0", "--set", "sed=1", "--set", "loss.temperature=-1")
    ).refusal(2)
    for words in ("data.sample_rate = 100", "training.epochs = 0", "Did you mean 'seed'?", "loss.temperature = -1"):
        assert words in line


def test_all_wrong_names_are_told_at_once(edgekd: Callable) -> None:
    line = edgekd(
        *("distill", "--dataset", "esc5", "--teacher", "yamnt", "--student", "hltdn", "--recipe", "defalt"),
        *("--terms", "classification,distilation,structural"),
    ).refusal(2)
    for name in ("'esc50'", "'yamnet'", "'hltdnn'", "'default'", "'distillation'"):
        assert f"Did you mean {name}?" in line


def test_names_that_are_not_used_are_not_checked(edgekd: Callable) -> None:
    unused = ("--terms", "classification", "--teacher", "nobody", "--recipe", "none", "--no-quantize")
    assert edgekd("distill", *unused, "--dry-run").code == 0


def test_set_takes_toml_values_and_plain_words() -> None:
    config = options.resolve(
        None,
        {"seed": None, "data.fold": 2},
        ["loss.distillation=emd", "data.simulation.snr_db=[-3.0, 3]", "data.data_dir=a/b", "augment.time_shift=false"],
    )
    assert (config.seed, config.data.fold, config.loss.distillation) == (0, 2, "emd")
    assert (config.data.simulation.snr_db, config.data.data_dir) == ((-3.0, 3.0), Path("a/b").absolute())
    assert config.augment.time_shift is False


def test_an_assignment_makes_the_sections_it_needs() -> None:
    values: dict[str, object] = {}
    options.assign(values, "a.b.c", 1)
    options.assign(values, "a.d", 2)
    assert values == {"a": {"b": {"c": 1}, "d": 2}}
    with pytest.raises(UsageError, match=r"--set a\.d\.e: 'd' is a setting"):
        options.assign(values, "a.d.e", 3)


@pytest.mark.parametrize(
    ("ending", "exit_code", "said"),
    [("SIGTERM", 143, "Ended by SIGTERM. Go on."), ("SIGINT", 130, "Interrupted. Go on.")],
)
def test_what_ends_a_command_from_outside_is_told_in_one_line(ending: str, exit_code: int, said: str) -> None:
    code = (
        "import os, signal, typer\nfrom edgekd.cli import options\napp = typer.Typer()\n@app.command()\ndef wait():\n"
        "    with options.interruptible(lambda: 'Go on.'):\n"
        f"        os.kill(os.getpid(), signal.{ending})\n        signal.pause()\napp()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (exit_code, "", said)


def test_what_a_signal_does_afterwards_is_what_it_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with options.interruptible(lambda: ""):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_torchrun_makes_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (options.is_first_process(), options.processes()) == (True, 1)
    assert options.called("distill") == "edgekd distill"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    assert (options.is_first_process(), options.processes()) == (False, 4)
    assert options.called("distill") == "torchrun --nproc-per-node 2 --no-python edgekd distill"


def test_a_command_of_one_process_is_refused_under_torchrun(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "a run"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert "targets is done by one process: start it without torchrun" in edgekd("targets").refusal(2)

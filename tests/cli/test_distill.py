from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.models.weights import save_weights
from edgekd.runs.run import Run

RATE = 4_000
TEXTS = ("config.toml", "classes.json", "environment.json", "splits.csv", "metrics.csv", "report.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unfinished(folder: Path) -> list[Path]:
    """Files under a temporary name."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith((".tmp", ".partial"))]


# What comes out


def test_a_run_is_shown_as_a_table_and_the_next_command(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    done = quick("--data-dir", recordings, "--out", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("int8")]
    assert lines[-1].startswith(f"Next: edgekd export {tmp_path / 'run'} --target ")
    run = Run.open(tmp_path / "run")
    assert run.config.data.dataset is None, "the layout was recognised"
    assert set(run.report()["test"]) == {"student", "int8"}


def test_json_is_one_object_with_the_scores(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    found = quick("--data-dir", recordings, "--out", tmp_path / "run", "--json").json()
    assert found["run"] == str(tmp_path / "run")
    assert 0 <= found["test"]["int8"]["accuracy"] <= 1


def test_int8_can_be_left_out_and_made_up_for(
    quick: Callable, edgekd: Callable, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    found = quick("--data-dir", recordings, "--out", out, "--no-quantize", "--json").json()
    assert set(found["test"]) == {"student"}
    again = edgekd("distill", "--out", out, "--resume", "--quiet")
    assert again.out.splitlines()[-1] == f"Next: edgekd quantize {out}"
    assert not (out / "int8").exists()
    line = edgekd("export", out, "--target", "cpu").refusal(3)
    assert line == f"{out}: this run has no int8 student. First: edgekd quantize {out}"
    assert set(edgekd("quantize", out, "--json", "--quiet").json()["test"]) == {"student", "int8"}


# Data


def test_audio_without_labels_needs_a_teacher_and_is_in_the_settings(
    quick: Callable, edgekd: Callable, recordings: Path, tmp_path: Path
) -> None:
    line = quick("--data-dir", recordings, "--unlabelled", recordings, "--out", tmp_path / "run").refusal(2)
    assert line.startswith("--unlabelled: audio without labels teaches through a teacher's answers")
    assert not (tmp_path / "run").exists()
    more = ["--unlabelled", recordings, "--unlabelled", tmp_path]
    shown = edgekd("distill", "--data-dir", recordings, *more, "--teacher", "convnet", "--dry-run").out
    assert f'unlabelled = ["{recordings}", "{tmp_path}"]' in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "nowhere: no such folder. Check --data-dir."),
        ("empty", "empty: the folder is empty. Put the data set there, or check --data-dir."),
        ("file", "file: a file, where the folder of a data set is expected."),
        ("other", "other: no known layout: found audio/, notes.txt. Known: esc50: meta/esc50.csv and audio/;"),
    ],
)
def test_a_folder_without_the_data_is_named(quick: Callable, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "other" / "audio").mkdir(parents=True)
    (tmp_path / "other" / "notes.txt").touch()
    assert words in quick("--data-dir", tmp_path / name, "--out", tmp_path / "run").refusal(3)
    assert not (tmp_path / "run").exists()


def test_the_layout_of_another_data_set_is_recognised(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    line = quick("--dataset", "esc50", "--data-dir", recordings, "--out", tmp_path / "run").refusal(3)
    assert "not in the layout of 'esc50'" in line
    assert "It looks like --dataset folder." in line


def test_no_data_at_all_says_what_to_pass(quick: Callable, tmp_path: Path) -> None:
    assert "pass --data-dir FOLDER, or --dataset sonar_sim" in quick("--out", tmp_path / "run").refusal(2)
    assert "Data set 'esc50' needs its folder" in quick("--dataset", "esc50", "--out", tmp_path / "run").refusal(2)


BROKEN = {
    "truncated": "truncated: the header promises 16000 bytes of samples, 8956 follow. Copy it again.",
    "empty": "the file is empty (0 bytes). Replace it or take it out.",
    "without samples": "holds no samples. Replace it or take it out.",
    "not audio": "not an audio file that can be read",
    "nan": "sample 100 is NaN or infinite. Replace the file or take it out.",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_recording_is_named(quick: Callable, recordings: Path, tmp_path: Path, fault: str) -> None:
    path = recordings / "low" / "2.wav"
    samples, _ = soundfile.read(path, dtype="float32")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:9000])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "without samples":
        soundfile.write(path, samples[:0], RATE)
    elif fault == "not audio":
        path.write_text("<html>404 Not Found</html>" * 100)
    else:
        samples[100] = np.nan
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    line = quick("--data-dir", recordings, "--out", tmp_path / "run").refusal(3)
    assert line.startswith(f"{path}: {BROKEN[fault]}")


def test_recordings_of_other_formats_just_work(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    samples, _ = soundfile.read(recordings / "low" / "0.wav")
    soundfile.write(recordings / "low" / "0.wav", samples, RATE, subtype="PCM_U8")
    soundfile.write(recordings / "low" / "1.wav", np.stack([samples, samples[::-1]], axis=1), RATE)
    soundfile.write(recordings / "low" / "2.wav", np.repeat(samples, 24), 24 * RATE)
    soundfile.write(recordings / "low" / "3.flac", samples, RATE)
    (recordings / "low" / "3.wav").unlink()
    same = ("--set", "data.near_duplicates=warn")  # all are one recording, and the audit hears it
    done = quick("--data-dir", recordings, "--out", tmp_path / "run", *same)
    assert (done.code, done.err) == (0, "")
    assert len((tmp_path / "run" / "splits.csv").read_text().splitlines()) == 1 + 8 * 4


def test_a_class_with_too_few_recordings_for_the_split_is_named(
    quick: Callable, recordings: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        (recordings / "low" / f"{number}.wav").unlink()
    line = quick("--data-dir", recordings, "--out", tmp_path / "run").refusal(3)
    assert "class 'low' has 2 group(s) (recordings or vessels) and needs 3" in line
    assert line.endswith("Add recordings or take the class out.")


# The output folder


def test_an_existing_folder_is_refused_and_left_as_it_is(
    quick: Callable, recordings: Path, run: Path, tmp_path: Path
) -> None:
    before = contents(run)
    line = quick("--data-dir", recordings, "--out", run).refusal(2)
    assert all(option in line for option in (str(run), "--resume", "--overwrite", "--out"))
    assert contents(run) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    line = quick("--data-dir", recordings, "--out", tmp_path / "photos", "--overwrite").refusal(2)
    assert "photos is not a run folder" in line
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_run_is_overwritten_only_when_asked(quick: Callable, recordings: Path, run: Path) -> None:
    (run / "left-over").touch()
    assert quick("--data-dir", recordings, "--out", run, "--overwrite", "--no-quantize").code == 0
    assert not (run / "left-over").exists()
    assert not (run / "int8").exists()


def test_a_folder_that_cannot_be_made_is_named(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in quick("--data-dir", recordings, "--out", tmp_path / "file" / "run").refusal(3)


def test_resuming_nothing_says_that_there_is_nothing(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("distill", "--out", tmp_path / "run", "--resume").refusal(3)
    assert line.startswith(f"{tmp_path / 'run'}: no such run folder.")
    (tmp_path / "run").mkdir()
    assert "not a run folder" in edgekd("distill", "--out", tmp_path / "run", "--resume").refusal(3)
    assert "--out FOLDER" in edgekd("distill", "--resume").refusal(2)


def test_resuming_with_other_settings_names_them(edgekd: Callable, run: Path) -> None:
    before = contents(run)
    line = edgekd("distill", "--out", run, "--resume", "--epochs", "30", "--seed", "5").refusal(2)
    assert "these differ: seed, training.epochs." in line
    assert contents(run) == before


def test_resuming_a_run_means_its_own_file(
    edgekd: Callable, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.toml").write_text("[training]\nepochs = 30\n")
    monkeypatch.setenv("EDGEKD_CONFIG", str(tmp_path / "other.toml"))
    assert edgekd("distill", "--out", run, "--resume", "--quiet").code == 0
    named = ("--config", tmp_path / "other.toml")
    assert "training.epochs" in edgekd("distill", "--out", run, "--resume", *named).refusal(2)
    monkeypatch.setenv("EDGEKD_EPOCHS", "30")
    line = edgekd("distill", "--out", run, "--resume").refusal(2)
    assert "these differ: training.epochs. Leave them out (options, EDGEKD_* variables)" in line


def test_resuming_and_overwriting_exclude_each_other(edgekd: Callable, run: Path) -> None:
    assert "pass one of them" in edgekd("distill", "--out", run, "--resume", "--overwrite").refusal(2)
    assert run.is_dir()


def test_resuming_a_finished_run_needs_no_settings_and_changes_no_weights(edgekd: Callable, run: Path) -> None:
    before = contents(run)
    again = edgekd("distill", "--out", run, "--resume", "--quiet")
    assert again.code == 0, again.err
    after = contents(run)
    assert after["metrics.csv"] == before["metrics.csv"]
    for stage in ("student", "int8"):
        assert after[f"{stage}/best.safetensors"] == before[f"{stage}/best.safetensors"]


# The teacher


def test_without_a_teacher_the_first_line_says_which_it_is(
    edgekd: Callable, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    quicker = ["--epochs", "1", "--set", "teacher.epochs=1", "--batch-size", "4", "--clip-seconds", "0.5"]
    done = edgekd("distill", "--data-dir", recordings, *quicker, "--no-quantize", "--device", "cpu")
    assert done.code == 0, done.err
    assert done.err.splitlines()[0].startswith("Teacher: convnet, trained in full on your data alone, for no published")
    run = Run.open(tmp_path / "runs" / "edgekd")
    assert (run.config.teacher.name, run.config.teacher.adaptation) == ("convnet", "full")
    assert edgekd("distill", "--data-dir", recordings, "--dry-run", "--quiet").err == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--teacher", "yamnet"],
            "Teacher 'yamnet' needs pre-trained weights: get them with 'edgekd teachers fetch yamnet', or pass",
        ),
        (["--teacher", "convnet"], "Teacher 'convnet' starts at random: training only its head, or nothing, is no use"),
    ],
)
def test_a_teacher_that_could_not_learn_is_refused(
    edgekd: Callable, recordings: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    done = edgekd("distill", "--data-dir", recordings, "--out", tmp_path / "run", *flags)
    assert words in done.refusal(2)
    assert not (tmp_path / "run").exists()


class Attack:
    """What a malicious pickle holds: a call that leaves a mark if it is ever made."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def taught(quick: Callable, recordings: Path, tmp_path: Path, weights: Path) -> str:
    flags = ("--set", 'loss.terms=["classification", "distillation"]', "--teacher", "yamnet")
    done = quick(*flags, "--teacher-weights", weights, "--data-dir", recordings, "--out", tmp_path / "run")
    return done.refusal(3)


def test_weights_that_are_not_there_are_named(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    line = taught(quick, recordings, tmp_path, tmp_path / "gone.npz")
    assert line.startswith(f"{tmp_path / 'gone.npz'}: no such weights file.")
    assert "edgekd teachers" in line


def test_weights_of_another_architecture_say_what_is_missing(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_weights(path, {"conv_block1.conv1.weight": torch.zeros(64, 1, 3, 3), "fc1.bias": torch.zeros(9)})
    line = taught(quick, recordings, tmp_path, path)
    assert line.startswith(f"{path}: not weights of YamNet: 0 of its ")
    assert "missing: " in line
    assert "unexpected: conv_block1.conv1.weight, fc1.bias" in line


def test_a_file_that_is_no_weights_file_is_refused(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    for name in ("page.pth", "page.npz", "page.safetensors", "page.txt"):
        (tmp_path / name).write_text("<html>404 Not Found</html>")
        line = taught(quick, recordings, tmp_path, tmp_path / name)
        assert line.startswith(f"{tmp_path / name}: not a weights file")
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_a_malicious_pickle_is_refused_and_not_run(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    torch.save({"model": Attack(tmp_path / "owned")}, tmp_path / "evil.pth")
    line = taught(quick, recordings, tmp_path, tmp_path / "evil.pth")
    assert "evil.pth: contains code, not only tensors" in line
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(Attack(tmp_path / "owned")))
    assert (tmp_path / "owned").exists(), "the attack itself works"


# No space left


def test_a_full_disk_leaves_whole_files_and_the_run_can_go_on(
    quick: Callable, edgekd: Callable, recordings: Path, finished: Path, small_disk: Callable[[int], Path]
) -> None:
    out = small_disk(300) / "run"
    line = quick("--data-dir", recordings, "--out", out).refusal(3)
    assert str(out) in line
    assert "no space left" in line.lower()
    assert unfinished(out) == []
    assert {"config.toml", "classes.json", "splits.csv"} <= {path.name for path in out.iterdir()}
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    small_disk(8000)
    done = edgekd("distill", "--out", out, "--resume", "--quiet")
    assert done.code == 0, done.err
    for stage in ("student", "int8"):
        file = f"{stage}/best.safetensors"
        assert (out / file).read_bytes() == (finished / file).read_bytes()


@pytest.mark.parametrize("kib", [0, 4, 8, 16])
def test_a_disk_that_is_full_from_the_start_is_named(
    quick: Callable, recordings: Path, small_disk: Callable[[int], Path], kib: int
) -> None:
    disk = small_disk(64)
    (disk / "old").write_bytes(bytes(1024 * (64 - 4 - kib)))
    line = quick("--data-dir", recordings, "--out", disk / "run").refusal(3)
    assert str(disk / "run") in line
    assert "no space left" in line.lower()
    assert [path.name for path in disk.iterdir()] == ["old"]


# Ctrl-C


def test_ctrl_c_says_how_to_go_on_and_going_on_works(edgekd: Callable, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    code = "import sys; from edgekd.cli.app import main; sys.argv[0] = 'edgekd'; main()"
    flags = [
        *("--terms", "classification", "--sample-rate", str(RATE), "--clip-seconds", "0.5", "--device", "cpu"),
        *("--epochs", "15", "--batch-size", "8", "--no-quantize", "--set", "frontend.f_max=1900"),
        *("--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128", "--set", "frontend.n_mels=32"),
    ]
    command = [sys.executable, "-c", code, "distill", "--data-dir", str(recordings), "--out", str(out), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        patience = time.monotonic() + 120
        while not (out / "student" / "last.pt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, shown) == (130, "")
    assert said.splitlines()[-1] == f"Interrupted. Go on with: edgekd distill --out '{out}' --resume"
    assert "Traceback" not in said
    assert unfinished(out) == []
    epochs = len((out / "metrics.csv").read_text().splitlines()) - 1
    assert 1 <= epochs < 15
    done = edgekd("distill", "--out", out, "--resume", "--quiet", "--json")
    assert set(done.json()["test"]) == {"student"}
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 15


def test_what_clips_are_made_of_is_no_warning(
    edgekd: Callable, quick: Callable, recordings: Path, tmp_path: Path
) -> None:
    lines = ["begin file,begin time (s),end time (s),annotation"]
    for path in sorted(recordings.rglob("*.wav")):
        lines.append(f"{path.name},0.5,1.0,{path.parent.name}")
        path.rename(recordings / f"{path.parent.name}{path.name}")
        lines[-1] = f"{path.parent.name}{path.name},0.5,1.0,{path.parent.name}"
    (recordings / "events.csv").write_text("\n".join(lines))
    named = ("--dataset", "selections", "--data-dir", recordings)
    shown = quick(*named, "--out", tmp_path / "run", "--no-quantize")
    assert shown.code == 0, shown.err
    assert "Note: events.csv: windows: high 4, low 4, background" in shown.out
    assert "windows" in Run.open(tmp_path / "run").report()["notes"][0]
    assert "windows" not in shown.out.partition("Warning:")[2]
    audited = edgekd("data", "audit", *named, "--sample-rate", "4000", "--clip-seconds", "0.5", "--quiet")
    assert "Note: events.csv: windows:" in audited.out

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.runs.run import Run

RATE = 4_000


@pytest.fixture
def begun(edgekd: Callable, tiny_run: Run, recordings: Path, tmp_path: Path) -> Callable:
    """`begun("--epochs", 2, ...)`: a pre-training on recordings small enough for a second, in `tmp_path / "pre"`."""
    small = [
        *("--sample-rate", RATE, "--clip-seconds", "1", "--batch-size", "8", "--device", "cpu", "--quiet"),
        *("--set", "frontend.n_mels=32", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
        *("--set", "frontend.f_max=1900", "--teacher", "convnet", "--teacher-weights", tiny_run.weights("teacher")),
    ]
    return lambda *more: edgekd("pretrain", "--unlabelled", recordings, *small, "--out", tmp_path / "pre", *more)


def test_it_tells_what_it_learned_and_the_command_that_goes_on(begun: Callable, tmp_path: Path) -> None:
    done = begun("--epochs", "2")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].endswith("clips without labels teach.")
    assert lines[1].startswith("Embedding loss: ")
    assert lines[-1] == (
        f"Next: edgekd distill --student hltdnn_ds --student-weights {tmp_path}/pre/student.safetensors "
        "--data-dir FOLDER ..."
    )
    found = begun("--epochs", "2", "--overwrite", "--json").json()
    assert (found["run"], found["training"]["pretrain"]["name"]) == (str(tmp_path / "pre"), "hltdnn_ds")
    again = begun("--epochs", "2").refusal(2)
    assert again.startswith(f"{tmp_path}/pre exists already.")


def test_it_goes_on_by_its_folder_alone(begun: Callable, edgekd: Callable, tmp_path: Path) -> None:
    begun("--epochs", "2")
    before = (tmp_path / "pre" / "student.safetensors").read_bytes()
    (tmp_path / "pre" / "student.safetensors").unlink()
    assert edgekd("pretrain", "--out", tmp_path / "pre", "--resume", "--quiet").code == 0
    assert (tmp_path / "pre" / "student.safetensors").read_bytes() == before


def test_settings_are_shown_and_wrong_ones_refused(begun: Callable, edgekd: Callable, tmp_path: Path) -> None:
    assert 'terms = ["embedding"]' in begun("--dry-run").out
    assert not (tmp_path / "pre").exists()
    assert begun("--terms", "classification,embedding").refusal(2).endswith("'classification' needs classes.")
    assert "Did you mean 'embedding'?" in begun(
        "--terms", "embeding", "--set", "loss.terms=['embeding','classification']"
    ).refusal(2)
    line = edgekd("pretrain", "--teacher", "cnn14").refusal(2)
    assert "Nothing to learn from: pass --unlabelled FOLDER." in line
    line = edgekd("distill", "--dataset", "sonar_sim", "--terms", "embedding").refusal(2)
    assert line.startswith("loss.terms: 'classification' must be one of the terms; a student without classes is")


def test_a_pre_training_has_nothing_to_export(begun: Callable, edgekd: Callable, tmp_path: Path) -> None:
    begun("--epochs", "1")
    line = edgekd("export", tmp_path / "pre", "--target", "cpu", "--out", tmp_path / "bundle").refusal(3)
    assert line.startswith(f"{tmp_path}/pre: a pre-training, whose student has no classes.")


def test_a_file_without_terms_is_one_of_embeddings(begun: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[training]\nepochs = 3\n")
    shown = begun("--config", tmp_path / "a.toml", "--dry-run").out
    assert 'terms = ["embedding"]' in shown
    (tmp_path / "a.toml").write_text('[loss]\nterms = ["embedding", "structural"]\n')
    assert 'terms = ["embedding", "structural"]' in begun("--config", tmp_path / "a.toml", "--dry-run").out

"""Bundles: written whole or not at all, within budget, and never in place of what is not a bundle."""

from __future__ import annotations

import errno
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.device import runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.bundle import Findings, _readme
from edgekd.exporting.manifest import Check, Detection, Reject, read_bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import load_target
from edgekd.files import folders
from edgekd.report.terminal import print_bundle

if TYPE_CHECKING:
    from tests.exporting.conftest import Toy


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("cpu", {"README.md", "edgekd_runner.py", "golden.npz", "manifest.json", "model.onnx"}),
        ("jetson", {"README.md", "build_engine.sh", "edgekd_runner.py", "golden.npz", "manifest.json", "model.onnx"}),
    ],
)
def test_a_bundle_holds_what_its_target_needs(toy: Toy, tmp_path: Path, target: str, names: set[str]) -> None:
    bundle = toy.write(tmp_path / "bundle", target)
    assert {path.name for path in bundle.folder.iterdir()} == names
    assert set(bundle.manifest.files) == names - {"manifest.json"}


def test_other_precisions_lie_beside_the_model_and_are_built_too(toy: Toy, tmp_path: Path) -> None:
    models = {"int8": toy.model(), "fp16": toy.model(), "fp32": toy.model()}
    bundle = toy.write(tmp_path / "bundle", "jetson", models=models)
    assert bundle.manifest.precision == "int8"
    assert bundle.manifest.alternatives == {"fp16": "model-fp16.onnx", "fp32": "model-fp32.onnx"}
    script = (bundle.folder / "build_engine.sh").read_text()
    for file in ("model.onnx", *bundle.manifest.alternatives.values()):
        assert file == "model.onnx" or file in bundle.manifest.files
        assert f"--onnx={file}" in script


def test_other_users_may_read_the_bundle_and_run_the_script(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.write(tmp_path / "bundle", "jetson")
    reference = tmp_path / "reference"
    reference.mkdir()
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)
    assert (bundle.folder / "build_engine.sh").stat().st_mode & stat.S_IXUSR


def test_the_same_run_exported_twice_gives_the_same_bytes(toy: Toy, tmp_path: Path) -> None:
    assert toy.write(tmp_path / "first").manifest == toy.write(tmp_path / "second").manifest


@pytest.mark.parametrize(
    ("target", "typed"),
    [
        ("cpu", "pip install numpy 'onnxruntime>=1.17'"),
        ("raspberry-pi-5", "python3 -m venv"),
        ("jetson", "sh build_engine.sh"),
        ("jetson-xavier-nx", "(`python3 -m pip install 'onnxruntime>=1.15'`, in a"),
    ],
)
def test_the_readme_says_what_to_type_on_this_device(toy: Toy, tmp_path: Path, target: str, typed: str) -> None:
    text = (toy.write(tmp_path / "bundle", target).folder / "README.md").read_text()
    assert typed in text
    assert load_target(target).title in text
    assert "87.5% right on its test clips" in text


def test_an_existing_folder_is_refused_without_overwrite(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    with pytest.raises(UsageError, match=r"already exists.*--overwrite"):
        toy.write(out)
    assert list(out.iterdir()) == []


def test_overwrite_replaces_a_bundle_whole(toy: Toy, tmp_path: Path) -> None:
    toy.write(tmp_path / "bundle", "jetson")
    (tmp_path / "bundle" / "model.engine").write_text("of the old model")
    assert read_bundle(toy.write(tmp_path / "bundle", "cpu", overwrite=True).folder).manifest.target.name == "cpu"
    assert not (tmp_path / "bundle" / "model.engine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("beside", [None, "manifest.json", "golden.npz"])
def test_overwrite_never_deletes_what_is_not_a_bundle(toy: Toy, tmp_path: Path, beside: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if beside is not None:  # a web page has a manifest too
        (tmp_path / beside).write_text("{}")
    with pytest.raises(UsageError, match="is not a bundle"):
        toy.write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_folder_that_one_stands_in_is_not_replaced(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = toy.write(tmp_path / "bundle").folder
    monkeypatch.chdir(out)
    with pytest.raises(UsageError, match=r"is where you are, and is to be replaced\. Go to another folder"):
        toy.write(Path(), overwrite=True)


def test_a_bundle_over_the_storage_budget_is_refused_with_both_figures(toy: Toy, tmp_path: Path) -> None:
    small = load_target("cpu").model_copy(update={"storage_bytes": 2_000})
    with pytest.raises(GateError, match=r"takes [\d,]+ bytes; target 'cpu' allows 2,000"):
        toy.write(tmp_path / "bundle", small)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_whose_own_runner_disagrees_is_not_written(toy: Toy, tmp_path: Path) -> None:
    golden = toy.golden()
    wrong = replace(golden, probabilities=np.roll(golden.probabilities, 1, axis=1))
    with pytest.raises(GateError, match="does not get the golden probabilities"):
        toy.write(tmp_path / "bundle", golden=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_leaves_the_older_bundle(toy: Toy, tmp_path: Path) -> None:
    older = toy.write(tmp_path / "bundle")
    small = load_target("cpu").model_copy(update={"storage_bytes": 2_000})
    with pytest.raises(GateError):
        toy.write(tmp_path / "bundle", small, overwrite=True)
    assert read_bundle(tmp_path / "bundle") == older


def test_a_failed_swap_puts_the_older_bundle_back(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = toy.write(tmp_path / "bundle")
    rename = Path.rename

    def fail_for_the_new_one(path: Path, to: Path) -> Path:
        if path.name == ".bundle.edgekd-new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    with pytest.raises(InputError, match="Input/output error"):
        toy.write(tmp_path / "bundle", overwrite=True)
    assert read_bundle(tmp_path / "bundle") == older


def test_a_folder_made_by_another_process_meanwhile_is_not_touched(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    check = runner.file_digest

    def another_process(path: Path) -> str:
        out.mkdir(exist_ok=True)
        (out / "theirs").touch()
        return check(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "file_digest", another_process)
        with pytest.raises(UsageError, match="made by another process"):
            toy.write(out)
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_no_space_left_is_one_line_and_leaves_nothing(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(InputError, match=r"bundle: cannot be written: no space left on the device\."):
        toy.write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        toy.write(tmp_path / "file" / "bundle")


def test_the_readme_says_how_events_are_found_and_from_which_scores(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.write(tmp_path / "bundle", "cpu")
    text = (bundle.folder / "README.md").read_text()
    assert "edgekd_runner.py detect night.wav" in text and "stream --events" in text
    assert "Heard from" not in text  # nobody has chosen
    detection = Detection(
        open={"tug": 0.25},
        chosen="best F1",
        reject=Reject(score="energy", threshold=2.5, span=3.0, share=0.05, clips=40),
    )
    text = _readme(bundle.manifest.model_copy(update={"detection": detection}), RUNTIMES["onnxruntime"])
    assert "| Heard from a score of | tug 0.25 (best F1) |" in text
    assert "| Unknown | where known, the second output (energy), is below 2.5: " in text


@pytest.mark.parametrize("unwritten", [None, "Swish"])
def test_who_wrote_a_graph_is_in_its_bundle(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], unwritten: str | None
) -> None:
    checks = (Check(by="onnxruntime", precision="int8", figures={}),)
    bundle = toy.write(tmp_path / "bundle", findings=Findings(toy.PARITY, checks, unwritten=unwritten))
    assert bundle.manifest.unwritten == unwritten
    print_bundle(bundle)
    assert ("written by PyTorch's exporter" in capsys.readouterr().out) == (unwritten is not None)

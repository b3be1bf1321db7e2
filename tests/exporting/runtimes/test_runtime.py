"""A new runtime is one file and one row of the table: a board for it is valid, and everything after it just works."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edgekd.cli.app import main
from edgekd.errors import GateError, UsageError
from edgekd.exporting.budget import Figures
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.export import export
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.predict import open_predictor
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.runtime import Classify
from edgekd.exporting.targets import Target, load_target
from edgekd.runs.run import Run

FILES = ["README.md", "flash.sh", "golden.npz", "main.c", "manifest.json", "model.bin"]


@pytest.fixture
def board(bare_metal: Path) -> Target:
    return load_target(str(bare_metal))


def test_a_microcontroller_is_a_valid_board_of_a_runtime_that_says_so(board: Target) -> None:
    assert (board.runtime, board.architecture, board.memory_bytes) == ("bare-metal", "armv7e-m", 256 << 10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("armv7e-m", "x86_64", "architecture = 'x86_64': runtime 'bare-metal' runs on armv7e-m, armv8.1-m.main"),
        ("262_144", "8_192", "memory_bytes = 8192: runtime 'bare-metal' needs 16384 at least"),
        ('["int8"]', '["fp32"]', "precisions = ['fp32']: bare-metal has kernels for int8 alone"),
        ('"tensorrt"', '"onnxruntime"', "runtime 'bare-metal' needs flavour 'tensorrt': its kernels are symmetric"),
        ("[budget]", '[tensorrt]\nversion = "10.3"\n[budget]', "[tensorrt] means nothing with runtime 'bare-metal'"),
        ('"bare-metal"', '"bare"', "runtime = 'bare': input should be 'onnxruntime' or "),
    ],
)
def test_what_a_runtime_says_of_itself_is_checked_in_one_line(
    bare_metal: Path, old: str, new: str, message: str
) -> None:
    bare_metal.write_text(bare_metal.read_text().replace(old, new))
    with pytest.raises(UsageError) as refusal:
        load_target(str(bare_metal))
    assert str(refusal.value).startswith(f"{bare_metal}: {message}")
    assert "\n" not in str(refusal.value)


def test_a_run_becomes_a_bundle_for_it_end_to_end(board: Target, tiny_run: Run, tmp_path: Path) -> None:
    steps: list[str] = []
    out = tmp_path / "bundle"
    bundle = export(tiny_run, board, out, lambda stage, *_, **__: steps.append(stage))
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert read_bundle(out) == bundle
    assert (out / "flash.sh").stat().st_mode & stat.S_IXUSR
    assert not (out / "main.c").stat().st_mode & stat.S_IXUSR
    assert "\n## Prepare\n\n    make flash\n" in (out / "README.md").read_text()
    manifest = bundle.manifest
    assert (manifest.precision, manifest.alternatives, manifest.target) == ("int8", {}, board)
    assert [(check.by, check.not_run) for check in manifest.checks] == [
        ("bare metal 1.0", None),
        ("a simulator", "there is none"),
    ]
    assert manifest.parity.clips == 64
    assert {"verify", "test clips"} <= set(steps)
    assert export(tiny_run, board, out, overwrite=True).manifest == manifest, "it is known for a bundle"


def test_its_bundle_classifies_files_as_the_run_does(board: Target, tiny_run: Run, tmp_path: Path) -> None:
    bundle = export(tiny_run, board, tmp_path / "bundle")
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(9_000), 4_000)
    ours, theirs = (
        open_predictor(folder).predict_file(tmp_path / "a.wav")[0] for folder in (tiny_run.folder, bundle.folder)
    )
    assert theirs.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(theirs, ours, atol=board.tolerance.probability)


def test_a_budget_is_held_to_the_runtimes_own_figures(
    board: Target, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heavy(type(RUNTIMES["bare-metal"])):
        """By its account every student takes 100,001 parameters."""

        def emit(self, deployables: Mapping[str, Deployable], *rest: Any) -> dict[str, bytes]:
            untrained = deployables["int8"].source.startswith("untrained ")
            return {} if untrained else super().emit(deployables, *rest)

        def figures(self, *_: Any) -> Figures:
            return Figures(model_bytes=1, parameters=100_001, macs=1, activation_bytes=1)

    monkeypatch.setitem(RUNTIMES, "bare-metal", Heavy())
    with pytest.raises(GateError, match=r"100,001 parameters, 100,000 allowed .*No other student fits: the smallest,"):
        export(tiny_run, board, tmp_path / "bundle")


def test_what_opens_as_another_classifier_is_not_written(
    board: Target, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RUNTIMES["bare-metal"]

    class Wrong(type(right)):
        def open(self, folder: Path, threads: int = 1) -> Classify:
            classify = super().open(folder, threads)

            def turned(clips: NDArray[np.float32]) -> NDArray[np.float32]:
                return classify(clips)[:, ::-1]

            return turned

    monkeypatch.setitem(RUNTIMES, "bare-metal", Wrong())
    with pytest.raises(GateError, match="does not get the golden probabilities"):
        export(tiny_run, board, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_commands_know_it(
    bare_metal: Path, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def edgekd(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgekd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        wrote = capsys.readouterr()
        return ending.value.code or 0, wrote.out, wrote.err

    out = tmp_path / "bundle"
    code, printed, _ = edgekd("export", tiny_run.folder, "--target", bare_metal, "--out", out, "--quiet")
    assert (code, printed.splitlines()[-1]) == (0, "  on the device: make flash")
    code, printed, _ = edgekd("export", tiny_run.folder, "--target", bare_metal, "--build-engine")
    assert code == 2
    code, printed, _ = edgekd("profile", out, "--quick", "--json", "--quiet", "--out", tmp_path / "profile")
    (subject,) = json.loads(printed)["subjects"]
    assert (code, subject["backend"], subject["runtime"]) == (0, "bare-metal", "Bare Metal")
    assert subject["cost"]["file_bytes"] == (out / "model.bin").stat().st_size
    code, _, complaint = edgekd("profile", out, "--quick", "--quiet", "--host", "me@board")
    assert code == 3
    assert "made for Cortex-M4 with 256 KiB, whose Bare Metal no host runs over ssh" in complaint


def test_every_row_is_found_by_its_own_name(bare_metal: Path) -> None:
    assert {name: runtime.name for name, runtime in RUNTIMES.items()} == {name: name for name in RUNTIMES}
    assert list(RUNTIMES)[-1] == "bare-metal"


@pytest.mark.parametrize("name", ["cpu", "jetson-nano"])
def test_a_board_of_another_runtime_is_as_before(bare_metal: Path, name: str) -> None:
    assert Target.model_validate_json(load_target(name).model_dump_json()) == load_target(name)

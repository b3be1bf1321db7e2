from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Target, load_target
from edgekd.runs.run import Run


def test_a_bundle_is_shown_with_its_size_and_parity(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    done = edgekd("export", tiny_run.folder, "--target", "jetson", "--out", tmp_path / "bundle", "--quiet")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"{tmp_path / 'bundle'}: hltdnn_ds for NVIDIA Jetson Orin Nano, JetPack 6.2"
    assert "KiB" in done.out
    assert "verified on 64 clips" in done.out
    assert (tmp_path / "bundle" / "build_engine.sh").is_file()


def test_json_is_the_manifest_and_the_folder(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    found = edgekd("export", tiny_run.folder, "--target", "rpi5", "--out", out, "--json").json()
    assert found.pop("bundle") == str(out)
    assert found == json.loads((out / "manifest.json").read_text())


def test_a_target_that_was_printed_can_be_changed_and_used(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(edgekd("targets", "cpu").out.replace('name = "cpu"', 'name = "my-board"'))
    found = edgekd("export", tiny_run.folder, "--target", mine, "--out", tmp_path / "bundle", "--json").json()
    assert found["target"]["name"] == "my-board"
    assert Target.model_validate({**found["target"], "name": "cpu"}) == load_target("cpu")


def test_another_precision_front_end_and_batch_are_exported(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    asked = ("--precision", "fp32", "--frontend", "external", "--batch", "1")
    out = tmp_path / "bundle"
    done = edgekd("export", tiny_run.folder, "--target", "cpu", "--out", out, "--quiet", *asked)
    assert (done.code, done.err) == (0, "")
    assert "fp32: the float student" in done.out
    assert "takes a log-mel" in done.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["precision"], manifest["target"]["precisions"]) == ("fp32", ["fp32"])
    assert (manifest["classifier"]["input"], manifest["classifier"]["batch"]) == ("log_mel", 1)
    by = ["onnxruntime", "onnx.reference", "overlapping"]  # the last: windows in steps
    assert [check["by"].split()[0] for check in manifest["checks"]] == by


def test_a_float_bundle_needs_no_int8_student(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    copied = Run.open(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    shutil.rmtree(copied.folder / "int8")
    copied.forget("test", "int8")
    command = ("export", copied.folder, "--target", "cpu", "--out", tmp_path / "bundle", "--quiet")
    assert "First: edgekd" in edgekd(*command).refusal(3)
    assert edgekd(*command, "--precision", "fp32").code == 0


def test_a_board_without_int8_gets_fp16_and_is_told_so(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = edgekd("export", tiny_run.folder, "--target", "jetson-nano", "--out", out, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert "no int8: NVIDIA Jetson Nano, JetPack 4.6.1 runs fp16 and fp32" in done.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["precision"], manifest["classifier"]["input"]) == ("fp16", "log_mel")
    assert onnx.load(out / "model.onnx").opset_import[0].version == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cpu", "--precision", "int4"), "Unknown --precision value 'int4'. Did you mean 'int8'?"),
        (("cpu", "--precision", "fp16"), "Target 'cpu' runs int8, fp32, not fp16."),
        (("jetson-nano", "--frontend", "graph"), "target 'jetson-nano': frontend = 'graph': TensorRT 8.2 cannot keep"),
        (("cpu", "--batch", "2"), "Unknown --batch value '2'."),
        (("cpu", "--build-engine"), "--build-engine: target 'cpu' runs onnxruntime, which has no engines."),
    ],
)
def test_what_a_board_cannot_have_is_refused_before_anything_is_read(
    edgekd: Callable, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in edgekd("export", tmp_path / "nowhere", "--target", *arguments).refusal(2)


def test_engines_are_asked_for_where_there_is_no_tensorrt(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("this machine has TensorRT")
    command = ("export", tiny_run.folder, "--target", "gpu", "--out", tmp_path / "bundle", "--build-engine")
    assert "TensorRT's Python module cannot be imported" in edgekd(*command).refusal(3)
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_target_gets_the_nearest_before_anything_is_read(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("export", tmp_path / "nowhere", "--target", "jetsn").refusal(2)
    assert line.startswith("Unknown target 'jetsn'. Did you mean 'jetson'? Valid: agx-orin, ")


def test_a_target_file_with_mistakes_names_them_all(edgekd: Callable, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(edgekd("targets", "cpu").out.replace("opset = 20", "opset = 21\nopst = 20"))
    line = edgekd("export", tmp_path, "--target", mine).refusal(2)
    assert line.startswith(f"{mine}: ")
    assert "opset = 21: input should be less than or equal to 20" in line
    assert "unknown key 'opst'. Did you mean 'opset'?" in line
    assert "no such configuration file" in edgekd("export", tmp_path, "--target", "nowhere.toml").refusal(2)


def test_what_is_no_run_is_refused(edgekd: Callable, tmp_path: Path) -> None:
    assert "no such run folder" in edgekd("export", tmp_path / "nowhere", "--target", "cpu").refusal(3)
    assert "not a run folder" in edgekd("export", tmp_path, "--target", "cpu").refusal(3)


def test_an_existing_folder_is_refused_and_left_as_it_is(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    command = ("export", tiny_run.folder, "--target", "cpu", "--out", tmp_path / "photos")
    assert "already exists. Choose another --out, or replace" in edgekd(*command).refusal(2)
    assert "is not a bundle, so --overwrite does not replace it" in edgekd(*command, "--overwrite").refusal(2)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_bundle_over_the_storage_budget_is_refused(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(edgekd("targets", "cpu").out.replace("storage_bytes = 134217728", "storage_bytes = 100000"))
    line = edgekd("export", tiny_run.folder, "--target", mine, "--out", tmp_path / "b", "--quiet").refusal(4)
    assert "target 'cpu' allows 100,000 (storage_bytes)" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml"]


def test_a_full_disk_leaves_nothing_and_the_older_bundle_whole(
    edgekd: Callable, tiny_run: Run, tiny_bundle: Path, small_disk: Callable[[int], Path]
) -> None:
    kib = sum(-(-path.stat().st_size // 4096) * 4 for path in tiny_bundle.iterdir())
    out = small_disk(3 * kib // 2) / "bundle"  # room for one, not for two
    command = ("export", tiny_run.folder, "--target", "cpu", "--out", out, "--quiet")
    assert edgekd(*command).code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    line = edgekd(*command, "--overwrite").refusal(3)
    assert line.startswith(f"{out}: cannot be written: no space left on the device.")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_a_run_whose_data_have_changed_is_refused(edgekd: Callable, run: Path) -> None:
    data = Run.open(run).config.data.data_dir
    assert data is not None
    config = (run / "config.toml").read_text().replace(str(data), str(run / "moved"))
    (run / "config.toml").write_text(config)
    assert f"{run / 'moved'}: no such folder." in edgekd("export", run, "--target", "cpu").refusal(3)


def test_too_few_clips_to_verify_with_are_refused_before_anything_slow(
    edgekd: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUNTIMES["onnxruntime"], "emit", lambda *_: pytest.fail("slow"))
    line = edgekd("export", run, "--target", "cpu", "--quiet").refusal(3)
    assert "has 32 clips; verifying an export takes 64 real ones" in line


def test_a_run_that_rejects_says_so_and_how_to_end_it(edgekd: Callable, tiny_copy: Run, tmp_path: Path) -> None:
    def export(name: str, *asked: str) -> str:
        command = ("export", tiny_copy.folder, "--target", "cpu", "--out", tmp_path / name, "--quiet", *asked)
        out: str = edgekd(*command).out
        return out

    kept = f"    {tiny_copy.folder} keeps it for its next export; --reject off ends it"
    assert kept in export("first", "--reject", "energy").splitlines()
    assert f"    as {tiny_copy.folder} was told before; --reject off ends it" in export("again").splitlines()
    assert "unknown" not in export("off", "--reject", "off")
    assert "unknown" not in export("plain")

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.export import pipeline
from edgekd.training import Run


@pytest.fixture(autouse=True)
def one_graph(monkeypatch: pytest.MonkeyPatch, graph_of_tiny_run: Callable[..., bytes]) -> None:
    monkeypatch.setattr(pipeline, "quantized_onnx", graph_of_tiny_run)


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
    assert {**found["target"], "name": "cpu"} == {
        **found["target"],
        **tomllib.loads(edgekd("targets", "cpu").out),
    }


def test_an_unknown_target_gets_the_nearest_before_anything_is_read(edgekd: Callable, tmp_path: Path) -> None:
    line = edgekd("export", tmp_path / "nowhere", "--target", "jetsn").refusal(2)
    assert line.startswith("Unknown target 'jetsn'. Did you mean 'jetson'? Valid: cpu, ")


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
    edgekd: Callable, tiny_run: Run, small_disk: Callable[[int], Path]
) -> None:
    out = small_disk(400) / "bundle"
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
    monkeypatch.setattr(pipeline, "quantized_onnx", None)
    line = edgekd("export", run, "--target", "cpu", "--quiet").refusal(3)
    assert "has 32 clips; verifying an export takes 64 real ones" in line

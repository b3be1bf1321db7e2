"""Manifests: read back as written, and refused when anything in the bundle has changed or points elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.device import edgekd_runner
from edgekd.errors import InputError
from edgekd.exporting.bundle import Findings
from edgekd.exporting.manifest import Check, FloatOperators, Parity, read_bundle

if TYPE_CHECKING:
    from tests.exporting.conftest import Toy


def test_a_bundle_reads_back_as_it_was_written(toy: Toy, tmp_path: Path) -> None:
    written = toy.write(tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == written
    assert written.manifest.classifier.classes == toy.CLASSES
    assert written.size_bytes == sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]  # nothing temporary is left


def test_a_bundle_from_before_there_were_widths_is_read(toy: Toy, tmp_path: Path) -> None:
    folder = toy.write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    assert contents["classifier"].pop("width") == 1.0
    contents["sha256"] = edgekd_runner.manifest_digest(contents)
    (folder / "manifest.json").write_text(json.dumps(contents))
    assert read_bundle(folder).manifest.classifier.width == 1.0


def test_the_hop_is_half_a_clip_unless_said(toy: Toy, tmp_path: Path) -> None:
    assert toy.write(tmp_path / "bundle").manifest.classifier.hop_samples == toy.SAMPLES // 2


def test_the_device_resamples_with_the_constants_of_the_training_data(toy: Toy, tmp_path: Path) -> None:
    resampler = toy.write(tmp_path / "bundle").manifest.classifier.resampler
    assert (resampler.lowpass_filter_width, resampler.rolloff) == (RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF)


def test_what_was_checked_and_what_stays_in_float_is_in_the_manifest(toy: Toy, tmp_path: Path) -> None:
    findings = Findings(
        Parity(clips=64, agreement=1.0, largest_difference=0.004),
        (
            Check(by="onnxruntime 1.32.0", precision="int8", figures={"clips": 64}),
            Check(by="a parser", precision="int8", not_run="not here"),
        ),
        FloatOperators(frontend={"Log": 1}, network=("network/softmax",)),
    )
    manifest = read_bundle(toy.write(tmp_path / "bundle", findings=findings).folder).manifest
    assert (manifest.parity, manifest.checks, manifest.float_operators) == (
        findings.parity,
        findings.checks,
        findings.float_operators,
    )


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden.npz", "edgekd_runner.py", "README.md", "build_engine.sh", "manifest.json"]
)
def test_a_changed_or_missing_file_is_refused_by_name(toy: Toy, tmp_path: Path, name: str) -> None:
    path = toy.write(tmp_path / "bundle", "jetson").folder / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(InputError, match=f"{name}: changed since|{name}: not valid JSON|{name}: not the manifest"):
        read_bundle(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: No such file"):
        read_bundle(tmp_path / "bundle")


def resign(folder: Path, contents: dict[str, Any]) -> None:
    contents["sha256"] = edgekd_runner.manifest_digest(contents)
    (folder / "manifest.json").write_text(json.dumps(contents))


def test_a_manifest_of_another_shape_is_refused_even_when_its_digest_is_right(toy: Toy, tmp_path: Path) -> None:
    folder = toy.write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    del contents["classifier"]["classes"]
    resign(folder, contents)
    with pytest.raises(InputError, match=r"manifest\.json: classifier.classes"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "place", ["../secret", "a/../../secret", "/secret", "a//secret", "a/.secret", "a/" * 9 + "secret"]
)
def test_a_manifest_cannot_point_outside_its_folder(place: str, toy: Toy, tmp_path: Path) -> None:
    folder = toy.write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    contents["files"][place] = "0" * 64
    resign(folder, contents)
    with pytest.raises(InputError, match=r"files\..*secret.*not the name of a file in the bundle"):
        read_bundle(folder)


def test_files_of_a_bundle_may_lie_in_folders(toy: Toy, tmp_path: Path) -> None:
    files = {"src/model.h": b"int a;\n", "a/b/c.txt": b"c"}
    folder = toy.write(tmp_path / "bundle").folder
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    contents = json.loads((folder / "manifest.json").read_text())
    contents["files"] |= {name: edgekd_runner.file_digest(folder / name) for name in files}
    resign(folder, contents)
    assert set(files) < set(read_bundle(folder).manifest.files)
    (folder / "src" / "model.h").write_text("int b;\n")
    with pytest.raises(InputError, match=r"src/model\.h: changed since the bundle was written"):
        read_bundle(folder)
    shutil.rmtree(folder / "src")
    with pytest.raises(InputError, match=r"src/model\.h: No such file"):
        read_bundle(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: No such file.*A bundle is a folder"):
        read_bundle(tmp_path)

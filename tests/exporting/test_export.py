from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile

from edgekd.data.index import Split
from edgekd.device.runner import Runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.export import MAX_CLIPS, export, verification_rows
from edgekd.exporting.golden import GOLDEN_CLIPS
from edgekd.exporting.graph import onnx_of
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.predict import RunPredictor
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import MIN_CLIPS
from edgekd.quantization.int8_student import load_int8
from edgekd.quantization.qat import quantize
from edgekd.runs.run import Run
from edgekd.training.distill import distill

TARGETS = ("jetson-orin-nano", "raspberry-pi-5", "cpu")


@pytest.fixture(scope="module")
def bundles(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle for a board of each kind."""
    folder = tmp_path_factory.mktemp("boards")
    return {name: export(tiny_run, name, folder / name).folder for name in TARGETS}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in which numpy and onnxruntime are all that is installed."""
    folder = tmp_path_factory.mktemp("device") / "python"
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    for package in (np, onnxruntime):
        installed = Path(package.__path__[0])
        for part in (installed, installed.with_name(f"{installed.name}.libs")):  # shared libraries of a wheel
            if part.exists():
                (packages / part.name).symlink_to(part)
    return python


def on_device(device: Path, bundle: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [device, "-I", bundle / "edgekd_runner.py", *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_the_device_of_these_tests_has_no_torch(device: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'soundfile', 'edgekd', 'numpy') if u.find_spec(n)])"
    done = subprocess.run([device, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['numpy']"


@pytest.mark.parametrize("name", TARGETS)
def test_a_bundle_verifies_itself_with_numpy_and_onnxruntime_alone(
    bundles: dict[str, Path], device: Path, name: str
) -> None:
    done = on_device(device, bundles[name], "verify", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["agrees"]
    assert (outcome["clips"], outcome["engine"]) == (GOLDEN_CLIPS, "onnxruntime")
    assert ("build_engine.sh" in done.stderr) == (name == "jetson-orin-nano")


def test_a_bundle_predicts_on_a_device_what_the_run_predicts(
    bundles: dict[str, Path], device: Path, tiny_run: Run, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).standard_normal(11_025)
    soundfile.write(tmp_path / "clip.wav", 0.1 * noise, 11_025)
    expected = RunPredictor(tiny_run.folder).predict_file(tmp_path / "clip.wav")[0]
    for name, bundle in bundles.items():
        done = on_device(device, bundle, "predict", "--json", "--top", "5", tmp_path / "clip.wav")
        assert done.returncode == 0, done.stderr
        top = json.loads(done.stdout)["files"][0]["top"]
        scores = {entry["class"]: entry["score"] for entry in top}
        tolerance = load_target(name).tolerance.probability
        assert scores == pytest.approx(dict(zip(tiny_run.classes, expected.tolist(), strict=True)), abs=tolerance)


def test_a_bundle_that_was_tampered_with_is_refused_on_the_device(
    bundles: dict[str, Path], device: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundles["cpu"], tmp_path / "bundle"))
    with open(bundle / "model.onnx", "ab") as file:
        file.write(b"x")
    for command in (["verify"], ["predict", tmp_path / "any.wav"], ["bench"]):
        done = on_device(device, bundle, *command)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.strip().endswith(
            "model.onnx: changed since the bundle was written. Copy or export the bundle again."
        )
        assert len(done.stderr.splitlines()) == 1


def test_a_student_of_another_width_goes_the_whole_way(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    sizes = {"student": "hltdnn_micro", "width": 0.5}
    quick = {"loss": {"terms": ("classification",)}, "training": {"epochs": 1}, "quantize": {"method": "ptq"}}
    run = Run.open(quantize(distill(tiny_config(tmp_path / "run", **sizes, **quick))).folder)
    assert "\nwidth = 0.5\n" in (run.folder / "config.toml").read_text()
    assert (run.student().width, run.student().tap_channels, load_int8(run).width) == (0.5, 12, 0.5)
    bundle = export(run, "cpu", tmp_path / "bundle")
    classifier = bundle.manifest.classifier
    assert (classifier.student, classifier.width) == ("hltdnn_micro", 0.5)
    assert "| Student | hltdnn_micro x0.5, distilled on sonar_sim" in (bundle.folder / "README.md").read_text()


@pytest.mark.parametrize("name", TARGETS)
def test_a_bundle_says_where_it_comes_from_and_what_was_checked(
    bundles: dict[str, Path], tiny_run: Run, name: str
) -> None:
    manifest = read_bundle(bundles[name]).manifest
    target, data = load_target(name), tiny_run.config.data
    assert manifest.target == target
    assert (manifest.classifier.classes, manifest.classifier.student) == (tiny_run.classes, "hltdnn_ds")
    assert (manifest.classifier.sample_rate, manifest.classifier.clip_samples) == (4_000, 4_000)
    assert (manifest.classifier.frontend, manifest.classifier.padding) == (tiny_run.config.frontend, data.padding)
    assert manifest.classifier.gain == pytest.approx(float(tiny_run.student().gain))
    assert (manifest.provenance.dataset, manifest.provenance.fold, manifest.provenance.seed) == ("sonar_sim", None, 3)
    data = tiny_run.open_data()
    index = data.index
    rows = data.split.test
    scores = Runner(bundles[name]).probabilities(data.store.waveforms(rows).numpy())
    right = np.mean(scores.argmax(axis=1) == [index.clips[row].label for row in rows])
    assert manifest.provenance.test_accuracy == pytest.approx(right, abs=1e-6)
    assert manifest.parity.clips == MIN_CLIPS
    assert manifest.parity.agreement >= target.tolerance.agreement
    assert manifest.parity.largest_difference <= target.tolerance.probability
    graph = onnx.load(bundles[name] / "model.onnx")
    assert graph.opset_import[0].version == target.opset
    zero_points = {tensor.data_type for tensor in graph.graph.initializer} & {onnx.TensorProto.UINT8}
    assert bool(zero_points) == (target.flavour == "onnxruntime")


class Perturbed(OnnxRuntime):
    """ONNX Runtime, with every layer's weights turned round."""

    def emit(self, *arguments: Any) -> dict[str, bytes]:
        return {name: perturbed(model) for name, model in super().emit(*arguments).items()}


def perturbed(model: bytes) -> bytes:
    graph = onnx.load_from_string(model)
    weights = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    for tensor in weights:
        if len(tensor.dims) >= 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    return bytes(graph.SerializeToString())


def test_a_graph_that_says_something_else_leaves_no_bundle(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "onnxruntime", Perturbed())
    with pytest.raises(GateError, match=r"does not agree with the trained one on 64 clips: .*largest difference"):
        export(tiny_run, "cpu", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_older_bundle_outlives_an_export_that_fails(
    tiny_run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(RUNTIMES, "onnxruntime", Perturbed())
    with pytest.raises(GateError):
        export(tiny_run, "cpu", out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_bundle_over_the_storage_budget_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    small = load_target("cpu").model_copy(update={"storage_bytes": 50_000})
    with pytest.raises(GateError, match=r"target 'cpu' allows 50,000"):
        export(tiny_run, small, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_before_anything_is_read(tiny_copy: Run, tmp_path: Path) -> None:
    (tiny_copy.folder / "report.json").unlink()
    with pytest.raises(UsageError, match="already exists"):
        export(tiny_copy, "cpu", tmp_path)
    with pytest.raises(InputError, match="interrupted"):
        export(tiny_copy, "cpu", tmp_path / "bundle")


def test_progress_counts_steps_and_in_each_what_takes_long(tiny_run: Run, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int, Any]] = []
    bundle = export(
        tiny_run,
        "jetson-orin-nano",
        tmp_path / "bundle",
        lambda stage, done, total, /, **figures: heard.append((stage, done, total, figures.get("step"))),
    )
    steps = ("graph", "structure", "verify", "bundle", "done")
    assert [each for each in heard if each[0] == "export"] == [
        ("export", number, 5, step) for number, step in enumerate(steps, 1)
    ]
    assert {"hash files", "check cached clips"} <= {stage for stage, *_ in heard}, "opening the data is told of too"
    counted = {stage: [each[1:3] for each in heard if each[0] == stage] for stage, *_ in heard}
    clips, tests = bundle.manifest.parity.clips, len(tiny_run.open_data().split.test)
    assert counted["graphs"] == [(done, 3) for done in range(4)]
    assert counted["verify"] == 3 * [(done, clips) for done in range(0, clips + 1, 8)], "in each precision"
    assert counted["verify by reference"] == 3 * [(done, 4) for done in range(5)]
    assert counted["parse"] == 3 * [(0, 1), (1, 1)]
    assert counted["test clips"][-1] == (tests, tests)


def test_boards_of_one_form_share_the_graphs_that_were_built(tiny_run: Run, tmp_path: Path) -> None:
    first, second = (export(tiny_run, name, tmp_path / name) for name in ("cpu", "raspberry-pi-5"))
    assert (first.folder / "model.onnx").read_bytes() == (second.folder / "model.onnx").read_bytes()
    assert onnx_of(deployable_of(tiny_run, "int8"), "onnxruntime") is onnx_of(
        deployable_of(tiny_run, "int8"), "onnxruntime"
    )


def test_verification_takes_test_clips_and_fills_up_with_the_others() -> None:
    split = Split(train=tuple(range(100)), validation=tuple(range(100, 110)), test=tuple(range(110, 160)))
    assert verification_rows(split) == [*range(110, 160), *range(100, 110), *range(4)]
    enough = Split(train=(0,), validation=(1,), test=tuple(range(2, 2 + MIN_CLIPS)))
    assert verification_rows(enough) == list(enough.test)
    with pytest.raises(InputError, match="has 63 clips; verifying an export takes 64"):
        verification_rows(Split(train=tuple(range(61)), validation=(61,), test=(62,)))


@pytest.mark.parametrize("clips", [MAX_CLIPS, MAX_CLIPS + 1, 3 * MAX_CLIPS, 100_003])
def test_verification_of_a_large_test_side_takes_clips_from_all_over_it(clips: int) -> None:
    rows = verification_rows(Split(train=(), validation=(), test=tuple(range(clips))))
    assert MAX_CLIPS / 2 < len(rows) <= MAX_CLIPS
    assert rows[-1] >= clips - clips / len(rows) - 1
    assert len(set(np.diff(rows))) == 1


def test_the_device_is_the_python_of_these_tests(device: Path) -> None:
    asked = [device, "-c", "import sys; print(sys.version)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == sys.version


@pytest.mark.slow  # PyTorch's exporter is
def test_a_graph_that_pytorch_wrote_is_told(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.exporting import graph
    from edgekd.exporting.onnx_writer.sheet import Unknown

    def write(*_: object) -> None:
        raise Unknown("Swish")

    monkeypatch.setattr(graph, "write", write)
    graph._onnx_of.cache_clear()
    try:
        assert export(tiny_run, "cpu", tmp_path / "bundle").manifest.unwritten == "Swish"
    finally:
        graph._onnx_of.cache_clear()

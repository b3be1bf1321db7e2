"""A classifier of three tones, small enough to check by hand, in bundles as `edgekd.exporting` writes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekd.audio import read as audio
from edgekd.config import FrontendConfig
from edgekd.device import RUNNER_FILE, runner
from edgekd.exporting.targets import load_target
from edgekd.log_mel import LogMel

Samples = NDArray[np.float32]


class Toy:
    """Clips of 0.1 s at 8 kHz, a window every 37.5 ms; what is heard loudest wins."""

    TONES: ClassVar = {"low": 300.0, "middle": 900.0, "high": 2_100.0}  # class -> Hz
    RATE, CLIP, HOP, GAIN = 8_000, 800, 300, 0.7
    FLOAT_BIAS = 0.3
    FRONTEND = FrontendConfig(n_fft=128, hop_length=64, n_mels=12, f_min=50.0, f_max=3_900.0)
    FILTER: ClassVar = {"lowpass_filter_width": audio.RESAMPLE_FILTER_WIDTH, "rolloff": audio.RESAMPLE_ROLLOFF}

    def tone(self, name: str, seconds: float, rate: int = RATE, amplitude: float = 0.5) -> Samples:
        time = np.arange(round(seconds * rate)) / rate
        return (amplitude * np.sin(2 * np.pi * self.TONES[name] * time)).astype(np.float32)

    def noise(self, samples: int, seed: int = 0) -> Samples:
        return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)

    def s16(self, waveform: Any) -> bytes:
        """What a sound card sends of it."""
        return bytes(np.round(np.asarray(waveform) * 32767).astype("<i2").tobytes())

    def positions(self, samples: int, clip: int = CLIP, hop: int = HOP) -> list[int]:
        """Where the windows of so many samples begin."""
        return list(range(0, samples - clip + 1, hop))

    def model(self, source: str = "waveform", batch: str | int = "batch", bias: float = 0.0) -> bytes:
        """Softmax over the power at each tone, or the log-mel of the band around it; `bias` is for the first."""
        shift = np.array([bias, 0, 0], np.float32)
        if source == "waveform":
            phase = 2 * np.pi * np.outer(np.arange(self.CLIP) / self.RATE, list(self.TONES.values()))
            weights = np.concatenate([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32) / 50
            weights2 = np.tile(np.eye(len(self.TONES), dtype=np.float32), (2, 1))
            nodes = [
                helper.make_node("MatMul", ["waveform", "weights"], ["parts"]),
                helper.make_node("Mul", ["parts", "parts"], ["squares"]),
                helper.make_node("MatMul", ["squares", "weights2"], ["scores"]),
            ]
            shape: list[str | int] = [batch, self.CLIP]
        else:
            frames, bands = self.CLIP // self.FRONTEND.hop_length + 1, self.FRONTEND.n_mels
            tones = torch.from_numpy(np.stack([self.tone(name, 0.1) for name in self.TONES]))
            loudest = LogMel(self.FRONTEND, self.RATE)(tones).mean(dim=(1, 2)).argmax(dim=1).numpy()
            weights = np.full((1, 1, frames, 1), 1 / frames, np.float32)
            weights2 = np.eye(bands, dtype=np.float32)[:, loudest] / 20
            nodes = [
                helper.make_node("Mul", ["log_mel", "weights"], ["shares"]),
                helper.make_node("ReduceSum", ["shares", "axes"], ["bands"], keepdims=0),
                helper.make_node("MatMul", ["bands", "weights2"], ["scores"]),
            ]
            shape = [batch, 1, frames, bands]
        nodes += [
            helper.make_node("Add", ["scores", "shift"], ["shifted"]),
            helper.make_node("Softmax", ["shifted"], ["probabilities"], axis=1),
        ]
        constants = {"weights": weights, "weights2": weights2, "shift": shift, "axes": np.array([1, 2])}
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, len(self.TONES)])],
            [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return bytes(model.SerializeToString())

    def scores(self, clips: Samples, source: str = "waveform", bias: float = 0.0) -> Samples:
        """`(B, K)` of clips `(B, CLIP)`, straight from onnxruntime and, for a log-mel, the training front end."""
        batch = clips
        if source == "log_mel":
            batch = LogMel(self.FRONTEND, self.RATE)(self.GAIN * torch.from_numpy(clips)).numpy()
        session = onnxruntime.InferenceSession(self.model(source, bias=bias), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {source: batch})[0])

    def write(
        self,
        folder: Path,
        target: str = "cpu",
        *,
        source: str = "waveform",
        batch: str | int = "dynamic",
        precision: str = "int8",
        alternatives: Sequence[str] = (),
        padding: str = "repeat",
        **heard: Any,
    ) -> Path:
        """A bundle folder. The alternatives are the float student, which is a little more for the first class. `heard`:
        what older bundles do not say."""
        labels = np.arange(12) % len(self.TONES)
        waveform = np.round(np.stack([self.tone(name, 0.1) for name in self.TONES])[labels] / 0.5 * 32767)
        scale = np.full(len(labels), 0.1, np.float32)  # soft, so that no score is a plain 0 or 1
        clips = (waveform * (scale / np.float32(32767))[:, None]).astype(np.float32)
        expected = {
            "probabilities": self.scores(clips, source),
            "float_probabilities": self.scores(clips, source, self.FLOAT_BIAS if alternatives else 0.0),
        }
        folder.mkdir()
        dimension = "batch" if batch == "dynamic" else batch
        (folder / "model.onnx").write_bytes(self.model(source, dimension))
        for name in alternatives:
            (folder / f"model-{name}.onnx").write_bytes(self.model(source, dimension, self.FLOAT_BIAS))
        np.savez_compressed(
            folder / "golden.npz", waveform=waveform.astype(np.int16), scale=scale, labels=labels, **expected
        )
        shutil.copyfile(RUNNER_FILE, folder / "edgekd_runner.py")
        (folder / "README.md").write_text("What to type here.\n")
        board = load_target(target)
        classifier = {
            "classes": list(self.TONES),
            "sample_rate": self.RATE,
            "clip_samples": self.CLIP,
            "hop_samples": self.HOP,
            "padding": padding,
            "input": source,
            "batch": batch,
            "frontend": self.FRONTEND.model_dump(),
            "gain": self.GAIN,
            "resampler": self.FILTER,
            **heard,
        }
        manifest = {
            "format": 1,
            "classifier": classifier,
            "target": board.model_dump(mode="json"),
            "precision": precision,
            "alternatives": {name: f"model-{name}.onnx" for name in alternatives},
            "files": {path.name: "" for path in sorted(folder.iterdir())},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        self.sign(folder)
        return folder

    def build(self, folder: Path, *precisions: str) -> None:
        """What build_engine.sh does, as far as these tests see it."""
        graphs = runner.graphs(json.loads((folder / "manifest.json").read_text()))
        for precision in precisions:
            (folder / f"model-{precision}.engine").write_bytes(
                b"plan" + (folder / graphs[precision.removesuffix("-dla")]).read_bytes()
            )

    def build_with_bias(self, folder: Path, **biases: float) -> None:
        """Engines with another bias for the first class, which tells them apart and from the reference."""
        for precision, bias in biases.items():
            dimension = json.loads((folder / "manifest.json").read_text())["classifier"]["batch"]
            model = self.model(batch="batch" if dimension == "dynamic" else dimension, bias=bias)
            (folder / f"model-{precision}.engine").write_bytes(b"plan" + model)

    def sign(self, folder: Path, **changes: Any) -> None:
        """Change entries of the manifest so that only a look at their meaning can tell."""
        manifest = json.loads((folder / "manifest.json").read_text()) | changes
        manifest["files"] = {name: runner.file_digest(folder / name) for name in manifest["files"]}
        manifest["sha256"] = runner.manifest_digest(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def classifier(self, folder: Path, **changes: Any) -> None:
        """Change entries of the manifest's classifier in the same way."""
        self.sign(folder, classifier=json.loads((folder / "manifest.json").read_text())["classifier"] | changes)

    def command(self, folder: Path, *arguments: str | Path, before: str = "") -> list[str]:
        """How to run the bundle's own runner in a process of its own, after the code `before`."""
        if not before:
            return [sys.executable, "-I", str(folder / "edgekd_runner.py"), *map(str, arguments)]
        code = f"import sys, time; sys.path.insert(0, {str(folder)!r}); import edgekd_runner\n{before}\n"
        code += "sys.exit(edgekd_runner.main(sys.argv[1:]))"
        return [sys.executable, "-B", "-c", code, *map(str, arguments)]

    def run(
        self, folder: Path, *arguments: str | Path, sound: bytes = b"", before: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it on `sound` as its standard input."""
        command = self.command(folder, *arguments, before=before)
        return subprocess.run(command, input=sound, capture_output=True, check=False, timeout=120)


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def written(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write(tmp_path_factory.mktemp("runner") / "bundle")


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def written_log_mel(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its front end is the runner's."""
    return toy.write(tmp_path_factory.mktemp("log_mel") / "bundle", source="log_mel")

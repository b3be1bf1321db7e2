"""A small finished run on real files, profiled once for all tests of the room."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekd.config import DataConfig, DistillConfig, FrontendConfig, ProfileConfig, TeacherConfig
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, write_splits
from edgekd.exporting.bundle import Findings, write_bundle
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.golden import GoldenExamples
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Bundle, Classifier, Parity, Provenance
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import session
from edgekd.models.build import build_student, build_teacher
from edgekd.models.students.student import Student
from edgekd.models.weights import save_weights
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.remote import profile_hosts
from edgekd.profiling.visit import HostFailure, HostResult
from edgekd.quantization.calibration import calibrate, load_recipe
from edgekd.quantization.prepare import prepare
from edgekd.report.results import Profile
from edgekd.runs.run import Run
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.scores import score

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")
RATE, SECONDS = 8_000, 0.5
QUICKLY = ProfileConfig(repetitions=10, seconds=1.0, batches=(1, 4))
PITCH_HZ = {"high": 2000.0, "low": 150.0, "middle": 600.0}


@dataclass(frozen=True)
class Profiled:
    """A run, its profile, the student, and the graphs that were measured, by subject."""

    run: Run
    profile: Profile
    student: Student
    graphs: dict[str, bytes]


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    from edgekd.profiling.profiler import profile

    run, student = _finished_run(tmp_path_factory.mktemp("profiled"))
    found = profile(run, QUICKLY)
    graphs = {
        role: onnx_of(deployable_of(run, precision), "onnxruntime", Form(computes_weights=True))
        for role, precision in (("student", "fp32"), ("int8", "int8"))
    }
    return Profiled(run, found, student, graphs)


def _finished_run(folder: Path) -> tuple[Run, Student]:
    """A run folder as training leaves it, with a student that has seen a few steps only."""
    _write_tones(folder / "data")
    config = DistillConfig(
        out=folder / "run",
        student="hltdnn_ds",
        data=DataConfig(dataset="folder", data_dir=folder / "data", sample_rate=RATE, clip_seconds=SECONDS),
        frontend=FrontendConfig(n_fft=256, hop_length=80, n_mels=32, f_min=50, f_max=4000),
        teacher=TeacherConfig(name="convnet"),
    )
    index = load_index(config.data)
    split = make_split(index, config.data)
    store = open_store(index, config.data)
    run = Run.create(config, index.classes, "cpu")
    write_splits(run.folder / "splits.csv", index, split)

    torch.manual_seed(0)
    teacher = build_teacher("convnet", 3, None, RATE, config.frontend).eval()
    student = build_student("hltdnn_ds", 3, RATE, config.frontend)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    waveforms, labels = store.waveforms(split.train), torch.tensor([index.clips[row].label for row in split.train])
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(student(waveforms).logits, labels).backward()
        optimizer.step()
    student.eval()
    save_weights(run.stage_folder("teacher") / "best.safetensors", teacher.state_dict())
    save_weights(run.stage_folder("student") / "best.safetensors", student.state_dict())

    quantised = build_student("hltdnn_ds", 3, RATE, config.frontend).eval()
    quantised.load_state_dict(student.state_dict())
    with torch.no_grad():
        log_mel = quantised.log_mel(waveforms)
        quantised.network = network = prepare(quantised.network, log_mel[:1])
        calibrate(network, [log_mel], load_recipe("default"))
    save_weights(run.stage_folder("int8") / "best.safetensors", quantised.state_dict())

    truth = [index.clips[row].label for row in split.test]
    groups = [index.clips[row].group for row in split.test]
    for name, model in {"teacher": teacher, "student": student, "int8": quantised}.items():
        probabilities = predict_probabilities(lambda clips, model=model: model(clips).logits, store, split.test)
        run.update_report("test", {name: score(probabilities, truth, groups, index.classes).to_dict()})
    return run, student


def _write_tones(data: Path) -> None:
    """Ten recordings a class, of two clips each: a tone of about the class's pitch in noise."""
    generator = np.random.default_rng(0)
    time = np.arange(2 * int(RATE * SECONDS)) / RATE
    for name, pitch in PITCH_HZ.items():
        (data / name).mkdir(parents=True)
        for number in range(10):
            tone = np.sin(2 * np.pi * pitch * generator.uniform(0.9, 1.1) * time)
            noisy = 0.3 * tone + 0.1 * generator.standard_normal(len(time))
            soundfile.write(data / name / f"{number}.wav", noisy.clip(-1, 1), RATE)


@pytest.fixture(scope="session")
def bundle(profiled: Profiled, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What export makes of the run for a Jetson, from the int8 graph that was profiled. Read-only."""
    run, graph = profiled.run, profiled.graphs["int8"]
    clips = clips_of_run(run)
    waveforms = clips.store.waveforms(clips.rows[:6]).numpy()
    scale = np.abs(waveforms).max(axis=1).astype(np.float32)
    integers = np.round(waveforms / scale[:, None] * 32767).astype(np.int16)
    exact = integers * scale[:, None] / np.float32(32767)
    data = run.config.data
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        {"model.onnx": graph},
        {"int8": "model.onnx"},
        classifier=Classifier(
            student="hltdnn_ds",
            classes=run.classes,
            sample_rate=data.sample_rate,
            clip_samples=waveforms.shape[1],
            padding=data.padding,
            frontend=run.config.frontend,
            gain=1.0,
        ),
        provenance=Provenance(run=str(run.folder), dataset="folder", fold=None, seed=0, test_accuracy=None),
        findings=Findings(Parity(clips=64, agreement=1.0, largest_difference=0.0)),
        golden=GoldenExamples(
            waveform=integers,
            scale=scale,
            probabilities=session(graph).run(None, {"waveform": exact.astype(np.float32)})[0],
            labels=np.array(clips.labels[:6], dtype=np.int64),
        ),
        target=load_target("jetson"),
    )


@pytest.fixture
def convolutions() -> onnx.ModelProto:
    """Two convolutions with ReLUs, which are fused, and a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="stem/relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], name="body/conv"),
        helper.make_node("Relu", ["c"], ["d"], name="body/relu"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "u"], ["y"], name="classifier/gemm"),
    ]
    random = np.random.default_rng(0)
    shapes = {"w": (16, 3, 3, 3), "v": (32, 16, 1, 1), "u": (32, 4)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 20, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@dataclass(frozen=True)
class Server:
    """An sshd on loopback: how to reach it, and the folder where what it runs makes its temporary ones."""

    ssh: tuple[str, ...]
    port: int
    temporary: Path
    folder: Path

    def host(self, name: str = "127.0.0.1") -> str:
        return f"{getpass.getuser()}@{name}"

    def left(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs sshd: sudo apt install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    temporary = folder / "tmp"
    temporary.mkdir()
    for name in ("host_key", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "SetEnv": f"TMPDIR={temporary}",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    key = (folder / "host_key.pub").read_text()
    names = "\n".join(f"[{name}]:{port} {key}" for name in ("127.0.0.1", "localhost"))
    (folder / "known_hosts").write_text(names)
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)
    try:
        _until(lambda: _answers(port) or process.poll() is not None, 10)
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"sshd does not start here: {process.stderr.read().decode().strip()}")
        ssh = ("ssh", "-F", "none", "-p", str(port), "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes")
        yield Server((*ssh, "-o", f"UserKnownHostsFile={folder / 'known_hosts'}"), port, temporary, folder)
    finally:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def write_product() -> Callable[[Path, str], Bundle]:
    """Writes a bundle of a classifier that is one product; what the log-mel is does not matter there."""

    def write(folder: Path, target: str) -> Bundle:
        weights = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["waveform", "weights"], ["scores"], name="scores"),
                helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1, name="probabilities"),
            ],
            "product",
            [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 64])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array(weights, "weights")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
        clips = (np.random.default_rng(1).standard_normal((6, 64)) * 3000).astype(np.int16)
        scale = np.ones(6, np.float32)
        (expected,) = session(model).run(
            None, {"waveform": clips.astype(np.float32) * (scale / np.float32(32767))[:, None]}
        )
        return write_bundle(
            folder,
            {"model.onnx": model},
            {"int8": "model.onnx"},
            classifier=Classifier(
                student="hltdnn_ds",
                classes=("a", "b", "c"),
                sample_rate=8_000,
                clip_samples=64,
                padding="zeros",
                frontend=FrontendConfig(n_fft=128, hop_length=64, n_mels=12, f_min=50.0, f_max=3_900.0),
                gain=1.0,
            ),
            provenance=Provenance(run="run", dataset="folder", fold=None, seed=0, test_accuracy=None),
            findings=Findings(Parity(clips=64, agreement=1.0, largest_difference=0.0)),
            golden=GoldenExamples(clips, scale, expected, np.arange(6) % 3),
            target=load_target(target),
        )

    return write


@pytest.fixture(scope="session")
def product(write_product: Callable[[Path, str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Read-only."""
    return write_product(tmp_path_factory.mktemp("product") / "product", "cpu")


@pytest.fixture
def visit_host(server: Server, product: Bundle) -> Callable[..., HostResult | HostFailure]:
    def one(host: str | None = None, **settings: Any) -> HostResult | HostFailure:
        settings = {"ssh": server.ssh, "python": sys.executable, "runs": 20} | settings
        folder = settings.pop("folder", product.folder)
        (found,) = profile_hosts(folder, [host or server.host()], **settings)
        return found

    return one

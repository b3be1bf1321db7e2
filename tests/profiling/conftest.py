"""A small finished run on real files, profiled once for all tests of the room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.config import DataConfig, DistillConfig, FrontendConfig, ProfileConfig, TeacherConfig
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, write_splits
from edgekd.exporting.bundle import Bundle, Classifier, Findings, GoldenExamples, Parity, Provenance, write_bundle
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import session
from edgekd.models.build import build_student, build_teacher
from edgekd.models.students.student import Student
from edgekd.models.weights import save_weights
from edgekd.profiling.accuracy import clips_of_run
from edgekd.quantization.calibration import calibrate, load_recipe
from edgekd.quantization.prepare import prepare
from edgekd.report.results import Profile
from edgekd.runs.run import Run
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.scores import score

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
    from edgekd.profiling import subjects
    from edgekd.profiling.profile import profile

    folder = tmp_path_factory.mktemp("profiled")
    with pytest.MonkeyPatch.context() as patch:
        graphs: dict[str, bytes] = {}
        exporters = {"student": subjects.float_onnx, "int8": subjects.quantized_onnx}

        def float_onnx(*arguments: object) -> bytes:
            graphs["student"] = exporters["student"](*arguments)
            return graphs["student"]

        def quantized_onnx(*arguments: object) -> bytes:
            graphs["int8"] = exporters["int8"](*arguments)
            return graphs["int8"]

        patch.setattr(subjects, "float_onnx", float_onnx)
        patch.setattr(subjects, "quantized_onnx", quantized_onnx)
        run, student = _finished_run(folder)
        # Returned, not yielded: the patches end here, and what tests elsewhere export does not come into `graphs`.
        return Profiled(run, profile(run, QUICKLY), student, graphs)


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
        {"int8": graph},
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

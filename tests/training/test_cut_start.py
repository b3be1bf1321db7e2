"""Runs of students that are cut from their teacher: what they start with, what is trained, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from edgekd.config import DistillConfig
from edgekd.errors import UsageError
from edgekd.exporting.export import export
from edgekd.models.students.cut import CutNetwork, cut_network
from edgekd.quantization.qat import quantize
from edgekd.runs.run import Run
from edgekd.training.cut_start import check_cut
from edgekd.training.distill import distill
from edgekd.training.new_teacher import settled

TinyConfig = Callable[..., DistillConfig]
CUT = "convnet-cut5"
SETTINGS = {"augment": {"mixes_per_clip": 1}, "loss": {"terms": ("classification", "distillation")}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: TinyConfig) -> Run:
    """A run whose student has the first five layers of its teacher, whole, under a head of its own."""
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("cut") / "run", student=CUT, quantize={"method": "ptq"}, **SETTINGS)
    return quantize(distill(config))


def test_its_layers_are_the_adapted_teachers(cut_run: Run) -> None:
    teacher = cut_run.teacher()
    assert teacher is not None
    student = cut_run.student()
    assert isinstance(student.network, CutNetwork)
    expected = cut_network(teacher, CUT, len(cut_run.classes), 1.0).eval()
    log_mels = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        ours, theirs = student.network(log_mels).tap, expected(log_mels).tap
    factors = ours.sum((0, 2, 3)) / theirs.sum((0, 2, 3)).clamp_min(1e-9)  # the ranges were evened out
    torch.testing.assert_close(theirs * factors.view(1, -1, 1, 1), ours, rtol=1e-3, atol=1e-4)


def test_its_start_is_an_epoch_0_and_nothing_else_was_trained(cut_run: Run) -> None:
    rows = [row for row in cut_run.metrics().rows if row["stage"] == "student"]
    assert [row["epoch"] for row in rows] == ["0"]
    assert cut_run.finished("student")
    student, data = cut_run.student(), cut_run.open_data()
    with torch.no_grad():
        answers = student(data.waveforms(data.split.train)).logits.argmax(1).numpy()
    assert (answers == data.side("train").labels).mean() > 0.8, "a head that was trained knows what it was taught"


def test_its_features_are_standardised_on_the_training_side(cut_run: Run) -> None:
    student, data = cut_run.student(), cut_run.open_data()
    network = student.network
    assert isinstance(network, CutNetwork)
    with torch.no_grad():
        features = network.spread(network.features(student.log_mel(data.waveforms(data.split.train))))
    torch.testing.assert_close(features.mean(0), torch.zeros(features.shape[1]), atol=1e-3, rtol=0)
    moving = network.spread.get_buffer("running_var") > 1e-6
    torch.testing.assert_close(features.std(0)[moving], torch.ones(int(moving.sum())), atol=0.02, rtol=0)


def test_it_ships_as_it_was_trained(cut_run: Run, tmp_path: Path) -> None:
    bundle = export(cut_run, "cpu", tmp_path / "bundle")
    assert bundle.manifest.parity.agreement == 1.0
    assert set(bundle.manifest.float_operators.frontend).isdisjoint({"QuantizeLinear"})


def test_a_narrower_one_is_trained_whole_and_resumes_bit_for_bit(tmp_path: Path, tiny_config: TinyConfig) -> None:
    training = {"adaptation": "full", "epochs": 3}

    def config(name: str) -> DistillConfig:
        return tiny_config(tmp_path / name, student=CUT, width=0.5, training=training, **SETTINGS)

    unbroken = distill(config("unbroken"))

    def stop(stage: str, done: int, _total: int, **_: object) -> None:
        if (stage, done) == ("student", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(config("broken"), stop)
    resumed = distill(config("broken"), resume=True)
    for name in ("student/best.safetensors", "predictions.csv"):
        assert (resumed.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    epochs = [row["epoch"] for row in unbroken.metrics().rows if row["stage"] == "student"]
    assert epochs == ["0", "1", "2", "3"]


def test_layers_move_slower_than_the_head(tmp_path: Path, tiny_config: TinyConfig) -> None:
    still = distill(tiny_config(tmp_path / "still", student=CUT, **SETTINGS)).student()
    training = {"adaptation": "full", "epochs": 1, "layer_rate": 0.01}
    run = distill(tiny_config(tmp_path / "full", student=CUT, training=training, **SETTINGS))
    last = torch.load(run.folder / "student" / "last.pt", weights_only=True)["model"]
    moved = {name: float((last[name] - tensor).abs().mean()) for name, tensor in still.named_parameters()}
    layer = moved["network.early.0.0.weight"]
    assert 0 < layer < 0.1 * moved["network.classifier.weight"]
    assert torch.equal(last["norm.running_mean"], still.norm.get_buffer("running_mean"))


OWN = """
import torch
from torch import nn

from edgekd.config import FrontendConfig
from edgekd.log_mel import LogMel
from edgekd.models.teachers.base import Layers, Teacher


class Ears(Teacher):
    def __init__(self, num_classes, sample_rate):
        super().__init__(num_classes, sample_rate, sample_rate, tap_channels=8, embedding_size=12)
        self.log_mel = LogMel(FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1900.0), sample_rate)
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU())

    def layers(self):
        return Layers([self.first, self.second], tap=1)

    def tap(self, waveform):
        return self.first(self.log_mel(waveform) / 50)

    def embed(self, waveform):
        tap = self.tap(waveform)
        return self.second(tap).mean((2, 3)), tap


def ears(num_classes, sample_rate):
    torch.manual_seed(0)
    return Ears(num_classes, sample_rate)
"""


@pytest.mark.usefixtures("own_code_trusted")
def test_a_teacher_of_ones_own_can_be_cut(
    tmp_path: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut_ears.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = {"name": "cut_ears:ears", "adaptation": "head", "epochs": 2}
    config = tiny_config(tmp_path / "run", student="cut_ears:ears-cut2", width=0.5, teacher=teacher, **SETTINGS)
    student = distill(config).student()
    assert isinstance(student.network, CutNetwork)
    assert [layer[0].out_channels for layer in student.network.chain()] == [4, 8]


def test_what_concerns_weights_that_are_trained_leaves_a_head_alone(
    cut_run: Run, tmp_path: Path, tiny_config: TinyConfig
) -> None:
    """Its batch norms are the teacher's, and its head has no steps to be averaged over."""
    training = {"weight_average": 0.9, "norm_statistics": "precise"}
    run = distill(tiny_config(tmp_path / "run", student=CUT, training=training, **SETTINGS))
    assert run.weights("student").read_bytes() == cut_run.weights("student").read_bytes()
    assert "norm_statistics" not in run.report()["training"]["student"]


def test_weights_that_are_not_there_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    config = settled(DistillConfig(student="yamnet-cut5"))
    with pytest.raises(UsageError, match="edgekd teachers fetch yamnet"):
        check_cut(config)


def test_terms_about_layers_that_stand_still_are_refused() -> None:
    values = {"student": "yamnet-cut5", "teacher": {"name": "yamnet", "weights": "w.npz"}}
    config = settled(DistillConfig.model_validate({**values, "loss": {"terms": ["classification", "structural"]}}))
    with pytest.raises(UsageError, match="structural teach layers"):
        check_cut(config)


def test_an_adaptation_of_other_students_is_refused() -> None:
    with pytest.raises(UsageError, match="starts from nothing"):
        check_cut(DistillConfig.model_validate({"training": {"adaptation": "head"}}))

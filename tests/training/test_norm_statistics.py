"""Batch norms of a small student, on noise of two levels, and in whole runs on simulated sonar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import AugmentConfig, DistillConfig, FrontendConfig
from edgekd.models.students.student import Student
from edgekd.models.weights import read_weights
from edgekd.progress import silent
from edgekd.runs.run import Run
from edgekd.training import compiled
from edgekd.training import distill as distill_module
from edgekd.training.batches import TrainingBatches
from edgekd.training.device_rows import Pending
from edgekd.training.distill import distill
from edgekd.training.norm_statistics import reestimate
from edgekd.training.shared_layers import BatchNorm, share_layers
from edgekd.training.views import draw_views

CLIPS, SAMPLES = 15, 800
ROWS = tuple(range(1, CLIPS))  # row numbers are not places
LEVELS = torch.where(torch.arange(CLIPS) < 8, 1e-3, 0.3)  # neighbours are alike
NOISE = torch.randn(CLIPS, SAMPLES, generator=torch.Generator().manual_seed(0)) * LEVELS[:, None]
HEARD = AugmentConfig(shifts_per_clip=3, mixes_per_clip=2, gain_db=12)


class Clips:
    """Noise in place of clips."""

    device = torch.device("cpu")

    def request(self, rows: Tensor, /) -> Pending:
        return lambda: NOISE[rows]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
        )
        self.features = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        tap = self.layers(log_mel)
        return self.head(self.features(tap.relu().mean((2, 3)))), tap


def student_of(**settings: bool) -> Student:
    torch.manual_seed(0)
    frontend = FrontendConfig(n_fft=64, hop_length=32, n_mels=8, f_max=1_900).at(4_000)
    student = Student("small", Network(), 3, frontend, 4_000, **settings)
    share_layers(student)
    return student


def batches_of(batch_size: int = 5, seed: int = 3) -> TrainingBatches:
    return TrainingBatches(
        stage="student",
        seed=seed,
        rows=ROWS,
        batch_size=batch_size,
        clips=Clips(),
        labels=torch.arange(CLIPS) % 2,
        num_classes=2,
        augment=HEARD,
        views=draw_views(ROWS, SAMPLES, HEARD, seed=1),
    )


def statistics(student: Student) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in student.named_buffers() if "running" in name}


def reestimated(batch_size: int = 5) -> dict[str, Tensor]:
    """The statistics of a new student; `test_processes` has several processes compute them."""
    student = student_of()
    assert reestimate(student, batches_of(batch_size), silent)
    return statistics(student)


@torch.no_grad()
def entering(student: Student, rows: Sequence[int]) -> dict[str, Tensor]:
    """The values `(C, N)` that come to each batch norm of a student in eval mode."""
    seen: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].double().transpose(0, 1).flatten(1)})
        )
        for name, module in student.named_modules()
        if isinstance(module, BatchNorm)
    ]
    student.eval()(NOISE[list(rows)])
    for handle in handles:
        handle.remove()
    return seen


def test_the_norm_of_mel_bins_has_mean_and_variance_of_all_clips_as_they_are() -> None:
    student = student_of()
    reestimate(student, batches_of(), silent)
    values = entering(student, ROWS)["norm"]
    torch.testing.assert_close(student.norm.running_mean, values.mean(1).float())
    torch.testing.assert_close(student.norm.running_var, values.var(1).float())


def test_in_one_batch_every_norm_has_the_statistics_of_what_then_enters_it() -> None:
    student = student_of()
    reestimate(student, batches_of(batch_size=len(ROWS)), silent)
    seen = entering(student, ROWS)
    assert len(seen) == 4
    for name, values in seen.items():
        norm = student.get_submodule(name)
        torch.testing.assert_close(norm.get_buffer("running_mean"), values.mean(1).float(), rtol=1e-2, atol=1e-3)
        # A batch is normalised by its biased variance, as ever, and the unbiased one is kept: here they differ.
        torch.testing.assert_close(norm.get_buffer("running_var"), values.var(1).float(), rtol=1e-2, atol=1e-5)


def test_batches_are_mixed_so_that_they_say_nearly_what_all_clips_say() -> None:
    """Batches of neighbours, each of one level, would have the second norm see four times the variance."""
    whole, parts = reestimated(len(ROWS)), reestimated(7)
    torch.testing.assert_close(parts["norm.running_var"], whole["norm.running_var"])
    ratio = parts["network.layers.1.running_var"] / whole["network.layers.1.running_var"]
    assert ((ratio > 0.8) & (ratio < 1.25)).all(), ratio


def test_it_is_the_same_whatever_was_there_before_and_takes_no_random_numbers() -> None:
    student, batches = student_of(), batches_of()
    reestimate(student, batches, silent)
    first = {name: each.clone() for name, each in student.state_dict().items()}
    student.train()(NOISE * 3)
    student.norm.get_buffer("running_mean").add_(5)
    tracked = student.norm.num_batches_tracked.clone()  # type: ignore[union-attr]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    reestimate(student, batches, silent)
    assert torch.equal(torch.get_rng_state(), state)
    again = student.state_dict()
    assert all(torch.equal(again[name], each) for name, each in first.items() if "tracked" not in name)
    assert torch.equal(again["norm.num_batches_tracked"], tracked), "these batches were no training"
    assert not any(module.training for module in student.modules())


def test_norms_that_came_with_their_weights_stay_as_they_are() -> None:
    student = student_of(keeps_norms=True)
    before = statistics(student)
    assert not reestimate(student, batches_of(), silent)
    assert all(torch.equal(each, before[name]) for name, each in statistics(student).items())


# In a run


@pytest.fixture
def plain(tiny_config: Callable[..., DistillConfig], tmp_path: Path) -> Callable[..., DistillConfig]:
    """A run without a teacher, of two epochs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def config(name: str, **training: Any) -> DistillConfig:
        return tiny_config(tmp_path / name, loss={"terms": ("classification",)}, training={"epochs": 2} | training)

    yield config  # type: ignore[misc]
    torch.set_num_threads(threads)


def test_a_run_ends_with_its_weights_and_their_statistics(plain: Callable[..., DistillConfig]) -> None:
    running = distill(plain("running"))
    precise = distill(plain("precise", norm_statistics="precise"))
    ours, theirs = (read_weights(run.weights("student")) for run in (precise, running))
    different = {name for name, each in ours.items() if not torch.equal(each, theirs[name])}
    assert different == {name for name in ours if "running" in name}
    assert [row["validation_loss"] for row in precise.metrics().rows] == [
        row["validation_loss"] for row in running.metrics().rows
    ]
    assert all(torch.equal(each, ours[name]) for name, each in precise.student().state_dict().items())
    figures = precise.report()["training"]["student"]["norm_statistics"]
    assert 0 <= figures["validation_accuracy"] <= 1
    assert precise.report()["test"]["student"] != running.report()["test"]["student"], "it is what is scored"
    assert "norm_statistics" not in running.report()["training"]["student"]


def test_a_run_that_ends_in_between_ends_alike(
    plain: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the statistics are computed, and before anything is scored by them."""
    settings = {"norm_statistics": "precise", "weight_average": 0.7}
    unbroken = distill(plain("unbroken", **settings))
    for name in ("settle_norms", "record_test"):
        with monkeypatch.context() as patch:
            patch.setattr(distill_module, name, _killed)
            with pytest.raises(KeyboardInterrupt):
                distill(plain(name, **settings))
        resumed = distill(plain(name, **settings), resume=True)
        assert resumed.weights("student").read_bytes() == unbroken.weights("student").read_bytes()
        assert resumed.report()["test"] == unbroken.report()["test"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_student_of_averaged_weights_is_the_one_that_is_scored(plain: Callable[..., DistillConfig]) -> None:
    run: Run = distill(plain("averaged", epochs=1, weight_average=0.7))
    last = torch.load(run.folder / "student" / "last.pt", weights_only=True)
    kept = run.student().state_dict()
    assert all(torch.equal(each, last["averaged"]["values"][name]) for name, each in kept.items())
    assert not all(torch.equal(each, last["model"][name]) for name, each in kept.items())


def test_a_compiled_student_is_averaged_and_heard_as_one_that_is_not(
    plain: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")  # traced, and not compiled, which takes minutes
    ends = []
    for how in ("off", "on"):
        run = distill(plain(how, compile=how, weight_average=0.7, norm_statistics="precise", learning_rate=1e-4))
        assert "warnings" not in run.report() or not any("compiled" in each for each in run.report()["warnings"])
        ends.append(run.student().state_dict())
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)

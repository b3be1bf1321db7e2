"""The teacher trained from scratch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from edgekd.config import FrontendConfig
from edgekd.models.teachers.convnet import ConvNet

LOW_RATE = FrontendConfig(n_fft=256, hop_length=80, f_min=10.0, f_max=2000.0)


def test_cost_is_what_a_cpu_can_train() -> None:
    teacher = ConvNet(5, 4_000, LOW_RATE).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(torch.randn(1, 149 * 80))  # 150 frames
    assert 20e6 < counter.get_total_flops() / 2 < 50e6
    assert sum(weight.numel() for weight in teacher.parameters()) < 600_000


def test_the_tap_follows_the_runs_own_front_end() -> None:
    teacher = ConvNet(5, 4_000, LOW_RATE).eval()
    with torch.no_grad():
        assert teacher.tap(torch.randn(2, 149 * 80)).shape == (2, 48, 75, 32)


def test_it_hears_every_frame_and_bin_where_the_student_hears_averages() -> None:
    steps = {"frames_per_step": 4, "bins_per_step": 2}
    teacher = ConvNet(5, 4_000, LOW_RATE.model_copy(update=steps)).eval()
    with torch.no_grad():
        assert teacher.tap(torch.randn(2, 149 * 80)).shape == (2, 48, 75, 32)


@pytest.mark.parametrize("n_mels", [8, 33])
def test_any_number_of_mel_bins_works(n_mels: int) -> None:
    teacher = ConvNet(5, 4_000, LOW_RATE.model_copy(update={"n_mels": n_mels})).eval()
    with torch.no_grad():
        assert teacher(torch.randn(2, 4_000)).logits.isfinite().all()


def test_training_separates_two_tones_in_a_few_steps() -> None:
    torch.manual_seed(0)
    time = torch.arange(2_000) / 4_000
    labels = torch.arange(8) % 2
    tones = torch.sin(2 * torch.pi * (300 + 500 * labels[:, None]) * time)
    teacher = ConvNet(2, 4_000, LOW_RATE)
    optimiser = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        F.cross_entropy(teacher(tones + torch.randn_like(tones)).logits, labels).backward()
        optimiser.step()
    with torch.no_grad():
        assert (teacher.eval()(tones + torch.randn_like(tones)).logits.argmax(dim=1) == labels).all()

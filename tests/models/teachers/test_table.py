"""What the table says of the teachers is what they are."""

from __future__ import annotations

import re

import pytest
import torch

from edgekd.config import FrontendConfig
from edgekd.models.teachers.table import TEACHERS


@pytest.mark.parametrize("name", sorted(set(TEACHERS) - {"ast", "whisper"}))  # those are as their folder says
def test_parameters_and_tap_are_those_of_the_built_teacher(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for quick in ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_", "normal_", "trunc_normal_"):
        monkeypatch.setattr(torch.nn.init, quick, lambda tensor, *_, **__: tensor)  # only shapes count here
    spec = TEACHERS[name]
    teacher = spec.build(10, 32_000, FrontendConfig(), None).eval()
    below = [weight for key, weight in teacher.named_parameters() if not key.startswith("head.")]
    assert sum(weight.numel() for weight in below) == spec.parameters
    with torch.no_grad():
        assert teacher.tap(torch.zeros(1, 160_000)).shape == (1, *spec.tap)


def test_every_pin_is_whole() -> None:
    """A digest that lost a character would refuse every download."""
    lengths = {"sha256": 64, "md5": 32}
    for name, spec in TEACHERS.items():
        if spec.file is None or spec.file.digest is None:
            continue
        algorithm, _, value = spec.file.digest.partition(":")
        assert re.fullmatch(rf"[0-9a-f]{{{lengths[algorithm]}}}", value), name
        assert spec.file.url.startswith("https://")
        assert "/" not in spec.file.name
    files = [spec.file.name for spec in TEACHERS.values() if spec.file is not None]
    assert len(set(files)) == len(files)  # they share a folder

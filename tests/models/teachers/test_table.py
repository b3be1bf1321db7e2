"""What the table says of the teachers is what they are."""

from __future__ import annotations

import re

import pytest
import torch

from edgekd.config import FrontendConfig
from edgekd.errors import UsageError
from edgekd.models.teachers.table import TEACHERS, published_file


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


def test_a_file_to_fetch_has_a_digest_or_is_refused() -> None:
    assert published_file("cnn14") == TEACHERS["cnn14"].file
    trusted = published_file("wavlm", "AB" * 32)
    assert trusted.digest == f"sha256:{'ab' * 32}"
    for name, sha256, words in (
        ("nobody", None, "Unknown teacher 'nobody'"),
        ("convnet", None, "has no file to fetch. Its weights: none needed"),
        ("cnn14", "ab" * 32, "is pinned already"),
        ("wavlm", "ab", "a sha256 has 64 hexadecimal digits"),
        ("wavlm", None, "no published digest of wavlm_base.pth is known"),
    ):
        with pytest.raises(UsageError, match=words):
            published_file(name, sha256)

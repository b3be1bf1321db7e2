from __future__ import annotations

import torch

from edgekd.losses.ssatkd.statistical import StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture, structural_loss
from edgekd.losses.terms import Compared
from edgekd.losses.textures import Statistical, Structural


def compared() -> tuple[torch.Tensor, torch.Tensor, Compared]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 3, 4, 40, 26, generator=generator)
    logits = torch.zeros(3, 2)
    return student, teacher, Compared(logits, torch.zeros(3, dtype=torch.long), None, None, student, teacher)


def test_the_structural_term_is_the_structural_loss_of_the_textures() -> None:
    student, teacher, both = compared()
    for levels in (2, 3):
        texture = StructuralTexture(levels, "max")
        expected = structural_loss(texture(student), texture(teacher))
        torch.testing.assert_close(Structural(levels, "max")(both), expected, rtol=1e-4, atol=1e-6)


def test_the_statistical_term_is_the_statistical_loss_of_the_co_occurrences() -> None:
    student, teacher, both = compared()
    texture = StatisticalTexture(5, "relative")
    for transport in ("sinkhorn", "published"):
        expected = statistical_loss(texture(student), texture(teacher), transport)  # type: ignore[arg-type]
        term = Statistical(5, "relative", transport)  # type: ignore[arg-type]
        torch.testing.assert_close(term(both), expected)

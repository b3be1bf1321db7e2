"""The texture terms: early feature maps of student and teacher, compared by their structure and their statistics."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.losses.ssatkd.statistical import Bandwidth, StatisticalTexture, Transport, statistical_loss
from edgekd.losses.ssatkd.structural import Fusion, StructuralTexture
from edgekd.losses.terms import Compared


class Structural(nn.Module):
    """`structural_loss` of the two taps' edges, computed without the textures themselves."""

    def __init__(self, levels: int, fusion: Fusion) -> None:
        super().__init__()
        self.texture = StructuralTexture(levels, fusion)

    def forward(self, compared: Compared) -> Tensor:
        assert compared.student_tap is not None
        assert compared.teacher_tap is not None
        return self.texture.distance(compared.student_tap, compared.teacher_tap)


class Statistical(nn.Module):
    """`statistical_loss` of the two taps' co-occurrences."""

    def __init__(self, levels: int, bandwidth: Bandwidth, transport: Transport) -> None:
        super().__init__()
        self.texture = StatisticalTexture(levels, bandwidth)
        self.transport = transport

    def forward(self, compared: Compared) -> Tensor:
        student, teacher = self.texture(compared.student_tap), self.texture(compared.teacher_tap)
        return statistical_loss(student, teacher, self.transport)

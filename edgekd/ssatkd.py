"""SSATKD: structural and statistical audio texture knowledge distillation (Ritu et al., arXiv 2501.01921).

What the teacher's early feature map looks like, as edges by scale and direction (`structural`) and as co-occurrence of
values (`statistical`), and the loss that has a student imitate it (`losses.total`).
"""

from edgekd.losses.response import distillation_loss
from edgekd.losses.ssatkd.statistical import Cooccurrence, StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture, structural_loss
from edgekd.losses.total import LossOutput, SSATKDLoss

__all__ = [
    "Cooccurrence",
    "LossOutput",
    "SSATKDLoss",
    "StatisticalTexture",
    "StructuralTexture",
    "distillation_loss",
    "statistical_loss",
    "structural_loss",
]

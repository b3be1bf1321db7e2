"""What a student makes of a clip before it classifies it, against what the teacher makes of it.

The hint of FitNets (Romero et al. 2015, arXiv 1412.6550), given at the last layer before the classes: a linear layer
brings the student's embedding to the size of the teacher's and is thrown away after training. It asks nothing of the
teacher's head, so a teacher that knows none of the classes can give it (S-SONDO, arXiv 2604.24933, distils embeddings
alone and takes the cosine).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import unknown_name
from edgekd.losses.terms import Compared

Distance = Literal["cosine", "mse"]


class Embedding(nn.Module):
    """`embedding_loss` of the student's embedding, projected, and the teacher's."""

    def __init__(self, kind: Distance) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, compared: Compared) -> Tensor:
        assert compared.student_embedding is not None
        assert compared.teacher_embedding is not None
        return embedding_loss(compared.student_embedding, compared.teacher_embedding, self.kind)


def embedding_loss(student: Tensor, teacher: Tensor, kind: Distance = "cosine") -> Tensor:
    """How far the student's embeddings are from the teacher's, `(B, E)` each: a scalar, mean over the batch.

    - `kind="cosine"`: `1 - cos(s, t)`, which asks for the direction alone.
    - `kind="mse"`: the mean square of `s - t'`, with `t'` the teacher's embedding brought to mean 0 and variance 1 over
      its E values, clip by clip, as data2vec does with its targets (Baevski et al. 2022, arXiv 2202.03555). Teachers
      differ in the size of their embeddings by orders of magnitude; the term does not: a student that says 0 has 1.
    """
    match kind:
        case "cosine":
            return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()
        case "mse":
            return F.mse_loss(student, F.layer_norm(teacher, teacher.shape[1:]))
        case _:
            raise unknown_name("embedding loss", kind, ("cosine", "mse"))

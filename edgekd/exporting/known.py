"""The score beside the classes that says how familiar a clip is, as the classifier computes it: `known (B,)`.

    logits (B, K)    --energy-->       max z - log max p, which is logsumexp(z); of classes that are answered each for
                                       itself sum log(1 + exp z)
    embedding (B, D) --mahalanobis-->  max_k  |factors' (e - m_k)|^2 - |e - m_k|^2 / s

(`edgekd.scoring.familiarity`). It is the second output of a graph whose run was told to reject the unknown, in every
precision. One threshold holds for all models of a bundle: the `shift` of each brings its own to that of the first.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekd.exporting.kept_rejection import Score
from edgekd.scoring.familiarity import Gaussians


@dataclass(frozen=True, eq=False)
class KnownScore:
    """A score; `gaussians` are those of the classes where it is "mahalanobis". `shift` is added to it.

    `independent`: each class is answered for itself, by a sigmoid.
    """

    score: Score
    gaussians: Gaussians | None = None
    shift: float = 0.0
    independent: bool = False

    @property
    def digest(self) -> str:
        """sha256 of all that it is computed with."""
        told = hashlib.sha256(f"{self.score} {self.shift!r} {self.independent}".encode())
        if self.gaussians is not None:
            told.update(repr((self.gaussians.means.shape, self.gaussians.rest)).encode())
            told.update(self.gaussians.means.tobytes() + self.gaussians.factors.tobytes())
        return told.hexdigest()

    def of(self, logits: Tensor, probabilities: Tensor, embedding: Tensor | None) -> Tensor:
        """`known (B,)` of `logits (B, K)`, their probabilities, and the `embedding (B, D)` where it needs one."""
        if self.gaussians is None and self.independent:
            known = torch.nn.functional.softplus(logits.float()).sum(dim=1)
        elif self.gaussians is None:
            # exp(max z - logsumexp z) is the highest probability, so this is logsumexp, and no large number is raised.
            known = logits.float().amax(dim=1) - probabilities.amax(dim=1).log()
        else:
            assert embedding is not None
            means, factors, nearness = (torch.from_numpy(part).to(logits.device) for part in self.arrays())
            apart = embedding.float().unsqueeze(1) - means
            along = torch.matmul(apart, factors)
            known = ((along * along).sum(dim=2) - (apart * apart).sum(dim=2) * nearness).amax(dim=1)
        return known + self.shift if self.shift else known

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means `(K, D)`, factors `(D, R)` and `1 / s`, in float32: what a graph stores."""
        assert self.gaussians is not None
        parts = self.gaussians.means, self.gaussians.factors, np.array(1 / self.gaussians.rest)
        means, factors, nearness = (np.asarray(part, dtype=np.float32, order="C") for part in parts)
        return means, factors, nearness

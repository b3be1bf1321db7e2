"""The histogram layer: statistical texture of a feature map, learned by back-propagation.

Peeples, Xu, Zare, *Histogram Layers for Texture Analysis*, IEEE TAI 2021; used for passive sonar in HLTDNN (Ritu et
al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FLOOR = 1e-5
GRID = 2  # local histograms are pooled to a GRID x GRID map; see `grid_windows` before changing it


class HistogramLayer(nn.Module):
    """Soft histogram of each channel: `(B, C, H, W)` -> `(B, C * bins * GRID * GRID)`.

    For channel c and bin k, `r = exp(-(gamma_ck (x_c - mu_ck))^2)`, normalised over the bins of a channel,
    `r / (sum_k r + FLOOR)`, then average-pooled to the grid. Centres `mu` and widths `gamma`, `(C, bins)`, are learned.

    On a CPU it learns by a gradient that is written out, in half the time.
    """

    def __init__(self, channels: int, bins: int = 16) -> None:
        super().__init__()
        centres = torch.linspace(-1.0, 1.0, bins)  # the range batch-normalised or small-weight features start in
        self.mu = nn.Parameter(centres.repeat(channels, 1))
        self.gamma = nn.Parameter(torch.full((channels, bins), bins / 4))
        self.channels, self.bins = channels, bins
        self.output_size = channels * bins * GRID * GRID

    def forward(self, features: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and features.device.type == "cpu":
            learned: Tensor = _LearnedShares.apply(features.flatten(2), self.mu, self.gamma)
            return torch.flatten(_grid_means(learned.unflatten(2, features.shape[2:])), start_dim=1)
        offset = features.unsqueeze(2) - self.mu[:, :, None, None]  # (B, C, K, H, W)
        scaled = self.gamma[:, :, None, None] * offset
        response = torch.exp(-(scaled * scaled))
        response = response / (response.sum(dim=2, keepdim=True) + FLOOR)
        return torch.flatten(_grid_means(response.flatten(1, 2)), start_dim=1)


class _LearnedShares(torch.autograd.Function):
    """The normalised responses `(B, C * bins, P)` of `features (B, C, P)`.

    `exp2` because MKL's `exp` takes three times as long, and most where it finds zero, as nearly everywhere here.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, mu: Tensor, gamma: Tensor) -> Tensor:
        offset = features[:, :, None] - mu[:, :, None]  # (B, C, bins, P)
        shares = (offset * gamma[:, :, None]).square_().mul_(-1 / math.log(2)).exp2_()
        shares.div_(shares.sum(2, keepdim=True).add_(FLOOR))
        ctx.save_for_backward(gamma, offset, shares)
        return shares.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gamma, offset, shares = ctx.saved_tensors
        weighed = gradient.unflatten(1, gamma.shape) * shares
        # With h = r / (sum r + FLOOR): d h_j / d r_k = (1[j = k] - h_j) / (sum r + FLOOR), and d r / d o = -2 g^2 o r.
        found = torch.addcmul(weighed, shares, weighed.sum(2, keepdim=True), value=-1).mul_(offset)
        squared = -2 * gamma.square()
        to_features = (squared.repeat(len(found), 1)[:, None] @ found.flatten(0, 1)).unflatten(0, found.shape[:2])
        to_mu = -squared * found.sum((0, 3))
        to_gamma = -2 * gamma * found.mul_(offset).sum((0, 3))
        return to_features[:, :, 0], to_mu, to_gamma


def _grid_means(response: Tensor) -> Tensor:
    """Means over a GRID x GRID partition, `(B, C, H, W)` -> `(B, C, GRID, GRID)`."""
    sides = response.shape[-2:]
    means = nn.functional.avg_pool2d(response, *grid_windows(sides))
    for dim, side in zip((-2, -1), sides, strict=True):
        if side == 1:
            means = torch.cat([means] * GRID, dim=dim)
    return means


def grid_windows(sides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Size and stride of the average pooling over a map with these `sides` that gives GRID x GRID means.

    The numbers of `adaptive_avg_pool2d`, whose cells overlap by one when a side is odd, as one average pooling, which
    every export target has: with two cells a side, a cell is half of it, rounded up, and the next one begins at half of
    it, rounded down. The cells of a side of 1 are the same, and come out as one.
    """
    return [-(-side // GRID) for side in sides], [max(1, side // GRID) for side in sides]

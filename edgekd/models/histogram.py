"""The histogram layer: statistical texture of a feature map, learned by back-propagation.

Peeples, Xu, Zare, *Histogram Layers for Texture Analysis*, IEEE TAI 2021; used for passive sonar in HLTDNN (Ritu et
al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

GRID = 2  # local histograms are pooled to a GRID x GRID map; see `grid_windows` before changing it


class HistogramLayer(nn.Module):
    """Soft histogram of each channel: `(B, C, H, W)` -> `(B, C * bins * GRID * GRID)`.

    For channel c and bin k, `r = exp(-(gamma_ck (x_c - mu_ck))^2)`, normalised over the bins of a channel,
    `r / (sum_k r + 1e-5)`, then average-pooled to the grid. Centres `mu` and widths `gamma`, `(C, bins)`, are learned.
    """

    def __init__(self, channels: int, bins: int = 16) -> None:
        super().__init__()
        centres = torch.linspace(-1.0, 1.0, bins)  # the range batch-normalised or small-weight features start in
        self.mu = nn.Parameter(centres.repeat(channels, 1))
        self.gamma = nn.Parameter(torch.full((channels, bins), bins / 4))
        self.channels, self.bins = channels, bins
        self.output_size = channels * bins * GRID * GRID

    def forward(self, features: Tensor) -> Tensor:
        offset = features.unsqueeze(2) - self.mu[:, :, None, None]  # (B, C, K, H, W)
        scaled = self.gamma[:, :, None, None] * offset
        response = torch.exp(-(scaled * scaled))
        response = response / (response.sum(dim=2, keepdim=True) + 1e-5)
        return torch.flatten(_grid_means(response.flatten(1, 2)), start_dim=1)


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

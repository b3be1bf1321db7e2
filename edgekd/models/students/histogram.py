"""The histogram layer: statistical texture of a feature map, learned by back-propagation.

Peeples, Xu, Zare, *Histogram Layers for Texture Analysis*, IEEE TAI 2021; used for passive sonar in HLTDNN (Ritu et
al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRID = 2  # local histograms are pooled to a GRID x GRID map


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
        return torch.flatten(_grid_means(response), start_dim=1)


def _grid_means(response: Tensor) -> Tensor:
    """Means over a GRID x GRID partition, `(..., H, W)` -> `(..., GRID, GRID)`; cells overlap by one when H or W is
    odd.

    The numbers of `adaptive_avg_pool2d`, as two products with constant matrices, which every export target has and runs
    faster than slices and means.
    """
    height, width = response.shape[-2:]
    rows = response.new_tensor(_cell_weights(height))  # (GRID, H)
    columns = response.new_tensor(_cell_weights(width))
    return torch.matmul(torch.matmul(rows, response), columns.t())


def _cell_weights(size: int) -> list[list[float]]:
    """For each cell what each of `size` positions counts in its mean."""
    cells = [(cell * size // GRID, -(-(cell + 1) * size // GRID)) for cell in range(GRID)]
    return [[1 / (end - start) if start <= position < end else 0.0 for position in range(size)] for start, end in cells]

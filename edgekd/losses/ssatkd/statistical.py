"""Statistical texture: how often which feature values meet in diagonal neighbours.

A soft, differentiable co-occurrence matrix of quantised feature values (Zhu et al., "Learning statistical texture for
semantic segmentation", CVPR 2021), as SSATKD uses it (Ritu et al., arXiv 2501.01921). A value is the similarity of one
place of the map to the map's mean:

    g = mean_hw F(:, h, w)        s(h, w) = cos(F(:, h, w), g)
    q_n = (2n + 1) / (2N) * (max s - min s) + min s               levels, n = 0 .. N-1
    e_n(h, w) = exp(-(s(h, w) - q_n)^2 / sigma^2)                 soft assignment
    P(m, n) = sum_hw e_m(h, w) * e_n(h + 1, w + 1)                co-occurrence, normalised to sum 1

The paper's sigma = 2 / N suits similarities that span [-1, 1]. After a ReLU they span [0, 1] at most, often less than
0.5, where it makes every place belong to every level nearly alike and the matrix nearly uniform whatever the texture.
`bandwidth="relative"` takes the spacing of the levels instead, sigma = (max s - min s) / N, and shares each place out
(e sums to 1 over the levels).

Student and teacher are compared as distributions over the plane: bin (m, n) lies at (q_m, q_n).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekd.errors import unknown_name
from edgekd.losses.ssatkd.kernels import in_kernels
from edgekd.losses.ssatkd.structural import NORM_FLOOR, full_precision
from edgekd.losses.ssatkd.transport import transport_cost

Bandwidth = Literal["paper", "relative"]
Transport = Literal["sinkhorn", "published"]

SPACING_FLOOR = 1e-4
"""The least spacing of levels, of similarities in [-1, 1]."""


class Cooccurrence(NamedTuple):
    """`cooccurrence (B, N, N)`, summing to 1 for each sample, and the value `levels (B, N)` of its rows and columns."""

    cooccurrence: Tensor
    levels: Tensor


class StatisticalTexture(nn.Module):
    """Co-occurrence of the values of diagonal neighbours: `features (B, C, H, W)` -> `Cooccurrence`.

    A map of a single row or column has no diagonal neighbours; there the next place along the other axis is the
    neighbour (teachers with a tap `(B, C, frames, 1)`), and a single place is its own.

    Half precision is raised to float32, inside autocast too.
    """

    def __init__(self, levels: int = 4, bandwidth: Bandwidth = "paper") -> None:
        super().__init__()
        if bandwidth not in ("paper", "relative"):
            raise unknown_name("bandwidth", bandwidth, ("paper", "relative"))
        self.levels = levels
        self.bandwidth = bandwidth

    def forward(self, features: Tensor) -> Cooccurrence:
        with torch.autocast(features.device.type, enabled=False):
            similarity = _similarity_to_mean(full_precision(features))  # (B, H, W)
            low, high = similarity.amin((1, 2)), similarity.amax((1, 2))
            centres = (torch.arange(self.levels, dtype=low.dtype, device=low.device) + 0.5) / self.levels
            levels = low[:, None] + centres * (high - low)[:, None]
            distance = similarity[:, None] - levels[:, :, None, None]
            if self.bandwidth == "paper":
                assignment = torch.exp(-(distance * self.levels / 2).square())
            else:
                # A constant map has no spacing; the floor lets its places belong to all levels.
                spacing = ((high - low) / self.levels).clamp_min(SPACING_FLOOR)[:, None, None, None]
                assignment = torch.softmax(-(distance / spacing).square(), dim=1)
            down, right = (int(size > 1) for size in similarity.shape[1:])
            height, width = similarity.shape[1:]
            here = assignment[:, :, : height - down, : width - right].flatten(2)
            there = assignment[:, :, down:, right:].flatten(2)
            if in_kernels(here) and torch.compiler.is_compiling():  # a few sums, too few for a GPU's matrix product
                counts = (here[:, :, None] * there[:, None]).sum(3)
            else:
                counts = here @ there.mT
            return Cooccurrence(counts / counts.sum((1, 2), keepdim=True), levels)


def statistical_loss(student: Cooccurrence, teacher: Cooccurrence, kind: Transport = "sinkhorn") -> Tensor:
    """Distance of two co-occurrence distributions, mean over the batch: a scalar.

    `kind="sinkhorn"` is the earth mover's distance between the bins in the plane, Euclidean ground distance, within 2 %
    (see `transport`). `kind="published"` is what the authors' code computes, for reproduction only: it
    compares cumulative sums of bins that do not correspond, and is not 0 for equal textures.
    """
    match kind:
        case "sinkhorn":
            ground = torch.linalg.vector_norm(
                _bin_positions(student.levels)[:, :, None] - _bin_positions(teacher.levels)[:, None], dim=-1
            )
            return transport_cost(student.cooccurrence.flatten(1), teacher.cooccurrence.flatten(1), ground).mean()
        case "published":
            return _published_distance(teacher, student)
        case _:
            raise unknown_name("statistical loss", kind, ("sinkhorn", "published"))


def _similarity_to_mean(features: Tensor) -> Tensor:
    """cos(F(:, h, w), g) over channels, `(B, H, W)`; 0 where a place has no activation."""
    if features.device.type == "cpu":
        found: Tensor = _Similarity.apply(features)
        return found
    mean = features.mean((2, 3))  # (B, C)
    if in_kernels(features) and torch.compiler.is_compiling():
        dot = (mean[:, :, None, None] * features).sum(1)  # with the sum of squares, at one go
    else:
        dot = (mean[:, None] @ features.flatten(2)).unflatten(2, features.shape[2:])[:, 0]
    # The floor stands under the root: after a ReLU many places are all zero, where the root alone has no gradient.
    place_norm = features.square().sum(1).clamp_min(NORM_FLOOR**2).sqrt()
    mean_norm = mean.square().sum(1).clamp_min(NORM_FLOOR**2).sqrt()
    return dot / (place_norm * mean_norm[:, None, None])


class _Similarity(torch.autograd.Function):
    """`_similarity_to_mean` of `features (B, C, H, W)`, its gradient written out: two operations of the size of the map
    in each direction, where the rules of differentiation take a dozen."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        places = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, P, C)
        mean = places.mean(1)
        dot = (mean[:, None] @ places.mT)[:, 0]  # a column in place of a row takes eight times as long
        of_places = torch.linalg.vector_norm(places, dim=2).square()
        of_mean = mean.square().sum(1, keepdim=True)
        norm = (of_places.clamp_min(NORM_FLOOR**2) * of_mean.clamp_min(NORM_FLOOR**2)).sqrt()
        similarity = dot / norm
        ctx.save_for_backward(places, mean, of_places, of_mean, norm, similarity)
        ctx.size = features.shape[2:]
        return similarity.unflatten(1, ctx.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        places, mean, of_places, of_mean, norm, similarity = ctx.saved_tensors
        of_dot = gradient.flatten(1) / norm
        along = -gradient.flatten(1) * similarity
        to_mean = (of_dot[:, None] @ places)[:, 0] + mean * _above_floor(along.sum(1, keepdim=True), of_mean)
        through_mean = to_mean[:, None] / places.shape[1]  # the same at each place
        found = torch.addcmul(through_mean, of_dot[:, :, None], mean[:, None])
        found.addcmul_(places, _above_floor(along, of_places)[:, :, None])
        return found.unflatten(1, ctx.size).permute(0, 3, 1, 2)


def _above_floor(values: Tensor, squares: Tensor) -> Tensor:
    """`values / squares`; 0 where the norm is its floor, which has no gradient."""
    return torch.where(squares >= NORM_FLOOR**2, values / squares.clamp_min(NORM_FLOOR**2), 0.0)


def _bin_positions(levels: Tensor) -> Tensor:
    """Where the bins lie: `(q_m, q_n)` for `levels (B, N)`, as `(B, N * N, 2)`."""
    batch, size = levels.shape
    rows = levels[:, :, None].expand(batch, size, size)
    return torch.stack((rows, rows.mT), dim=-1).flatten(1, 2)


def _published_distance(p: Cooccurrence, t: Cooccurrence) -> Tensor:
    """`mean_{b,i} sum_{j,k} D(i,j,k) * (A_p(i,j) - A_t(j,k))^2` with
    `D(i,j,k) = |(q^p_j - q^t_k, q^p_i - q^t_j)|` and A the cumulative sums of P over both axes.
    """
    cumulative_p = p.cooccurrence.cumsum(2).cumsum(1)
    cumulative_t = t.cooccurrence.cumsum(2).cumsum(1)
    difference = p.levels[:, :, None] - t.levels[:, None, :]  # [b, j, k] = q^p_j - q^t_k
    along, across = torch.broadcast_tensors(difference[:, None], difference[:, :, :, None])
    distance = torch.linalg.vector_norm(torch.stack((along, across), dim=-1), dim=-1)  # [b, i, j, k]
    squared = (cumulative_p[:, :, :, None] - cumulative_t[:, None]).square()
    return (distance * squared).sum((2, 3)).mean()

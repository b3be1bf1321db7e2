"""Layers that see the batch of all processes, so that a network learns in several as it does in one.

Two kinds of layer make the rows of a batch depend on one another or on their order: batch norms (statistics) and
dropout (one stream of random numbers). `share_layers` exchanges them; names and parameters stay what they are.

Means and sums of squares about them are put together as by Chan, Golub and LeVeque ("Updating formulae and a pairwise
algorithm for computing sample variances", 1979), which is exact where sums of squares about 0 cancel: log-mels of a
quiet band lie at -100 dB within a tenth. One collective goes forward and one back, on any device, for which
`torch.nn.SyncBatchNorm` needs a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd import processes

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def share_layers(module: nn.Module) -> None:
    """Have the batch norms and dropouts in `module` see the batch of all processes; nothing where there is one."""
    if processes.count() == 1:
        return
    for parent in module.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, BatchNorm) and layer.track_running_stats and type(layer) is not SharedBatchNorm:
                setattr(parent, name, SharedBatchNorm(layer))
            elif type(layer) is nn.Dropout:
                setattr(parent, name, SharedDropout(layer.p))


class SharedBatchNorm(nn.BatchNorm2d):
    """`norm`, for `(B, C)`, `(B, C, L)` and `(B, C, H, W)`, with the statistics of the rows of all processes."""

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        # The very tensors: an optimiser may hold them already.
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        with torch.autocast(x.device.type, enabled=False):
            mean, variance, count = _statistics(x.float())
        self._follow(mean.detach(), variance.detach(), count)
        channels = (1, -1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        normalised = (x - mean.view(channels)) * scale.view(channels)
        return (normalised + self.bias.view(channels) if self.affine else normalised).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class SharedDropout(nn.Dropout):
    """Dropout drawn for the rows of all processes, as each of them does alike, and applied to those here."""

    def forward(self, x: Tensor) -> Tensor:
        rows = processes.batch_rows()
        share = processes.share_of(rows)
        if not self.training or len(x) != share.stop - share.start:  # not by clips, or not in a batch of all
            return super().forward(x)
        kept = torch.empty(rows, *x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept[share] / (1 - self.p)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Its gradient is one too: what each process makes of the sum counts."""

    @staticmethod
    def forward(_ctx: object, own: Tensor) -> Tensor:
        return processes.summed(own.clone())

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return processes.summed(gradient.clone(memory_format=torch.contiguous_format))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance `(C,)` of each channel over all processes, and how many values they are of."""
    over = [dimension for dimension in range(x.ndim) if dimension != 1]
    own_count = x.numel() // x.shape[1]
    own_mean = x.mean(over)
    own_squares = (x - own_mean.view(1, -1, *[1] * (x.ndim - 2))).square().sum(over)
    own = torch.cat([own_mean, own_squares, torch.full((1,), own_count, device=x.device)])
    before, after = processes.rank(), processes.count() - 1 - processes.rank()
    table = _Sum.apply(nn.functional.pad(own[None], (0, 0, before, after)))  # a row each, and no copy from the host
    means, squares, counts = table[:, : len(own_mean)], table[:, len(own_mean) : -1], table[:, -1:]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variance = (squares.sum(0) + ((means - mean).square() * counts).sum(0)) / count
    return mean, variance, count

"""Layers that see the batch of all processes, so that a network learns in several as it does in one.

Two kinds of layer make the rows of a batch depend on one another or on their order: batch norms (statistics) and
dropout (one stream of random numbers). `share_layers` exchanges them; names and parameters stay what they are.

Means and variances are put together as by Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for
computing sample variances", 1979), which is exact where sums of squares about 0 cancel: log-mels of a quiet band lie at
-100 dB within a tenth. A layer's statistics depend on what the layer before made of its own, so there is one exchange a
layer forward and one back, of kilobytes, on any device, for which `torch.nn.SyncBatchNorm` needs a GPU.
"""

from __future__ import annotations

from typing import Any

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
            compiling = torch.compiler.is_compiling()  # which cannot look into the one, and fuses the other itself
            compute = _normalised if compiling else _Normalised.apply
            normalised, mean, variance, count = compute(x.float(), self.weight, self.bias, self.eps)
        self._follow(mean, variance, count)
        return normalised.to(x.dtype)

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


class _Normalised(torch.autograd.Function):
    """`x (B, C, ...)` at mean 0 and variance 1 over all processes, times `weight (C,)`, plus `bias (C,)`; and what it
    had: mean and (biased) variance `(C,)`, and how many values they are of.

    Each pass over `x` is one of PyTorch's own batch norm's: what it computes about given statistics, forward and back,
    holds here too, but for what the gradient owes to the statistics' being those of `x`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        normalised = nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, variance, count = ctx.saved_tensors
        # About given statistics the gradients of weight and bias are the sums that the gradient of `x` needs.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        of_x = None
        if ctx.needs_input_grad[0]:
            over_all = processes.summed(torch.stack([of_weight, of_bias]))
            scale = torch.rsqrt(variance + ctx.eps)
            if weight is not None:
                scale = scale * weight
            by_value, by_all = -scale / count * over_all
            of_x = nn.functional.batch_norm(x, mean, variance, by_value, by_all, False, 0.0, ctx.eps)
            of_x.addcmul_(gradient, scale.view(1, -1, *[1] * (x.ndim - 2)))
        if weight is None:
            return of_x, None, None, None
        return of_x, of_weight, of_bias, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance `(C,)` of each channel over all processes, and how many values they are of."""
    own_mean, own_variance = _own_statistics(x)
    own_count = own_mean.new_full((1,), x.numel() // x.shape[1])
    return _put_together(processes.stacked(torch.cat([own_mean, own_variance, own_count])))


def _put_together(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number of all values, of those of every process `(processes, 2 C + 1)`."""
    size = (table.shape[1] - 1) // 2
    means, variances, counts = table[:, :size], table[:, size:-1], table[:, -1:]
    count = counts.sum()
    shares = counts / count
    mean = (means * shares).sum(0)
    variance = ((variances + (means - mean).square()) * shares).sum(0)
    return mean, variance, count


def _normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_Normalised` gives, of operators that the compiler knows, and knows the gradients of."""
    over, channels = [dimension for dimension in range(x.ndim) if dimension != 1], (1, -1, *[1] * (x.ndim - 2))
    own_mean = x.mean(over)
    own_variance = (x - own_mean.view(channels)).square().mean(over)
    own = torch.cat([own_mean, own_variance, own_mean.new_full((1,), x.numel() // x.shape[1])])
    before, after = processes.rank(), processes.count() - 1 - processes.rank()
    mean, variance, count = _put_together(_Sum.apply(nn.functional.pad(own[None], (0, 0, before, after))))
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    normalised = (x - mean.view(channels)) * scale.view(channels)
    normalised = normalised if bias is None else normalised + bias.view(channels)
    return normalised, mean.detach(), variance.detach(), count


class _Sum(torch.autograd.Function):
    """The sum over the processes. Its gradient is one too: what each process makes of the sum counts."""

    @staticmethod
    def forward(_ctx: object, own: Tensor) -> Tensor:
        return processes.summed(own.clone())

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return processes.summed(gradient.clone(memory_format=torch.contiguous_format))


def _own_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of what this process has."""
    if x.is_cuda:
        variance, mean = torch.var_mean(x, [dimension for dimension in range(x.ndim) if dimension != 1], correction=0)
        return mean, variance
    return torch.batch_norm_update_stats(x, None, None, 0.0)  # a tenth of the time that var_mean takes

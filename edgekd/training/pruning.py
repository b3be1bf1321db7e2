"""A chain of convolutions made ready for a device: channels left out, and the ranges of those that stay.

A channel is worth what it says that the others do not. So of the channels that enter a convolution those are kept that
together predict its output best, and its weights are solved anew for them by least squares: on clips of the training
side, towards what the whole network computes there (Luo, Wu and Lin 2017, arXiv 1707.06342, choose greedily by the next
layer's output too; He, Zhang and Sun 2017, arXiv 1707.06168, solve for the weights). Layer after layer, each on what
those before it, narrower already, give it: errors are mended, not added up. The channels of the last layer are those
from which the pooled features of all are predicted best. No gradient and no label is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.blocks import SameConv2d, scaled
from edgekd.models.students.cut import POOLED, convolution_of, pooled

RIDGE = 1e-3  # of each column's own size
POOLED_RIDGE = 0.05  # clips are fewer than places in a map
PLACES = 40  # of a map that are looked at, of each clip
BATCH = 16
QUIETEST = 1e-3  # range of a channel that is as good as closed

Chain = list[nn.Sequential]


@torch.no_grad()
def prune(chain: Sequence[nn.Sequential], width: float, log_mels: Tensor, done: Callable[[int], None]) -> Chain:
    """`chain` with `width` times the channels, as they serve best on normalised `log_mels (N, 1, T, F)`.

    `done` is called with the number of layers that are through. The same clips give the same network.
    """
    whole, narrow = list(chain), [copy.deepcopy(layer) for layer in chain]
    generator = torch.Generator().manual_seed(0)
    dense = [number for number, layer in enumerate(whole) if convolution_of(layer).groups == 1]
    for number, following in pairwise(dense):
        statistics = _Statistics()
        for batch in log_mels.split(BATCH):
            ours, theirs = _map(narrow[:following], batch), _map(whole[:following], batch)
            inputs = _patches(convolution_of(narrow[following]), ours)
            targets = _patches(convolution_of(whole[following]), theirs) @ _matrix(convolution_of(whole[following]))
            places = torch.randint(0, len(inputs), (PLACES * len(batch),), generator=generator).to(inputs.device)
            statistics.add(inputs[places], targets[places])
        columns = convolution_of(narrow[following]).weight[0, 0].numel()
        keep = scaled(convolution_of(whole[number]).out_channels, width)
        channels = choose(statistics.gram(), statistics.cross(), columns, keep)
        _keep_outputs(narrow[number:following], channels)
        _solve(convolution_of(narrow[following]), convolution_of(whole[following]), statistics, channels)
        done(following)
    last = dense[-1]
    features = torch.cat([pooled(_map(whole, batch)) for batch in log_mels.split(BATCH)])
    ours = torch.cat([pooled(_map(narrow, batch)) for batch in log_mels.split(BATCH)])
    gram, cross = _by_channel(_standardised(ours)), _standardised(features)
    keep = scaled(convolution_of(whole[last]).out_channels, width)
    channels = choose(gram.T @ gram, gram.T @ cross, POOLED, keep, POOLED_RIDGE)
    _keep_outputs(narrow[last:], channels)
    done(len(whole))
    return narrow


@torch.no_grad()
def equalise(chain: Sequence[nn.Sequential], log_mels: Tensor) -> None:
    """Bring the ranges of a layer's channels on normalised `log_mels (N, 1, T, F)` nearer to each other, in place.

    An activation has one scale in int8, so a quiet channel beside a loud one is rounded away. What a channel is
    multiplied by, the next layer divides by: through a ReLU and a pooling the outputs stay what they are, but for those
    of the last layer, whose head is still to be trained (Nagel et al. 2019, arXiv 1906.04721, 4.1, on weights). Half
    way, in logarithms, is best: all the way makes the weights as uneven as the activations were.
    """
    for number, layer in enumerate(chain):
        largest = torch.stack([_map(chain[: number + 1], batch).amax(dim=(0, 2, 3)) for batch in log_mels.split(BATCH)])
        ranges = largest.amax(0).clamp_min(QUIETEST)
        factor = (ranges.log().mean().exp() / ranges).sqrt()
        convolution = convolution_of(layer)
        assert convolution.bias is not None
        convolution.weight *= factor.view(-1, 1, 1, 1)
        convolution.bias *= factor
        if number + 1 < len(chain):
            following = convolution_of(chain[number + 1])
            following.weight /= factor.view((-1, 1, 1, 1) if following.groups > 1 else (1, -1, 1, 1))


def choose(gram: Tensor, cross: Tensor, columns: int, keep: int, ridge: float = RIDGE) -> Tensor:
    """The `keep` groups of `columns` inputs each that predict the targets best, found greedily; ascending.

    `gram (D, D)` of the centred inputs, group after group, and `cross (D, Y)` with the targets. Each step takes the
    group that explains most of what is left, and takes what it explains out of the other inputs and the targets.
    """
    groups = len(gram) // columns
    gram, cross = gram.double().clone(), cross.double().clone()
    damping = (ridge * gram.diagonal()).clamp_min(1e-12).view(groups, columns)
    chosen: list[int] = []
    places = torch.arange(len(gram), device=gram.device).view(groups, columns)
    while len(chosen) < min(keep, groups):
        own = gram[places[:, :, None], places[:, None, :]] + torch.diag_embed(damping)  # (groups, columns, columns)
        grouped = cross.view(groups, columns, -1)
        gains = (grouped * torch.linalg.solve(own, grouped)).sum((1, 2))
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        rows = places[best]
        share = torch.linalg.solve(own[best], torch.cat([gram[rows], cross[rows]], dim=1))
        column = gram[:, rows].clone()
        gram -= column @ share[:, : len(gram)]
        cross -= column @ share[:, len(gram) :]
    return torch.tensor(sorted(chosen), device=gram.device)


class _Statistics:
    """Sums over places, from which least squares of centred inputs and targets follow."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """`inputs (P, D)` and `targets (P, Y)` of so many places."""
        inputs, targets = inputs.double(), targets.double()
        new = (inputs.sum(0), targets.sum(0), inputs.T @ inputs, inputs.T @ targets)
        self.sums = new if self.sums is None else tuple(a + b for a, b in zip(self.sums, new, strict=True))  # type: ignore[assignment]
        self.count += len(inputs)

    def means(self) -> tuple[Tensor, Tensor]:
        assert self.sums is not None
        return self.sums[0] / self.count, self.sums[1] / self.count

    def gram(self) -> Tensor:
        assert self.sums is not None
        return self.sums[2] - torch.outer(self.sums[0], self.sums[0]) / self.count

    def cross(self) -> Tensor:
        assert self.sums is not None
        return self.sums[3] - torch.outer(self.sums[0], self.sums[1]) / self.count


def _solve(layer: nn.Conv2d, whole: nn.Conv2d, statistics: _Statistics, channels: Tensor) -> None:
    """Give `layer` the weights with which the kept `channels` of its input predict what `whole` gives."""
    columns = layer.weight[0, 0].numel()
    kept = (channels[:, None] * columns + torch.arange(columns, device=channels.device)).flatten()
    gram, cross = statistics.gram()[kept][:, kept], statistics.cross()[kept]
    damping = torch.diag((RIDGE * gram.diagonal()).clamp_min(1e-12))
    weight = torch.linalg.solve(gram + damping, cross)  # (D, Y)
    inputs, targets = statistics.means()
    shift = targets - inputs[kept] @ weight
    assert whole.bias is not None
    layer.weight = nn.Parameter(weight.T.reshape(len(whole.weight), len(channels), *layer.kernel_size).to(layer.weight))
    layer.bias = nn.Parameter((shift + whole.bias).to(layer.weight))
    layer.in_channels = len(channels)


def _keep_outputs(layers: Sequence[nn.Sequential], channels: Tensor) -> None:
    """Leave a dense layer, and the depthwise ones after it, with these output channels."""
    for layer in layers:
        convolution = convolution_of(layer)
        assert convolution.bias is not None
        convolution.weight = nn.Parameter(convolution.weight[channels])
        convolution.bias = nn.Parameter(convolution.bias[channels])
        convolution.out_channels = len(channels)
        if convolution.groups > 1:
            convolution.in_channels = convolution.groups = len(channels)


def _map(layers: Sequence[nn.Sequential], log_mels: Tensor) -> Tensor:
    features = log_mels
    for layer in layers:
        features = layer(features)
    return features


def _patches(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """What a convolution sees at each place, `(places, C * kh * kw)`."""
    if isinstance(layer, SameConv2d):
        features = F.pad(features, layer.borders(features.shape))
        padding: tuple[int, ...] = (0, 0)
    else:
        assert not isinstance(layer.padding, str)
        padding = layer.padding
    columns = F.unfold(features, layer.kernel_size, padding=padding, stride=layer.stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _matrix(layer: nn.Conv2d) -> Tensor:
    """The weight as `(C * kh * kw, outputs)`."""
    return layer.weight.flatten(1).T


def _standardised(features: Tensor) -> Tensor:
    return ((features - features.mean(0)) / features.std(0).clamp_min(1e-6)).double()


def _by_channel(features: Tensor) -> Tensor:
    """Pooled features `(N, 3 C)`, kind after kind, as `(N, C 3)`, channel after channel."""
    return features.unflatten(1, (POOLED, -1)).transpose(1, 2).flatten(1)

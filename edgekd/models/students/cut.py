"""Students cut from a teacher: `yamnet-cut7`, its first seven convolutions under a head of their own.

What a teacher learned from AudioSet lies in its weights before anybody distils it: on few labelled clips its first
layers, as they are, tell sounds apart better than a network of their size that starts from nothing. So such a student
has the teacher's layers, with the batch norms folded in, on the teacher's own front end, and averages, maxima and the
spread over time of its last map under a linear layer. `width` leaves out channels (see `edgekd.training.pruning`).

    yamnet-cut7                   a teacher of the table, and how many of its convolutions
    package.module:factory-cut4   a teacher of the user's own that says what its `layers` are
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgekd.errors import UsageError
from edgekd.models.blocks import scaled
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.names import cut_of

if TYPE_CHECKING:
    from edgekd.models.teachers.base import Layers, Teacher

POOLED = 3  # features of a channel of the last map
STILL = 1e-6  # variance over time below which a channel does not move


class CutNetwork(nn.Module):
    """Normalised log-mel `(B, 1, T, F)` -> `StudentOutput`; the tap is the teacher's, or the last map where the cut is
    above it.

    `early` are the layers up to the tap, `late` those after it. `spread` has the mean and the deviation of each feature
    over the training clips, so that one learning rate and one scale of int8 suit all of them.
    """

    def __init__(self, layers: Sequence[nn.Sequential], tap: int, num_classes: int) -> None:
        """Take `layers` over, as they are; the tap is after the first `tap`, or after all where they are fewer."""
        super().__init__()
        early, late = layers[:tap], layers[tap:]
        self.early, self.late = nn.Sequential(*early), nn.Sequential(*late)
        self.tap_channels = convolution_of(early[-1]).out_channels
        features = POOLED * convolution_of(layers[-1]).out_channels
        self.spread = nn.BatchNorm1d(features, affine=False, eps=1e-8)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.early(log_mel)
        return StudentOutput(self.classifier(self.spread(pooled(self.late(tap)))), tap)

    def features(self, log_mel: Tensor) -> Tensor:
        """`(B, 3 C)` of the last map, before they are standardised."""
        return pooled(self.late(self.early(log_mel)))

    def chain(self) -> list[nn.Sequential]:
        """The layers from first to last."""
        return [layer for layer in (*self.early, *self.late) if isinstance(layer, nn.Sequential)]


def convolution_of(layer: nn.Module) -> nn.Conv2d:
    """The convolution that a layer begins with."""
    convolution = next(layer.children())
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def pooled(features: Tensor) -> Tensor:
    """Map `(B, C, T, F)` -> `(B, 3 C)`: mean, maximum, and the deviation over time of the mean over frequency."""
    over_time = features.mean(dim=3)
    mean = over_time.mean(dim=2)
    moved = over_time - mean.unsqueeze(2)
    deviation = (moved * moved).mean(dim=2).clamp(min=STILL).sqrt()
    return torch.cat([mean, features.amax(dim=(2, 3)), deviation], dim=1)


def cut_network(teacher: Teacher, name: str, num_classes: int, width: float) -> CutNetwork:
    """The network of the student called `name`, with the architecture of `teacher`'s first layers; its weights are
    theirs at width 1, and mean nothing at others.

    Raises `UsageError` for a teacher that is no chain of convolutions, or has fewer than that.
    """
    chain = first_layers(teacher, name)
    modules = [folded(layer) for layer in chain.modules]
    return CutNetwork(modules if width == 1 else narrowed(modules, width), chain.tap, num_classes)


def first_layers(teacher: Teacher, name: str) -> Layers:
    """The layers of `teacher` that the student called `name` has. Raises `UsageError` as `cut_network` does."""
    cut = cut_of(name)
    assert cut is not None
    chain = teacher.layers()
    if chain is None:
        raise UsageError(
            f"Student '{name}': teacher '{cut.teacher}' is no chain of convolutions that could be cut: take one of "
            "'edgekd students', or have your own teacher say what its layers are."
        )
    if cut.layers > len(chain.modules):
        raise UsageError(f"Student '{name}': teacher '{cut.teacher}' has {len(chain.modules)} convolutions.")
    return chain._replace(modules=chain.modules[: cut.layers])


def folded(layer: nn.Sequential) -> nn.Sequential:
    """A copy of `layer` whose convolution has a bias and its batch norm folded in.

    Average pooling commutes with a batch norm, so one that comes between them does not matter.
    """
    first, *rest = copy.deepcopy(layer).eval()
    assert isinstance(first, nn.Conv2d)
    for norm in [module for module in rest if isinstance(module, nn.BatchNorm2d)]:
        rest.remove(norm)
        first = fuse_conv_bn_eval(first, norm)
    if first.bias is None:
        first.bias = nn.Parameter(first.weight.new_zeros(first.out_channels))
    plain = (nn.ReLU() if isinstance(module, nn.ReLU) else module for module in rest)  # none in place: maps are kept
    return nn.Sequential(first, *plain)


def narrowed(layers: Sequence[nn.Sequential], width: float) -> list[nn.Sequential]:
    """Layers of the same kind with `width` times the channels, their weights drawn anew."""
    made, inputs = [], 1
    for layer in layers:
        old, *rest = layer
        assert isinstance(old, nn.Conv2d)
        depthwise = old.groups > 1
        outputs = inputs if depthwise else scaled(old.out_channels, width)
        size, stride, padding = old.kernel_size, old.stride, old.padding
        new = type(old)(inputs, outputs, size, stride, padding, groups=inputs if depthwise else 1)  # type: ignore[arg-type]
        made.append(nn.Sequential(new, *copy.deepcopy(rest)))
        inputs = outputs
    return made

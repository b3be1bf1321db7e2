"""An exponential average of a student's weights over the steps of its training.

The average of the weights along the way of stochastic gradient descent lies nearer to a minimum than where it stands
(Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"); averaged exponentially it is the
mean teacher of Tarvainen and Valpola 2017 (arXiv 1703.01780). So that the weights of the first steps are soon
forgotten, the decay begins low: `min(decay, (1 + n) / (10 + n))` in step n, as TensorFlow's `ExponentialMovingAverage`
has it. The statistics of batch norms are averaged with the weights that they belong to; other buffers are copied, since
they may count things, or hold infinities, whose average is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from edgekd.training.shared_layers import BatchNorm

STATISTICS = ("running_mean", "running_var")


class AveragedWeights:
    """The average of what `model` is after each step. The model itself is lent the average, and never another module
    made of it: what is compiled, hooked, or shared by processes stays what it is.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.values = _copied(model.state_dict())
        """The averaged state of the model, by name."""
        self._averaged = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        for name, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, BatchNorm) and module.track_running_stats:
                self._averaged += [f"{name}.{each}".lstrip(".") for each in STATISTICS]
        self._followed = [name for name in self.values if name not in self._averaged]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model as it is after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        now = self.model.state_dict()
        average = get_ema_multi_avg_fn(decay)
        average([self.values[name] for name in self._averaged], [now[name] for name in self._averaged], self.steps)
        for name in self._followed:
            self.values[name].copy_(now[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again, to the bit."""
        own = _copied(self.model.state_dict())
        _put(self.values, self.model)
        try:
            yield
        finally:
            _put(own, self.model)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises `KeyError` where that is of another model."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def averaged_weights(model: nn.Module, decay: float) -> AveragedWeights | None:
    """The average of the weights of `model`, on the device where it trains; None for a decay of 0."""
    return AveragedWeights(model, decay) if decay else None


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def _put(state: Mapping[str, Tensor], model: nn.Module) -> None:
    """In place, where optimisers and CUDA graphs look for them."""
    for name, value in model.state_dict().items():
        value.copy_(state[name])

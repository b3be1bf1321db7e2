"""Calibration: scales, measured on a few training clips chosen by a recipe.

A recipe (`calibration/*.toml`) states how many clips, how they are chosen, how a range is read from what they make each
activation do (`edgekd.quantization.observers`), and whether biases are corrected afterwards. It is the starting point
of quantisation-aware training, and all there is to quantisation without it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from edgekd.config import Section, parse
from edgekd.errors import InputError, unknown_name
from edgekd.exact_float32 import exact_float32
from edgekd.quantization.fake_quant import QuantizedLayer, scale_for, set_enabled
from edgekd.quantization.observers import MagnitudeObserver, ObserverName
from edgekd.quantization.prepare import QuantizedNetwork
from edgekd.resources import named_resources
from edgekd.toml_files import read_toml

SILENCE = 1e-3  # a normalised log-mel that varies by less holds no sound


class CalibrationRecipe(Section):
    """Which clips, and how an activation's range is read from them."""

    clips: int = Field(128, ge=1, description="training clips; all of them where there are fewer")
    selection: Literal["stratified", "random"] = Field("stratified", description="stratified: as many of each class")
    observer: ObserverName = Field("mse", description="how a range is read from the values")
    percentile: float = Field(99.99, gt=50, le=100, description="share of magnitudes inside the range; percentile only")
    bias_correction: bool = Field(False, description="shift biases so that the mean of each channel stays")


def load_recipe(name: str) -> CalibrationRecipe:
    """A shipped recipe by name, or one from a TOML file by path.

    Raises `UsageError` for a name that is neither, for a file that cannot be read, and for unknown keys or values.
    """
    shipped = named_resources("calibration")
    path = Path(name)
    if name in shipped:
        path = shipped[name]
    elif path.suffix != ".toml":
        raise unknown_name("calibration recipe", name, shipped)
    return parse(CalibrationRecipe, read_toml(path), str(path))


def select_clips(labels: Sequence[int], rows: Sequence[int], recipe: CalibrationRecipe, seed: int) -> list[int]:
    """The rows to calibrate on, sorted: `recipe.clips` of `rows`, or all if there are fewer.

    `labels[row]` is the class of a row. Pass training rows only: a range measured on test clips has seen the test set.
    Stratified: classes take turns, so that their counts differ by at most one unless a class runs out.
    """
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    if recipe.selection == "random":
        return sorted(shuffled[: recipe.clips])
    drawn: defaultdict[int, int] = defaultdict(int)
    turns = []  # (how many of its class came before, row)
    for row in shuffled:
        turns.append((drawn[labels[row]], row))
        drawn[labels[row]] += 1
    turns.sort(key=lambda turn: turn[0])  # stable: within a turn the shuffled order stays
    return sorted(row for _, row in turns[: recipe.clips])


@exact_float32()
@torch.no_grad()
def calibrate(network: QuantizedNetwork, batches: Iterable[Tensor], recipe: CalibrationRecipe) -> None:
    """Set every scale in `network` from `batches` of normalised log-mels `(B, 1, T, F)`.

    The network computes in float while it is observed. While it is trained, a scale follows the batches with the
    coverage that its bound has here, whatever the observer. Raises `InputError` when there are no batches, when all are
    silent, or when an activation is not finite.
    """
    if recipe.bias_correction:
        batches = list(batches)  # heard once a layer
    was_training = network.training
    network.eval()
    try:
        observers = _observe(network, batches)
        for name, quantiser in network.quantisers().items():
            bound = observers[name].bound(recipe.observer, recipe.percentile)
            if not bound < float("inf"):
                raise InputError(
                    f"Calibration: '{name}' is not finite: the student's weights or a training clip hold NaN."
                )
            quantiser.scale.copy_(scale_for(torch.tensor(bound)))
            quantiser.coverage = observers[name].coverage(bound)
        for layer, quantiser in network.layers():
            layer.follow(quantiser.scale)
        if recipe.bias_correction:
            correct_biases(network, batches)
    finally:
        network.train(was_training)


@torch.no_grad()
def correct_biases(network: QuantizedNetwork, batches: Iterable[Tensor]) -> None:
    """Shift the bias of each layer so that the mean of each output channel is that of the float network.

    Rounding a weight moves the mean of what it computes, and later layers add the shifts up. Layers are corrected in
    the order of execution, each after those before it (Nagel et al. 2019, arXiv 1906.04721, 4.2, measured on data as in
    its appendix D). `batches` are gone through once for every layer, and once more. A layer without a bias is left.
    """
    layers = [(layer, quantiser) for layer, quantiser in network.layers() if layer.layer.bias is not None]
    set_enabled(network, False)
    expected = _channel_means(network, [layer for layer, _ in layers], batches)
    set_enabled(network, True)
    for layer, quantiser in layers:
        found = _channel_means(network, [layer], batches)[layer]
        assert layer.layer.bias is not None
        layer.layer.bias += expected[layer] - found
        layer.follow(quantiser.scale)


def _observe(network: QuantizedNetwork, batches: Iterable[Tensor]) -> dict[str, MagnitudeObserver]:
    """What each activation takes while the network computes in float."""
    quantisers = network.quantisers()
    observers = {name: MagnitudeObserver() for name in quantisers}
    lowest = highest = None  # of each mel bin
    set_enabled(network, False)
    try:
        for name, quantiser in quantisers.items():
            quantiser.observer = observers[name]
        for log_mel in batches:
            network(log_mel)
            low, high = log_mel.amin(dim=(0, 1, 2)), log_mel.amax(dim=(0, 1, 2))
            lowest = low if lowest is None else torch.minimum(lowest, low)
            highest = high if highest is None else torch.maximum(highest, high)
    finally:
        for quantiser in quantisers.values():
            quantiser.observer = None
        set_enabled(network, True)
    if lowest is None or highest is None:
        raise InputError("Calibration got no clips: the training side of the split is empty.")
    if (highest - lowest).amax() < SILENCE:
        raise InputError(
            "Calibration heard only silence: every frame of its training clips is the same, so that no range can be "
            "measured. Look at the recordings of the training side (edgekd data inspect)."
        )
    return observers


def _channel_means(
    network: QuantizedNetwork, layers: Sequence[QuantizedLayer], batches: Iterable[Tensor]
) -> dict[QuantizedLayer, Tensor]:
    """The mean of each output channel `(C_out,)` of `layers`, over clips and places."""
    sums: dict[QuantizedLayer, Tensor] = {}
    counts: defaultdict[QuantizedLayer, int] = defaultdict(int)

    def add(layer: torch.nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, QuantizedLayer)
        linear = isinstance(layer.layer, torch.nn.Linear)
        values = output.flatten(0, -2) if linear else output.transpose(0, 1).flatten(1).t()  # (places, C_out)
        total = values.double().sum(0)
        sums[layer] = sums[layer] + total if layer in sums else total
        counts[layer] += len(values)

    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        for log_mel in batches:
            network(log_mel)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: (total / counts[layer]).float() for layer, total in sums.items()}

"""Which layers lose what: each one quantised alone, each one left in float, and the fewest to leave there.

All is measured with scales from a calibration recipe, untrained, clipped at 127 as in training, on the **validation**
side of a run: layers chosen by their score on the test side would make that score mean nothing. Two figures:

    drop    points of accuracy (or mAP) that the float student has more. Coarse: one clip in 80 is 1.25 points.
    SQNR    signal to quantisation noise of the logits in dB, 10 log10(sum f^2 / sum (f - q)^2) over all clips, f the
            float student's and q the rounded one's. Fine, and what settles a tie.

What a layer's rounding comprises is what `prepare` says: with a layer kept in float its weight and every activation
that no int8 layer needs pass unrounded. So one calibrated network measures all choices, its quantisers switched.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd import processes
from edgekd.errors import GateError, InputError
from edgekd.files.whole import write_json
from edgekd.progress import Progress, silent
from edgekd.quantization.calibration import CalibrationRecipe, load_recipe, select_clips
from edgekd.quantization.fake_quant import set_enabled
from edgekd.quantization.prepare import prepare
from edgekd.quantization.qat import calibrated_network, log_mels
from edgekd.runs.at_work import changes_run
from edgekd.runs.pictures import plot_sensitivity
from edgekd.runs.run import Run
from edgekd.scoring.average_precision import mean_average_precision

MAX_CLIPS = 512  # of the validation side, as many of each class: more take memory and time and tell little more
LARGEST_SQNR = 120.0  # dB: float32 holds no more, and JSON no infinity
REPORT, PICTURE = "int8-sensitivity.json", "int8-sensitivity.png"


@dataclass(frozen=True)
class Loss:
    """What rounding costs: `drop` in points of accuracy, `sqnr_db` of the logits."""

    drop: float
    sqnr_db: float


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: rounded alone, and the only one that is not."""

    layer: str
    parameters: int
    alone: Loss
    spared: Loss


@dataclass(frozen=True)
class Sensitivity:
    """Layers of the student of a run, the most sensitive first: by the drop they cause alone, then by the SQNR.

    A layer that gains accuracy alone, by chance, ranks with those that lose none. `clips` of the validation side.
    """

    recipe: str
    clips: int
    float_accuracy: float
    all_int8: Loss
    layers: tuple[LayerSensitivity, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """What is lost with `layer` given to those left in float, or taken back from them."""

    layer: str
    kept: bool
    loss: Loss


@dataclass(frozen=True)
class Mixed:
    """The layers to leave in float so that no more than `max_drop` points are lost, and how they were found."""

    keep_float: tuple[str, ...]
    max_drop: float
    clips: int
    all_int8: Loss
    loss: Loss
    steps: tuple[Step, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@changes_run
def sensitivity(run: Run, recipe: str | None = None, progress: Progress = silent) -> Sensitivity:
    """Measure every layer of the float student of `run`, with scales from `recipe` (default: the run's own).

    Writes `int8-sensitivity.json` and `.png` into the run folder and leaves an int8 student there as it is. Raises
    `InputError` for an unfinished run or one without validation clips, `UsageError` for an unknown recipe.
    """
    name = recipe or run.config.quantize.recipe
    found = _rank(_Bench(run, load_recipe(name), progress), name, progress)
    write_json(run.folder / REPORT, found.to_dict())
    plot_sensitivity(
        {layer.layer: (layer.alone.drop, layer.alone.sqnr_db, layer.spared.sqnr_db) for layer in found.layers},
        (found.all_int8.drop, found.all_int8.sqnr_db),
        run.folder / PICTURE,
    )
    return found


def auto_mixed(run: Run, max_drop: float, recipe: str | None = None, progress: Progress = silent) -> Mixed:
    """The fewest layers to leave in float so that calibration alone loses at most `max_drop` points of accuracy.

    Greedy: the most sensitive layers are left one after the other until the drop is small enough; then each is taken
    back, the least sensitive first, that the drop allows to. Raises `GateError` when even one last int8 layer loses
    more, and otherwise as `sensitivity` does.
    """
    name = recipe or run.config.quantize.recipe
    bench = _Bench(run, load_recipe(name), progress)
    kept: list[str] = []
    steps: list[Step] = []
    all_int8 = loss = bench.loss(())
    ranked: list[str] = []
    if loss.drop > max_drop:
        ranked = [found.layer for found in _rank(bench, name, progress).layers]
    for layer in ranked:
        if loss.drop <= max_drop:
            break
        if len(kept) == len(ranked) - 1:
            raise GateError(
                f"{run.folder}: with one layer left in int8 the drop is still {loss.drop:.2f} points, above "
                f"{max_drop:g}, on {bench.clips} validation clips. Allow more (--max-drop), or train for int8."
            )
        kept.append(layer)
        loss = bench.loss(kept)
        steps.append(Step(layer, True, loss))
    for layer in kept[-2::-1]:  # without the last one it was too much
        fewer = [other for other in kept if other != layer]
        found = bench.loss(fewer)
        if found.drop <= max_drop:
            kept, loss = fewer, found
            steps.append(Step(layer, False, loss))
    return Mixed(tuple(kept), max_drop, bench.clips, all_int8, loss, tuple(steps))


def _rank(bench: _Bench, recipe: str, progress: Progress) -> Sensitivity:
    names = bench.network.layer_names()
    parameters = {
        name: sum(weights.numel() for weights in layer.layer.parameters())
        for name, (layer, _) in zip(names, bench.network.layers(), strict=True)
    }
    layers = []
    for done, name in enumerate(names):
        progress("sensitivity", done, len(names), layer=name)
        others = [other for other in names if other != name]
        layers.append(LayerSensitivity(name, parameters[name], bench.loss(others), bench.loss((name,))))
    progress("sensitivity", len(names), len(names))
    layers.sort(key=lambda found: (-max(found.alone.drop, 0.0), found.alone.sqnr_db))
    return Sensitivity(recipe, bench.clips, bench.float_accuracy, bench.loss(()), tuple(layers))


class _Bench:
    """A calibrated network whose quantisers are switched, and validation clips to try the choices on."""

    def __init__(self, run: Run, recipe: CalibrationRecipe, progress: Progress) -> None:
        data = run.open_data(progress)
        index, validation = data.index, data.split.validation
        if not validation:
            raise InputError(f"{run.folder}: its split has no validation clips to measure on. Distil with some.")
        student = run.student().to(processes.join(run.config.device))
        # Biases are corrected for one choice of rounded layers, and would be wrong for all others.
        recipe = recipe.model_copy(update={"bias_correction": False})
        self.network = calibrated_network(student, data, recipe, run.config.seed)
        self._original = student.network
        sample = CalibrationRecipe(clips=MAX_CLIPS)
        rows = select_clips(index.labels, validation, sample, run.config.seed)
        self._heard = list(log_mels(student, data.store, rows))
        self._truth = torch.tensor(index.truth[rows])
        self._known: dict[frozenset[str], Loss] = {}
        set_enabled(self.network, False)
        self._float_logits = self._logits()
        self.clips = len(rows)
        self.float_accuracy = self._right(self._float_logits) / self.clips

    def loss(self, keep_float: Collection[str]) -> Loss:
        """What is lost with these layers in float and all others rounded."""
        choice = frozenset(keep_float)
        if choice not in self._known:
            self._switch(choice)
            logits = self._logits()
            lost = self._right(self._float_logits) - self._right(logits)
            self._known[choice] = Loss(100 * lost / self.clips, sqnr(self._float_logits, logits))
        return self._known[choice]

    def _switch(self, keep_float: frozenset[str]) -> None:
        """Let the quantisers work that are there when `keep_float` layers are kept in float."""
        rounded = prepare(self._original, self._heard[0][:1], keep_float).quantisers()
        for name, quantiser in self.network.quantisers().items():
            quantiser.enabled = name in rounded
        for name, (layer, _) in zip(self.network.layer_names(), self.network.layers(), strict=True):
            layer.weight_quant.enabled = name not in keep_float

    @torch.no_grad()
    def _logits(self) -> Tensor:
        return torch.cat([self.network(log_mel)[0].cpu() for log_mel in self._heard])

    def _right(self, logits: Tensor) -> float:
        """The clips that are right; where they may be of several classes, the mAP times their number."""
        if self._truth.ndim == 2:
            return self.clips * mean_average_precision(logits.numpy(), self._truth.numpy())
        return int((logits.argmax(dim=1) == self._truth).sum())


def sqnr(expected: Tensor, found: Tensor) -> float:
    """Signal to quantisation noise in dB, at most `LARGEST_SQNR`."""
    signal, noise = expected.double().square().sum(), (expected - found).double().square().sum()
    return min(float(10 * torch.log10(signal / noise)), LARGEST_SQNR)

"""The pictures of a run: `curves.png` and `confusion.png`.

Drawn with matplotlib's Agg canvas and no pyplot, so that nothing global is touched and no display is needed. Lines have
Okabe and Ito's colours, which people with colour vision deficiencies can tell apart; shares are shades of one hue.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError
from edgekd.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLACK, _GREY = "#000000", "#777777"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_NOT_TERMS = {"stage", "epoch", "seconds", "learning_rate", "total", "validation_loss", "validation_accuracy"}
_STAGE_TITLES = {"teacher": "Teacher adaptation", "student": "Student distillation", "int8": "int8 training"}
_DPI = 120

Curve = npt.NDArray[np.float64]


def plot_curves(metrics_csv: Path, out: Path) -> None:
    """Draw `metrics.csv` to the PNG `out`: a column a stage; from the top loss terms, total loss, validation accuracy.

    Every column of the file that is neither a known figure nor a `weight_...` is a loss term; a stage shows those it
    has numbers for. Raises `InputError` where the file is missing or holds no epoch.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    stages = _read_stages(metrics_csv)
    terms = [name for name in next(iter(stages.values())) if name not in _NOT_TERMS and not name.startswith("weight_")]
    colours = dict(zip(terms, _cycle(len(terms)), strict=True))
    figure = _figure(max(5.0, 4.2 * len(stages)), 7.2)
    axes = figure.subplots(3, len(stages), squeeze=False, sharex="col", sharey="row")
    for column, (stage, curves) in enumerate(stages.items()):
        term_axes, loss_axes, accuracy_axes = axes[:, column]
        epochs = curves["epoch"]
        marker = "o" if len(epochs) <= 12 else None
        style: dict[str, Any] = {"marker": marker, "markersize": 3, "linewidth": 1.4}

        for term in terms:
            # A log axis has no place for a term that has reached 0: the line breaks there.
            shown = np.where(curves[term] > 0, curves[term], np.nan)
            if np.isfinite(shown).any():
                term_axes.plot(epochs, shown, color=colours[term], label=term, **style)
        term_axes.set_yscale("log")
        term_axes.set_title(_STAGE_TITLES.get(stage, stage), fontsize=11)

        loss_axes.plot(epochs, curves["total"], color=_BLACK, label="training, weighted sum", **style)
        loss_axes.plot(
            epochs,
            curves["validation_loss"],
            color=_COLOURS[1],
            linestyle="--",
            label="validation, cross-entropy",
            **style,
        )

        accuracy = curves["validation_accuracy"]
        accuracy_axes.plot(epochs, accuracy, color=_COLOURS[0], **style)
        best = _best_epoch(accuracy, curves["validation_loss"])
        if best is not None:
            accuracy_axes.plot(epochs[best], accuracy[best], "o", color=_COLOURS[0], markersize=7, fillstyle="none")
            accuracy_axes.set_title(f"best {accuracy[best]:.1%}, epoch {epochs[best]:.0f}", fontsize=9, loc="right")
        accuracy_axes.set_xlabel("epoch")
        accuracy_axes.set_ylim(0, 1.03)
        accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        accuracy_axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for panel in (term_axes, loss_axes, accuracy_axes):
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
    for panel, label in zip(axes[:, 0], ("loss terms, unweighted", "loss", "validation accuracy"), strict=True):
        panel.set_ylabel(label)
    _legend_beside(axes[0])
    _legend_beside(axes[1])
    _save(figure, out)


def plot_confusion(
    confusions: Mapping[str, Sequence[Sequence[int]] | npt.NDArray[Any]], classes: Sequence[str], out: Path
) -> None:
    """Draw confusion matrices `(K, K)` (rows true, columns predicted) side by side to the PNG `out`, one a subject.

    Colour is the share of the true class, on a square-root scale, so that a few errors still show; up to 20 classes the
    cells hold their clips.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    count = len(classes)
    names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
    side = min(max(3.2, 0.36 * count), 9.0) if count <= 20 else 0.15 * count + 1.5
    font = 9 if count <= 12 else 7.5 if count <= 20 else 6.5
    figure = _figure(1.8 + side * len(confusions), side + 1.6)
    axes = figure.subplots(1, len(confusions), squeeze=False, sharey=True)[0]
    for panel, (subject, confusion) in zip(axes, confusions.items(), strict=True):
        clips = np.asarray(confusion)
        share = clips / np.maximum(clips.sum(axis=1, keepdims=True), 1)
        image = panel.pcolormesh(
            share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), edgecolors="#dddddd", linewidth=0.5
        )
        panel.set_aspect("equal")
        panel.set_title(f"{subject}: {np.trace(clips) / max(clips.sum(), 1):.1%} right", fontsize=11)
        panel.set_xlabel("predicted")
        panel.set_xticks(np.arange(count) + 0.5, names, rotation=90, fontsize=font)
        panel.set_yticks(np.arange(count) + 0.5, names, fontsize=font)
        panel.tick_params(length=2)
        if count <= 20:
            for true, predicted in zip(*np.nonzero(clips), strict=True):
                colour = "white" if share[true, predicted] > 0.35 else "black"
                label = str(clips[true, predicted])
                panel.text(predicted + 0.5, true + 0.5, label, ha="center", va="center", fontsize=font, color=colour)
    axes[0].set_ylabel("true")
    axes[0].invert_yaxis()  # shared by all: the first class on top
    bar = figure.colorbar(image, ax=list(axes), shrink=0.7, aspect=30, label="share of the true class")
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1.0])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _save(figure, out)


def _read_stages(metrics_csv: Path) -> dict[str, dict[str, Curve]]:
    """The columns of each stage, in the order of the file; an empty cell is NaN."""
    try:
        with open(metrics_csv, newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{metrics_csv}: no such file; training writes it after its first epoch.") from None
    if not rows:
        raise InputError(f"{metrics_csv}: holds no epoch yet, so there are no curves to draw.")
    stages: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(row)
    return {
        stage: {
            name: np.array([float(row[name] or math.nan) for row in members]) for name in members[0] if name != "stage"
        }
        for stage, members in stages.items()
    }


def _best_epoch(accuracy: Curve, loss: Curve) -> int | None:
    """Where the best checkpoint was taken: the highest validation accuracy, ties broken by validation loss."""
    known = [i for i in range(len(accuracy)) if math.isfinite(accuracy[i])]
    return max(known, key=lambda i: (accuracy[i], -loss[i]), default=None)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _legend_beside(row: Sequence[Axes]) -> None:
    """One legend a row of panels, right of the last: labels are the same in each."""
    entries = {label: line for panel in row for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    row[-1].legend(
        entries.values(), entries.keys(), loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9
    )


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, out: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, bbox_inches="tight")
    write_bytes(out, png.getvalue())

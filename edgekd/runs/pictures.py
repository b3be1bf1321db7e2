"""The pictures of a run (`curves.png`, `confusion.png`, `int8-sensitivity.png`), of a comparison, and the spectrograms
of a data set.

Drawn with matplotlib's Agg canvas and no pyplot, so that nothing global is touched and no display is needed. Lines have
Okabe and Ito's colours, which people with colour vision deficiencies can tell apart; shares are shades of one hue.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError
from edgekd.escaping import plain_text
from edgekd.files.whole import write_bytes
from edgekd.number_formats import MINUS, percent
from edgekd.runs.metrics_log import SHARES, read_metrics
from edgekd.task import MULTI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLACK, _GREY = "#000000", "#777777"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_NOT_TERMS = {"stage", "epoch", "seconds", "learning_rate", "total", "validation_loss", *SHARES}
_STAGE_TITLES = {"teacher": "Teacher adaptation", "student": "Student distillation", "int8": "int8 training"}
_DPI = 120
_SHOWN_DB = 70.0

Curve = npt.NDArray[np.float64]


def plot_curves(metrics_csv: Path, out: Path) -> None:
    """Draw `metrics.csv` to the PNG `out`: a column a stage; from the top loss terms, total loss, and the measure of
    the validation side: accuracy, mAP.

    Every column of the file that is neither a known figure nor a `weight_...` is a loss term; a stage shows those it
    has numbers for. Raises `InputError` where the file is missing or holds no epoch.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    stages = _read_stages(metrics_csv)
    terms = [name for name in next(iter(stages.values())) if name not in _NOT_TERMS and not name.startswith("weight_")]
    colours = dict(zip(terms, _cycle(len(terms)), strict=True))
    figure = _figure(max(5.0, 4.2 * len(stages)), 7.2)
    measured: set[str] = set()
    axes = figure.subplots(3, len(stages), squeeze=False, sharex="col", sharey="row")
    for column, (stage, curves) in enumerate(stages.items()):
        term_axes, loss_axes, accuracy_axes = axes[:, column]
        epochs = curves["epoch"]
        marker = "o" if len(epochs) <= 12 else None
        style: dict[str, Any] = {"marker": marker, "markersize": 3, "linewidth": 1.4}

        for term in terms:
            # A log axis has no place for a term that has reached 0: the line breaks there.
            values = np.where(curves[term] > 0, curves[term], np.nan)
            if np.isfinite(values).any():
                term_axes.plot(epochs, values, color=colours[term], label=_plain(term), **style)
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

        measure = next((name for name in SHARES if name in curves and np.isfinite(curves[name]).any()), SHARES[0])
        measured.add(measure)
        accuracy = curves[measure]
        accuracy_axes.plot(epochs, accuracy, color=_COLOURS[0], **style)
        best = _best_epoch(accuracy, curves["validation_loss"])
        if best is not None:
            accuracy_axes.plot(epochs[best], accuracy[best], "o", color=_COLOURS[0], markersize=7, fillstyle="none")
            accuracy_axes.set_title(
                f"best {percent(accuracy[best])}, epoch {epochs[best]:.0f}", fontsize=9, loc="right"
            )
        accuracy_axes.set_xlabel("epoch")
        accuracy_axes.set_ylim(0, 1.03)
        accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        accuracy_axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for panel in (term_axes, loss_axes, accuracy_axes):
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
    title = "validation accuracy" if SHARES[0] in measured else f"validation {MULTI.title}"
    for panel, label in zip(axes[:, 0], ("loss terms, unweighted", "loss", title), strict=True):
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
    names = [_plain(name, letters=20) for name in classes]
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
        panel.set_title(f"{subject}: {percent(np.trace(clips) / max(clips.sum(), 1))} right", fontsize=11)
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


def plot_average_precision(
    ranked: Mapping[str, tuple[float, Sequence[float | None]]], classes: Sequence[str], out: Path
) -> None:
    """Draw how well clips of each class are ranked to the PNG `out`: of each subject its mAP, and the average precision
    of the classes, None where no clip has one."""
    from matplotlib.ticker import PercentFormatter

    names = [_plain(name, letters=20) for name in classes]
    figure = _figure(6.5, 1.6 + 0.3 * len(classes))
    panel = figure.subplots()
    for (subject, (mean, each)), colour in zip(ranked.items(), _cycle(len(ranked)), strict=True):
        values = [math.nan if value is None else value for value in each]
        panel.plot(values, range(len(names)), "o", color=colour, label=f"{_plain(subject)}: mAP {percent(mean)}")
    panel.set_yticks(range(len(names)), names, fontsize=9)
    panel.invert_yaxis()
    panel.set_xlim(-0.02, 1.02)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_xlabel("average precision on the test side")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    _save(figure, out)


def plot_comparison(
    accuracies: Mapping[str, Sequence[float]],
    int8: Mapping[str, Sequence[float]],
    differences: Mapping[str, tuple[float, tuple[float, float]]],
    teachers: Mapping[str, float],
    reference: str,
    out: Path,
    measure: str = "accuracy",
) -> None:
    """Draw a comparison to the PNG `out`: left the accuracy (or another `measure`) of each cell of each method, its
    mean as a line, int8 below in open circles and teachers as dashed lines; right the differences to the method
    `reference` with their intervals.
    """
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    methods = list(accuracies)
    places = dict(zip(methods, range(len(methods)), strict=True))
    figure = _figure(9.6, 1.6 + 0.55 * len(methods))
    left, right = figure.subplots(1, 2, sharey=True)
    marks: dict[str, Any] = {"linestyle": "none", "color": _COLOURS[0], "markersize": 5, "alpha": 0.6}
    for method, place in places.items():
        for values, offset, style in (
            (accuracies[method], -0.1, {"marker": "o"}),
            (int8.get(method, ()), 0.18, {"marker": "o", "fillstyle": "none"}),
        ):
            if values:
                heights = np.full(len(values), place + offset)
                left.plot(values, heights, **marks, **style)
                mean = float(np.mean(values))
                left.plot([mean, mean], [place + offset - 0.14, place + offset + 0.14], color=_BLACK, linewidth=1.8)
    for colour, (title, mean) in zip(_cycle(len(teachers) + 1)[1:], teachers.items(), strict=True):
        left.axvline(mean, color=colour, linestyle="--", linewidth=1.2, label=_plain(title))
    left.set_xlabel(f"{measure} on the test side, each cell and mean" + ("; open: int8" if any(int8.values()) else ""))
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if teachers:
        left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    for method, (estimate, (low, high)) in differences.items():
        right.plot([low, high], [places[method]] * 2, color=_BLACK, linewidth=1.4)
        right.plot(estimate, places[method], "o", color=_COLOURS[1], markersize=6)
    right.axvline(0, color=_GREY, linewidth=1)
    right.set_xlabel(f"points of {measure} above {_plain(reference)}, 95% interval")
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}".replace("-", MINUS)))
    left.set_yticks(list(places.values()), [_plain(method) for method in methods])
    left.set_ylim(len(methods) - 0.5, -0.5)  # shared: the first method on top
    for panel in (left, right):
        panel.grid(alpha=0.25, axis="x")
        panel.spines[["top", "right"]].set_visible(False)
    _save(figure, out)


def plot_sensitivity(
    layers: Mapping[str, tuple[float, float, float]], all_int8: tuple[float, float], out: Path
) -> None:
    """Draw what int8 costs each layer to the PNG `out`, the first layer on top: left its SQNR alone and, open, that of
    all others without it; right the points of accuracy lost to it alone.

    `layers`: name -> (drop alone, SQNR alone, SQNR of all others); `all_int8`: drop and SQNR with every layer rounded.
    """
    places = np.arange(len(layers))
    drops, alone, spared = np.array(list(layers.values())).T
    figure = _figure(8.6, 1.5 + 0.3 * len(layers))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    left.plot(alone, places, "o", color=_COLOURS[0], markersize=6, label="this layer alone")
    left.plot(spared, places, "o", color=_COLOURS[1], markersize=6, fillstyle="none", label="all but this layer")
    left.axvline(all_int8[1], color=_BLACK, linewidth=1, linestyle="--", label="all")
    left.set_xlabel("dB of logits over rounding noise; more is better")
    left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    right.barh(places, drops, color=_COLOURS[0], height=0.55)
    right.axvline(0, color=_GREY, linewidth=1)
    right.axvline(all_int8[0], color=_BLACK, linewidth=1, linestyle="--")
    widest = max(1.0, *(1.1 * abs(drop) for drop in (*drops, all_int8[0])))
    right.set_xlim(-widest, widest)
    right.set_xlabel("points of accuracy lost")
    left.set_yticks(places, list(layers), fontsize=8)
    left.set_ylim(len(layers) - 0.5, -0.5)
    for panel in (left, right):
        panel.grid(alpha=0.25, axis="x")
        panel.spines[["top", "right"]].set_visible(False)
    _save(figure, out)


def plot_spectrograms(
    spectrograms: Mapping[str, npt.NDArray[np.float32]], frequencies: npt.NDArray[np.float32], frame_s: float, out: Path
) -> None:
    """Draw a log-mel spectrogram `(T, F)` in dB for each title to the PNG `out`; `frequencies (F,)` are the centres of
    the mel bins in Hz, `frame_s` is from frame to frame.

    All share one scale of colours, in dB below the loudest cell of each: recordings differ in gain.
    """
    count = len(spectrograms)
    columns = min(count, next((most for most in (2, 3, 4, 5) if count <= most * most), 6))
    rows = math.ceil(count / columns)
    figure = _figure(1.6 + 2.5 * columns, 0.9 + 1.75 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    ticks = _frequency_ticks(frequencies)
    places = np.interp(ticks, frequencies, np.arange(len(frequencies)) + 0.5)
    for panel, (title, spectrogram) in zip(axes.flat, spectrograms.items(), strict=False):
        image = panel.imshow(
            spectrogram.T - spectrogram.max(),
            origin="lower",
            aspect="auto",
            extent=(0, len(spectrogram) * frame_s, 0, len(frequencies)),
            cmap="magma",
            vmin=-_SHOWN_DB,
            vmax=0,
            interpolation="nearest",
        )
        panel.set_title(_plain(title, letters=26), fontsize=9.5)
        panel.set_yticks(places, [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}" for tick in ticks])
        panel.tick_params(length=2, labelsize=8)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    for above, panel in zip(axes.flat, axes.flat[columns:], strict=False):
        if not panel.axison:  # the last of its column carries the time
            above.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("time in s", fontsize=10)
    figure.supylabel("frequency in Hz", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=min(1.0, 3 / rows), aspect=25, label="dB below the loudest of each")
    _save(figure, out)


def _frequency_ticks(frequencies: npt.NDArray[np.float32]) -> list[float]:
    """Round frequencies within the band, none closer to the next than a tenth of the axis."""
    ticks: list[float] = []
    last = -math.inf
    for tick in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000):
        if frequencies[0] <= tick <= frequencies[-1]:
            bins = float(np.interp(tick, frequencies, np.arange(len(frequencies))))
            if bins - last >= len(frequencies) / 10:
                ticks.append(tick)
                last = bins
    return ticks


def _plain(name: str, letters: int | None = None) -> str:
    """`name` on one line, cut after so many letters. A `$` in it opens no formula, which might not be valid."""
    line = " ".join(plain_text(name).split())
    if letters is not None and len(line) > letters:
        line = f"{line[: letters - 1]}…"
    return line.replace("$", r"\$")


def _read_stages(metrics_csv: Path) -> dict[str, dict[str, Curve]]:
    """The columns of each stage, in the order of the file; an empty cell is NaN."""
    if not metrics_csv.exists():
        raise InputError(f"{metrics_csv}: no such file; training writes it after its first epoch.")
    rows = read_metrics(metrics_csv)
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

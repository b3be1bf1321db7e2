"""The log-mel as ONNX operators: `edgekd.log_mel.ExportLogMel`, line for line."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgekd.exporting.onnx_writer.shaping import (
    average_pool,
    concatenated,
    cut,
    known,
    reshape,
    scaled,
    shifted,
    squeeze,
    transpose,
    unsqueeze,
)
from edgekd.exporting.onnx_writer.sheet import Sheet, Value
from edgekd.log_mel import POWER_FLOOR, ExportLogMel

Turn = Callable[[Sheet, Value], Value]


def write_log_mel(sheet: Sheet, frontend: ExportLogMel, waveform: Value, turn: Turn) -> Value:
    """Waveform `(B, S)` -> normalised log-mel `(B, 1, T, F)`. `turn`: how `(B, F, T)` becomes `(B, T, F)`."""
    config, factors, scope, batch = frontend.config, frontend.factors, sheet.scope, waveform.shape[0]

    def stored(name: str) -> str:
        return sheet.tensor(frontend.get_buffer(name), f"{scope}.{name}")

    framed = _framed(sheet, frontend, waveform)
    count = known(framed, 1) // factors.hop
    hops = transpose(sheet, reshape(sheet, framed, count, factors.hop), 1, 2)
    kernels, channels, reach = frontend.first.shape
    frames = count - reach + 1
    taken = sheet.node("Gather", [hops, stored("source")], (batch, channels * factors.residues, count), axis=1)
    spectrum = sheet.node(
        "Conv",
        [taken, stored("first")],
        (batch, kernels, frames),
        group=factors.residues,
        pads=[0, 0],
        auto_pad="NOTSET",
        strides=[1],
        dilations=[1],
        kernel_shape=[reach],
    )
    if factors.middle > 1:
        shape = (factors.inner, 2 * factors.middle, factors.classes * frames)
        spectrum = sheet.node("MatMul", [stored("second"), reshape(sheet, spectrum, *shape)], (batch, *shape))
    if factors.inner > 1:
        columns = factors.middle * factors.classes * frames
        spectrum = reshape(sheet, spectrum, 2 * factors.inner, columns)
        spectrum = sheet.node("MatMul", [stored("third"), spectrum], (batch, 2 * factors.bins, columns))
    squares = sheet.node("Mul", [spectrum, spectrum], spectrum.shape)
    squares = reshape(sheet, squares, 2 * frontend.rows, frames)
    real = cut(sheet, squares, 1, 0, frontend.rows)
    imaginary = cut(sheet, squares, 1, frontend.rows)
    power = sheet.node("Add", [real, imaginary], real.shape)
    magnitudes = config.convention == "yamnet"
    heard = sheet.node("Sqrt", [power], power.shape) if magnitudes else power
    mels = []
    for block in range(len(frontend.blocks)):
        bins, rows = frontend.get_buffer(f"filters{block}").shape
        used = sheet.node("Gather", [heard, stored(f"rows{block}")], (batch, rows, frames), axis=1)
        mels.append(sheet.node("MatMul", [stored(f"filters{block}"), used], (batch, bins, frames)))
    mel = concatenated(sheet, mels, 1)
    if magnitudes:
        mel = shifted(sheet, mel, frontend.get_buffer("offset"), f"{scope}.offset")
    else:
        mel = sheet.node("Clip", [mel, sheet.number(POWER_FLOOR, mel.dtype)], mel.shape)
    log_mel = sheet.node("Log", [mel], mel.shape)
    step = (config.bins_per_step, config.frames_per_step)
    if step != (1, 1):
        log_mel = squeeze(sheet, average_pool(sheet, unsqueeze(sheet, log_mel, 1), step, step), 1)
    return unsqueeze(
        sheet,
        turn(sheet, write_normalised(sheet, log_mel, frontend.get_buffer("scale"), frontend.get_buffer("shift"))),
        1,
    )


def write_normalised(sheet: Sheet, log_mel: Value, scale: Tensor, shift: Tensor) -> Value:
    """`scale * x + shift` for each mel bin; nothing where that is `x`."""
    return shifted(sheet, scaled(sheet, log_mel, scale, f"{sheet.scope}.scale"), shift, f"{sheet.scope}.shift")


def _framed(sheet: Sheet, frontend: ExportLogMel, waveform: Value) -> Value:
    samples = known(waveform, 1)
    before, after, zeros, whole = frontend.padding(samples)
    if frontend.borders:
        pads = sheet.integers(0, before, 0, after)
        waveform = sheet.node("Pad", [waveform, pads], (waveform.shape[0], whole - zeros), mode="reflect")
    if zeros > 0:
        pads, zero = sheet.integers(0, 0, 0, zeros), sheet.number(0.0, waveform.dtype)
        return sheet.node("Pad", [waveform, pads, zero], (waveform.shape[0], whole), mode="constant")
    return cut(sheet, waveform, 1, 0, whole) if zeros < 0 else waveform

"""The log-mel as ONNX operators: `edgekd.log_mel.ExportLogMel`, line for line."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgekd.exporting.onnx_writer.shaping import (
    average_pool,
    concatenated,
    cut,
    flattened,
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
    config, inner, scope, batch = frontend.config, frontend.inner, sheet.scope, waveform.shape[0]

    def stored(name: str) -> str:
        return sheet.tensor(frontend.get_buffer(name), f"{scope}.{name}")

    framed = _framed(sheet, frontend, waveform)
    blocks = known(framed, 1) // inner
    phases = transpose(sheet, reshape(sheet, framed, blocks, inner), 1, 2)
    stride = config.hop_length // inner
    frames = (blocks - frontend.taps) // stride + 1
    stage1 = sheet.node(
        "Conv",
        [phases, stored("first")],
        (batch, 2 * inner * frontend.residues, frames),
        group=inner,
        pads=[0, 0],
        auto_pad="NOTSET",
        strides=[stride],
        dilations=[1],
        kernel_shape=[frontend.taps],
    )
    stage1 = transpose(sheet, reshape(sheet, stage1, 2 * inner, frontend.residues, frames), 1, 2)
    shape = (batch, frontend.residues, 2 * frontend.outer_rows, frames)
    stage2 = sheet.node("MatMul", [stored("second"), stage1], shape)
    squares = sheet.node("Mul", [stage2, stage2], shape)
    real = cut(sheet, squares, 2, 0, frontend.outer_rows)
    imaginary = cut(sheet, squares, 2, frontend.outer_rows)
    power = flattened(sheet, sheet.node("Add", [real, imaginary], real.shape), 1, 2)
    magnitudes = config.convention == "yamnet"
    spectrum = sheet.node("Sqrt", [power], power.shape) if magnitudes else power
    mels = []
    for block in range(frontend.blocks):
        rows = frontend.get_buffer(f"rows{block}")
        bins = len(frontend.get_buffer(f"filters{block}"))
        heard = sheet.node("Gather", [spectrum, stored(f"rows{block}")], (batch, len(rows), frames), axis=1)
        mels.append(sheet.node("MatMul", [stored(f"filters{block}"), heard], (batch, bins, frames)))
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
    config = frontend.config
    samples = known(waveform, 1)
    steps, _ = config.shape(samples)
    if config.convention == "panns":
        half = config.n_fft // 2
        samples += 2 * half
        waveform = sheet.node(
            "Pad", [waveform, sheet.integers(0, half, 0, half)], (waveform.shape[0], samples), mode="reflect"
        )
    needed = (steps * config.frames_per_step - 1) * config.hop_length + frontend.taps * frontend.inner
    if needed > samples:
        zero = sheet.number(0.0, waveform.dtype)
        pads = sheet.integers(0, 0, 0, needed - samples)
        return sheet.node("Pad", [waveform, pads, zero], (waveform.shape[0], needed), mode="constant")
    return cut(sheet, waveform, 1, 0, needed) if needed < samples else waveform

"""How fast four forms of the log-mel front end are in ONNX Runtime, single thread, and how large.

    python -m tests.benchmarks.frontend

- `ExportLogMel`: the DFT in three factors, which is what a bundle holds, its weights stored (TensorRT) or computed
  when the session starts (onnxruntime);
- the DFT in two factors, of which the first is a strided convolution: what bundles held before;
- the DFT as one strided convolution, the usual way to keep a front end in a graph;
- the `STFT` operator, which most versions of TensorRT do not have.

Then what `ExportLogMel` costs in YAMNet's convention, with longer hops and with averages of frames and bins.

Prints for a clip the median processor time and the median of its ratios to the first form's, taken in turn; the time to
open a session; the size of the graph; and the largest difference from `LogMel`, in its unit.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from edgekd.config import FrontendConfig
from edgekd.exporting.computed_weights import with_computed_weights
from edgekd.exporting.onnx_writer.front_end import write_log_mel
from edgekd.exporting.onnx_writer.shaping import transpose
from edgekd.exporting.onnx_writer.sheet import Sheet, Value
from edgekd.log_mel import POWER_FLOOR, ExportLogMel, LogMel, mel_filterbank

SETTINGS = {
    "5 s at 32 kHz, 1024/320, 64 mel": (FrontendConfig(), 32_000, 160_000),
    "1 s at 16 kHz, 512/160, 64 mel": (FrontendConfig(n_fft=512, hop_length=160, f_max=7_500), 16_000, 16_000),
}
SHIPPED = {
    "panns, 32 kHz": (FrontendConfig(), 32_000),
    "panns, 16 kHz": (FrontendConfig().at(16_000), 16_000),
    **{
        f"yamnet, {hop} ms": (FrontendConfig(convention="yamnet", hop_ms=hop).at(16_000), 16_000)
        for hop in (10, 20, 40)
    },
    "yamnet, 10 ms, 2 frames": (FrontendConfig(convention="yamnet", frames_per_step=2).at(16_000), 16_000),
    "yamnet, 10 ms, 4 frames": (FrontendConfig(convention="yamnet", frames_per_step=4).at(16_000), 16_000),
    "yamnet, 10 ms, 4 x 2": (
        FrontendConfig(convention="yamnet", frames_per_step=4, bins_per_step=2).at(16_000),
        16_000,
    ),
}
REPETITIONS = 60


class TwoFactors(nn.Module):
    """The DFT with `N = 32 N2` by one step of Cooley and Tukey's factorisation.

    The first sum is a convolution over the samples with one group for each residue modulo N2, strided by hop / N2; the
    second one matrix for all. Convention "panns".
    """

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.config, self.inner = config, config.n_fft // 32
        n_fft, inner = config.n_fft, self.inner
        sample = torch.arange(32)[None, None, :] * inner + torch.arange(inner)[:, None, None]  # (n2, 1, n1)
        angle = -2 * math.pi / n_fft * ((sample * torch.arange(17)[None, :, None]) % n_fft).double()
        window = torch.hann_window(n_fft, dtype=torch.float64)[sample]
        first = torch.stack([window * angle.cos(), window * angle.sin()], dim=1).reshape(-1, 1, 32)
        self.register_buffer("first", first.float())
        filters = mel_filterbank(config, sample_rate)
        held = torch.arange(17)[:, None] + 32 * torch.arange(inner)
        held = torch.minimum(held, n_fft - held)
        outer = filters.any(dim=1)[held].any(dim=0).nonzero()[:, 0]
        angle = -2 * math.pi / inner * ((outer[:, None] * torch.arange(inner)) % inner).double()
        real, imaginary = (
            torch.stack(parts, dim=2) for parts in ((angle.cos(), -angle.sin()), (angle.sin(), angle.cos()))
        )
        self.register_buffer("second", torch.stack([real, imaginary]).reshape(2 * len(outer), 2 * inner).float())
        self.outer, flat = len(outer), held[:, outer].flatten().tolist()
        row = {held: place for place, held in reversed(list(enumerate(flat)))}
        for block in range(config.n_mels // 16):
            used = filters[:, 16 * block : 16 * (block + 1)].any(dim=1).nonzero()[:, 0]
            self.register_buffer(f"rows{block}", torch.tensor([row[held] for held in used.tolist()]))
            weights = filters[used, 16 * block : 16 * (block + 1)]
            self.register_buffer(f"filters{block}", weights.t().contiguous())

    def forward(self, waveform: Tensor) -> Tensor:
        half, (frames, _) = self.config.n_fft // 2, self.config.shape(waveform.shape[1])
        padded = pad(waveform, (half, half), mode="reflect")
        padded = padded[:, : (frames - 1) * self.config.hop_length + self.config.n_fft]
        phases = padded.unflatten(1, (-1, self.inner)).transpose(1, 2)
        stride = self.config.hop_length // self.inner
        stage1 = conv1d(phases, self.get_buffer("first"), stride=stride, groups=self.inner)
        stage2 = torch.matmul(self.get_buffer("second"), stage1.unflatten(1, (2 * self.inner, 17)).transpose(1, 2))
        squares = stage2 * stage2
        power = (squares[:, :, : self.outer] + squares[:, :, self.outer :]).flatten(1, 2)
        mels = [
            torch.matmul(self.get_buffer(f"filters{block}"), power.index_select(1, self.get_buffer(f"rows{block}")))
            for block in range(self.config.n_mels // 16)
        ]
        log_mel = torch.cat(mels, dim=1).clamp(min=POWER_FLOOR).log() * (10 / math.log(10))
        return log_mel.transpose(1, 2).unsqueeze(1)


class StridedDft(nn.Module):
    """The DFT as one convolution of stride hop with `2 (n_fft/2+1)` windowed kernels of n_fft samples."""

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        position = torch.arange(config.n_fft, dtype=torch.float64)
        bins = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64)
        angle = -2 * math.pi * bins[:, None] * position[None] / config.n_fft
        window = torch.hann_window(config.n_fft, dtype=torch.float64)
        self.register_buffer("kernels", torch.cat([window * angle.cos(), window * angle.sin()])[:, None].float())
        self.register_buffer("mel_weights", mel_filterbank(config, sample_rate))

    def forward(self, waveform: Tensor) -> Tensor:
        half = self.config.n_fft // 2
        padded = pad(waveform[:, None], (half, half), mode="reflect")
        parts = conv1d(padded, self.get_buffer("kernels"), stride=self.config.hop_length)
        squares = parts * parts
        power = squares[:, : half + 1] + squares[:, half + 1 :]
        mel = torch.matmul(power.transpose(1, 2), self.get_buffer("mel_weights")).clamp(min=POWER_FLOOR)
        return (mel.log() * (10 / math.log(10))).unsqueeze(1)


def exported(module: nn.Module, samples: int) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), (torch.randn(1, samples),), dynamo=True, verbose=False, opset_version=18
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # where it was exported from; a bundle's graph has none
    model.graph.ClearField("value_info")
    return model.SerializeToString()


def stft_operator(config: FrontendConfig, sample_rate: int) -> bytes:
    """The graph with ONNX's `STFT`, written node by node."""
    half = config.n_fft // 2
    constants = {
        "pads": np.array([0, half, 0, half], dtype=np.int64),
        "hop": np.array(config.hop_length, dtype=np.int64),
        "window": torch.hann_window(config.n_fft).numpy(),
        "mel_weights": mel_filterbank(config, sample_rate).numpy(),
        "floor": np.array(POWER_FLOOR, dtype=np.float32),
        "to_db": np.array(10 / math.log(10), dtype=np.float32),
        "last": np.array([-1], dtype=np.int64),
        "first": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Pad", ["waveform", "pads"], ["padded"], mode="reflect"),
        helper.make_node("Unsqueeze", ["padded", "last"], ["signal"]),
        helper.make_node("STFT", ["signal", "hop", "window"], ["spectrum"], onesided=1),
        helper.make_node("Mul", ["spectrum", "spectrum"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last"], ["power"], keepdims=0),
        helper.make_node("MatMul", ["power", "mel_weights"], ["mel"]),
        helper.make_node("Max", ["mel", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["log"]),
        helper.make_node("Mul", ["log", "to_db"], ["db"]),
        helper.make_node("Unsqueeze", ["db", "first"], ["log_mel"]),
    ]
    graph = helper.make_graph(
        nodes,
        "log_mel",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, "samples"])],
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, [1, 1, "frames", config.n_mels])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def shipped(config: FrontendConfig, sample_rate: int, samples: int, *, computes: bool) -> bytes:
    """`ExportLogMel` as a bundle has it."""
    sheet, frontend = Sheet(), ExportLogMel(config, sample_rate)
    waveform = Value("waveform", (1, samples))
    with sheet.within("frontend"):
        log_mel = write_log_mel(sheet, frontend, waveform, lambda sheet, value: transpose(sheet, value, 1, 2))
    model = sheet.model("log_mel", waveform, [log_mel], 18, "batch")
    model.ir_version = 10
    return (with_computed_weights(model, frontend, "frontend") if computes else model).SerializeToString()


def opened(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def measure(models: Mapping[str, bytes], waveform: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Print a line for each form."""
    sessions, starts = {}, {}
    for name, model in models.items():
        taken = []
        for _ in range(9):
            started = time.process_time()
            sessions[name] = opened(model)
            taken.append(1e3 * (time.process_time() - started))
        starts[name] = statistics.median(taken)
    times: dict[str, list[float]] = {name: [] for name in models}
    for repetition in range(REPETITIONS + 5):
        for name, session in sessions.items():
            started = time.process_time()
            session.run(None, {session.get_inputs()[0].name: waveform})
            if repetition >= 5:
                times[name].append(1e3 * (time.process_time() - started))
    first = next(iter(times.values()))
    for name, session in sessions.items():
        (output,) = session.run(None, {session.get_inputs()[0].name: waveform})
        ratio = statistics.median(one / other for one, other in zip(times[name], first, strict=True))
        off = float(np.abs(output - expected).max())
        figures = (
            f"{statistics.median(times[name]):>8.2f}{ratio:>8.3f}{starts[name]:>8.1f}{len(models[name]) / 1e3:>8.0f}"
        )
        print(f"  {name:<34}{figures}{off:>10.1e}   {output.shape[2]} x {output.shape[3]}")


HEADINGS = f"{'ms':>8}{'ratio':>8}{'start':>8}{'KB':>8}{'off':>10}   T x F"


def main() -> None:
    for title, (config, sample_rate, samples) in SETTINGS.items():
        waveform = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        expected = LogMel(config, sample_rate)(waveform).numpy()
        forms = {
            "two factors, strided": exported(TwoFactors(config, sample_rate), samples),
            "three factors, weights stored": shipped(config, sample_rate, samples, computes=False),
            "three factors, weights computed": shipped(config, sample_rate, samples, computes=True),
            "one strided convolution": exported(StridedDft(config, sample_rate), samples),
            "STFT operator": stft_operator(config, sample_rate),
        }
        print(f"{title:<36}{HEADINGS}")
        measure(forms, waveform.numpy(), expected)
    print(f"{'5 s by ExportLogMel':<36}{HEADINGS}")
    for name, (config, sample_rate) in SHIPPED.items():
        samples = 5 * sample_rate
        waveform = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        expected = LogMel(config, sample_rate)(waveform).numpy()
        measure({name: shipped(config, sample_rate, samples, computes=True)}, waveform.numpy(), expected)


if __name__ == "__main__":
    main()

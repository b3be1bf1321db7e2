"""How fast three forms of the log-mel front end are in ONNX Runtime, single thread.

    python -m tests.benchmarks.frontend

- `ExportLogMel`: the DFT in two factors, which is what a bundle holds;
- the DFT as one strided convolution, the usual way to keep a front end in a graph;
- the `STFT` operator, which most versions of TensorRT do not have.

Then what `ExportLogMel` costs in YAMNet's convention, with longer hops and with averages of frames and bins.

Prints the median time of a clip, the size of the graph and the largest difference from `LogMel`, in its unit.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from edgekd.config import FrontendConfig
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


def measure(model: bytes, waveform: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    """Median milliseconds of a clip, and the output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: waveform}
    for _ in range(5):
        (output,) = session.run(None, feed)
    times = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times), output


def main() -> None:
    for name, (config, sample_rate, samples) in SETTINGS.items():
        waveform = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        expected = LogMel(config, sample_rate)(waveform).numpy()
        forms = {
            "two factors (ExportLogMel)": exported(ExportLogMel(config, sample_rate), samples),
            "one strided convolution": exported(StridedDft(config, sample_rate), samples),
            "STFT operator": stft_operator(config, sample_rate),
        }
        print(f"{name}\n  {'form':<28}{'ms':>8}{'KB':>8}{'dB off':>10}")
        for form, model in forms.items():
            milliseconds, output = measure(model, waveform.numpy())
            off = float(np.abs(output - expected).max())
            print(f"  {form:<28}{milliseconds:>8.2f}{len(model) / 1e3:>8.0f}{off:>10.1e}")
    print(f"5 s by ExportLogMel\n  {'front end':<28}{'ms':>8}{'KB':>8}{'off':>10}   T x F")
    for name, (config, sample_rate) in SHIPPED.items():
        waveform = 0.1 * torch.randn(1, 5 * sample_rate, generator=torch.Generator().manual_seed(0))
        expected = LogMel(config, sample_rate)(waveform).numpy()
        model = exported(ExportLogMel(config, sample_rate), 5 * sample_rate)
        milliseconds, output = measure(model, waveform.numpy())
        off, (frames, bins) = float(np.abs(output - expected).max()), output.shape[2:]
        print(f"  {name:<28}{milliseconds:>8.2f}{len(model) / 1e3:>8.0f}{off:>10.1e}   {frames} x {bins}")


if __name__ == "__main__":
    main()

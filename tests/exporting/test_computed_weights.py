"""Weights of the front end that a graph computes when it is loaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from edgekd.config import FrontendConfig
from edgekd.exporting.computed_weights import OPERATORS, with_computed_weights
from edgekd.exporting.cost import graph_cost, graph_traffic
from edgekd.exporting.graph import Form, float_onnx, log_mel_nodes
from edgekd.exporting.onnx_writer.front_end import write_log_mel
from edgekd.exporting.onnx_writer.shaping import transpose
from edgekd.exporting.onnx_writer.sheet import Sheet, Value
from edgekd.exporting.qdq_checks import float_operators
from edgekd.exporting.targets import load_target
from edgekd.log_mel import ExportLogMel, LogMel
from edgekd.models.build import build_student

FRONT_ENDS = [
    pytest.param(FrontendConfig(), 32_000, id="32-kHz"),
    pytest.param(FrontendConfig().at(16_000), 16_000, id="16-kHz"),
    pytest.param(FrontendConfig(convention="yamnet").at(16_000), 16_000, id="yamnets"),
    pytest.param(FrontendConfig(n_mels=40, hop_ms=20).at(44_100), 44_100, id="44-kHz"),
    pytest.param(
        FrontendConfig(n_fft=256, hop_length=100, n_mels=80, f_max=4_000.0).at(8_000), 8_000, id="empty-filters"
    ),
]


def stored(config: FrontendConfig, rate: int, samples: int) -> tuple[onnx.ModelProto, ExportLogMel]:
    """The log-mel alone, its weights stored."""
    sheet, frontend = Sheet(), ExportLogMel(config, rate, gain=1.5).eval()
    waveform = Value("waveform", (1, samples))
    with sheet.within("frontend"):
        log_mel = write_log_mel(sheet, frontend, waveform, lambda sheet, value: transpose(sheet, value, 1, 2))
    return sheet.model("log_mel", waveform, [log_mel], 18, "batch"), frontend


def folded(model: onnx.ModelProto, path: Path, level: str) -> onnx.ModelProto:
    """What ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(path))


def run(model: onnx.ModelProto, waveform: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"waveform": waveform.numpy()})[0]


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("config", "rate"), FRONT_ENDS)
def test_the_log_mel_is_that_of_stored_weights(config: FrontendConfig, rate: int) -> None:
    model, frontend = stored(config, rate, rate)
    computed = with_computed_weights(model, frontend, "frontend")
    onnx.checker.check_model(computed, full_check=True)
    assert {node.op_type for node in computed.graph.node if "/weights/" in node.name} <= OPERATORS
    assert computed.ByteSize() < 0.4 * model.ByteSize()
    waveform = 0.1 * torch.randn(1, rate, generator=torch.Generator().manual_seed(0))
    found = run(computed, waveform)
    np.testing.assert_allclose(found, run(model, waveform), atol=5e-5)
    np.testing.assert_allclose(found, LogMel(config, rate)(1.5 * waveform), atol=1e-4)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_onnx_runtime_computes_them_when_a_session_starts(level: str, tmp_path: Path) -> None:
    model, frontend = stored(FrontendConfig(), 32_000, 32_000)
    whole, computed = (
        folded(each, tmp_path / f"{number}.onnx", level)
        for number, each in enumerate((model, with_computed_weights(model, frontend, "frontend")))
    )
    kinds = [Counter(node.op_type for node in each.graph.node) for each in (whole, computed)]
    assert kinds[0] == kinds[1], "operators on constants are left"
    sizes = [
        sum(numpy_helper.to_array(tensor).nbytes for tensor in each.graph.initializer) for each in (whole, computed)
    ]
    assert sizes[1] < 1.01 * sizes[0], "and nothing is in memory but what was stored before"


def test_a_board_with_onnxruntime_computes_them_and_a_jetson_does_not() -> None:
    cpu, jetson = load_target("cpu"), load_target("jetson-orin-nano")
    assert Form.of(cpu).computes_weights
    assert not Form.of(jetson).computes_weights
    without = cpu.model_copy(update={"operators": tuple(name for name in cpu.operators if name != "Mod")})
    assert not Form.of(without).computes_weights, "it has not all the operators"


def test_what_is_computed_at_the_start_counts_as_stored_before() -> None:
    student = build_student("hltdnn_micro", 3, 16_000, samples=16_000).eval()
    models = [
        onnx.load_from_string(float_onnx(student, 16_000, Form(computes_weights=computes)))
        for computes in (False, True)
    ]
    costs = [graph_cost(model) for model in models]
    assert costs[0].macs == costs[1].macs
    assert costs[1].parameter_bytes < costs[0].parameter_bytes - 30_000
    traffic = [graph_traffic(model) for model in models]
    assert traffic[0] == pytest.approx(traffic[1], rel=0.01)
    files = [model.SerializeToString() for model in models]
    assert float_operators(files[0]) == float_operators(files[1])
    assert set(log_mel_nodes(files[0])) <= set(log_mel_nodes(files[1]))

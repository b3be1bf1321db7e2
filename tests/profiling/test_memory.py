"""Memory of a child process, and activations against sizes known by hand and the figures of the graph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgekd.exporting.verify import session_options
from edgekd.profiling import memory
from edgekd.profiling.memory import Memory, graph_memory, torch_memory

NUMBERS, PART = 150_000, 100_000
FEED = {"x": np.ones((1, NUMBERS), np.float32)}
MIB = 2**20

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def chain(constant: int = 1) -> bytes:
    """Tensors of 600 000 bytes and, when those are gone, of 400 000: two are live at once, and never three.

    The sum of the first, times 0, is where the second begins, so that no runtime can take them in another order.
    `constant`: numbers of a weight, of which one is added.
    """
    nodes = [
        helper.make_node("Sin", ["x"], ["a"]),
        helper.make_node("ReduceSum", ["a", "axes"], ["s"], keepdims=0),
        helper.make_node("Mul", ["s", "nothing"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["weight", "place"], ["w"]),
        helper.make_node("Slice", ["x", "place", "end", "axes"], ["part"]),
        helper.make_node("Sin", ["part"], ["b"]),
        helper.make_node("MatMul", ["b", "column"], ["c"]),
        helper.make_node("Add", ["c", "w"], ["y"]),
    ]
    random = np.random.default_rng(0)
    weights = {"weight": random.random(constant, np.float32), "column": random.random((PART, 1), np.float32)}
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, NUMBERS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("end", TensorProto.INT64, [1], [PART]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0]),
            *(onnx.numpy_helper.from_array(array, name) for name, array in weights.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model.SerializeToString()


@pytest.fixture(scope="module")
def measured() -> Memory:
    return graph_memory(chain(constant=100_000), FEED)


def test_activations_are_counted_to_the_byte(measured: Memory) -> None:
    """Without the clip, without weights, and without what the allocator hands out beyond what is asked for."""
    if measured.activation_bytes is None:
        pytest.skip("this onnxruntime's profile does not tell memory: 1.32 is the first")
    two = 2 * 4 * PART
    assert two <= measured.activation_bytes < two + 4096  # blocks are rounded up


@needs_proc
def test_the_process_holds_python_and_the_runtime(measured: Memory) -> None:
    assert measured.failure is None
    assert measured.process_bytes is not None
    assert measured.peak_process_bytes is not None
    assert 20 * MIB < measured.process_bytes <= measured.peak_process_bytes < 200 * MIB  # with torch it would be more


@needs_proc
def test_a_large_model_makes_a_large_process(measured: Memory) -> None:
    large = graph_memory(chain(constant=16 * MIB), FEED)
    assert large.process_bytes is not None
    assert measured.process_bytes is not None
    assert large.peak_process_bytes is not None
    assert large.peak_process_bytes - measured.process_bytes > 60 * MIB


def test_the_child_runs_with_the_settings_of_the_package() -> None:
    ours, its = session_options(threads=1), memory._options()
    for name in ("intra_op_num_threads", "inter_op_num_threads", "log_severity_level"):
        assert getattr(its, name) == getattr(ours, name)
    entry = "session.x64quantprecision"
    assert its.get_session_config_entry(entry) == ours.get_session_config_entry(entry)


def test_a_child_that_fails_is_told_of_in_a_line() -> None:
    found = graph_memory(b"not a model", FEED)
    assert found.process_bytes is None
    assert found.failure is not None
    assert found.failure.startswith("its process failed: ")
    assert "\n" not in found.failure


def test_a_child_that_is_killed_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -KILL $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    failure = graph_memory(chain(), FEED).failure
    assert failure == "its process was killed by signal 9: was there too little memory?"


def test_a_child_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 30\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.2)
    assert graph_memory(chain(), FEED).failure == "its process took more than 0.2 s"


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.tempfile, "tempdir", str(tmp_path))
    assert graph_memory(chain(), FEED).failure is None
    torch_memory(lambda: torch.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_activations_of_a_module_are_what_it_holds_at_once() -> None:
    numbers = torch.ones(NUMBERS)

    def sines() -> torch.Tensor:
        return numbers.sin().cos().sin()  # two of 600 000 bytes at once, as in the graph

    assert torch_memory(sines).activation_bytes == 2 * 4 * NUMBERS

    def both() -> torch.Tensor:
        first, second = numbers.sin(), numbers.cos()
        return first + second

    assert torch_memory(both).activation_bytes == 3 * 4 * NUMBERS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_activations_on_a_gpu_are_what_it_holds_at_once() -> None:
    numbers = torch.ones(NUMBERS, device="cuda")
    found = torch_memory(lambda: numbers.sin().cos().sin(), "cuda").activation_bytes
    assert found is not None
    assert 2 * 4 * NUMBERS <= found < 3 * 4 * NUMBERS


def test_figures_are_named_as_in_the_report() -> None:
    assert Memory(1, 2, 3).figures() == {
        "process_bytes": 1,
        "peak_process_bytes": 2,
        "measured_activation_bytes": 3,
    }

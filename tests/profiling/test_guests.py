"""Graphs of others: what they may look like, and the one line that refuses what they may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from edgekd.config import ProfileConfig
from edgekd.errors import InputError
from edgekd.exporting.verify import in_one_line
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.guests import Guest, open_guest
from edgekd.profiling.profiler import profile
from edgekd.profiling.subjects import candidates

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled

SAMPLES, CLASSES = 4_000, 3
SOFTMAX = helper.make_node("Softmax", ["logits"], ["scores"], axis=-1)
Shape = list[str | int]
Change = Callable[[ModelProto], object]


def weights(kind: type[np.floating] = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((SAMPLES, CLASSES)) / 10).astype(kind)


def graph(
    last: onnx.NodeProto | None = SOFTMAX,
    kind: int = TensorProto.FLOAT,
    sound: Shape | None = None,
    change: Change = lambda _: None,
) -> ModelProto:
    """`softmax(waveform @ weights)`, or what `last` makes of the logits, changed."""
    numbers = helper.tensor_dtype_to_np_dtype(kind)
    product = helper.make_node("MatMul", ["waveform", "weights"], ["logits" if last else "scores"])
    model = helper.make_model(
        helper.make_graph(
            [product, last] if last else [product],
            "guest",
            [helper.make_tensor_value_info("waveform", kind, sound or ["batch", SAMPLES])],
            [helper.make_tensor_value_info("scores", kind, ["batch", CLASSES])],
            [numpy_helper.from_array(weights(numbers), "weights")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    change(model)
    return model


def opened(folder: Path, model: ModelProto, **settings: object) -> Guest:
    onnx.save(model, folder / "guest.onnx")
    return open_guest(folder / "guest.onnx", ProfileConfig.model_validate(settings))


def refusal(folder: Path, model: ModelProto | bytes) -> str:
    """The line that it is refused with."""
    path = folder / "guest.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(InputError) as caught:
        open_guest(path, ProfileConfig())
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


def noise(clips: int = 4) -> torch.Tensor:
    return 0.1 * torch.randn(clips, SAMPLES, generator=torch.Generator().manual_seed(1))


def expected(waveforms: torch.Tensor) -> torch.Tensor:
    return (waveforms @ torch.from_numpy(weights())).softmax(dim=1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter, self.head = nn.Conv1d(1, 8, 64, stride=32), nn.Linear(8, CLASSES)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.head(self.filter(waveform.unsqueeze(1)).relu().mean(dim=2)).softmax(dim=1)


def test_what_torch_exports_by_default_is_profiled_beside_the_run(profiled: Profiled, tmp_path: Path) -> None:
    network = Small().eval()
    torch.onnx.export(network, (torch.randn(1, SAMPLES),), tmp_path / "x.onnx", verbose=False)
    assert (tmp_path / "x.onnx.data").is_file()
    settings = ProfileConfig(repetitions=10, seconds=0.2, batches=(), noise=None, memory=False, energy=False)
    found = profile([profiled.run.folder / "student", tmp_path / "x.onnx"], settings)
    subject = found.subjects[-1]
    assert subject.scores is not None
    assert subject.cost.parameters == sum(weight.numel() for weight in network.parameters())
    clips = clips_of_run(profiled.run)
    waveforms = clips.store.waveforms(clips.rows)
    graph = open_guest(tmp_path / "x.onnx", settings)
    with torch.no_grad():
        torch.testing.assert_close(graph.classify(waveforms), network(waveforms), atol=1e-5, rtol=0)


def in_a_file_beside(folder: Path, location: str = "guest.onnx.data") -> ModelProto:
    """A graph that says that its weights lie in `location`, which it does not write."""
    model = graph()
    weight = model.graph.initializer[0]
    (folder / "guest.onnx.data").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return model


def test_weights_in_its_own_folder_are_read(tmp_path: Path) -> None:
    model = in_a_file_beside(tmp_path)
    torch.testing.assert_close(opened(tmp_path, model).classify(noise()), expected(noise()))
    (tmp_path / "weights").mkdir()
    (tmp_path / "guest.onnx.data").rename(tmp_path / "weights" / "guest.onnx.data")
    below = in_a_file_beside(tmp_path, "weights/guest.onnx.data")
    (tmp_path / "guest.onnx.data").unlink()
    torch.testing.assert_close(opened(tmp_path, below).classify(noise()), expected(noise()))


def test_weights_outside_its_folder_are_not_read(tmp_path: Path) -> None:
    """The file has the right bytes and length: only the guard stands before it."""
    folder = tmp_path / "guest"
    folder.mkdir()
    outside = tmp_path / "outside.data"
    outside.write_bytes(weights().tobytes())
    for location in ("../outside.data", str(outside), "x/../../outside.data"):
        line = refusal(folder, in_a_file_beside(folder, location))
        assert "its external data cannot be read" in line and "Keep the file that was written beside it" in line
    model = in_a_file_beside(folder)
    (folder / "guest.onnx.data").unlink()
    (folder / "guest.onnx.data").symlink_to(outside)
    assert "symbolic link" in refusal(folder, model)


def test_weights_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    model = in_a_file_beside(tmp_path)
    (tmp_path / "guest.onnx.data").write_bytes(b"short")
    model.graph.initializer[0].external_data.add(key="length", value="48000")
    assert "48000" in refusal(tmp_path, model)
    model.graph.initializer[0].external_data[1].value = str(1 << 45)
    assert "2 GiB or larger" in refusal(tmp_path, model)
    model.graph.initializer[0].external_data[1].value = "many"
    assert "'many'" in refusal(tmp_path, model)
    (tmp_path / "guest.onnx.data").unlink()
    assert "its external data cannot be read" in refusal(tmp_path, in_a_file_beside(tmp_path, "gone.data"))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_a_graph_is_fed_in_its_own_float_type(tmp_path: Path, kind: int) -> None:
    guest = opened(tmp_path, graph(kind=kind))
    scores = guest.classify(noise())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected(noise()), atol=2e-3, rtol=0)
    for timer in guest.timers(noise(1)).values():
        assert timer() > 0
    assert guest.precision == ("float16" if kind == TensorProto.FLOAT16 else "float32")
    assert any("float64" in note for note in guest.notes) == (kind == TensorProto.DOUBLE)


@pytest.mark.parametrize("first", [False, True])
def test_initialisers_that_are_listed_as_inputs_are_no_inputs(tmp_path: Path, first: bool) -> None:
    def list_them(model: ModelProto) -> None:
        listed = [
            *model.graph.input,
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [SAMPLES, CLASSES]),
        ]
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in listed]
        del model.graph.input[:]
        model.graph.input.extend(reversed(copies) if first else copies)

    guest = opened(tmp_path, graph(change=list_them))
    torch.testing.assert_close(guest.classify(noise()), expected(noise()))
    assert guest.cost(noise(1)).macs == SAMPLES * CLASSES


@pytest.mark.parametrize(
    "last", [None, helper.make_node("LogSoftmax", ["logits"], ["scores"], axis=-1)], ids=["logits", "logarithms"]
)
def test_logits_are_told_and_become_probabilities(tmp_path: Path, last: onnx.NodeProto | None) -> None:
    guest = opened(tmp_path, graph(last))
    torch.testing.assert_close(guest.classify(noise()), expected(noise()))
    (note,) = guest.notes
    assert "not to 1: they were taken for logits" in note
    assert opened(tmp_path, graph()).notes == ()


def test_scores_of_each_class_alone_keep_the_winner(tmp_path: Path) -> None:
    guest = opened(tmp_path, graph(helper.make_node("Sigmoid", ["logits"], ["scores"])))
    scores = guest.classify(noise())
    assert torch.equal(scores.argmax(dim=1), expected(noise()).argmax(dim=1))
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(4))
    assert "taken for logits" in guest.notes[0]


def test_what_a_graph_says_of_its_output_need_not_be_true(tmp_path: Path) -> None:
    def say_nothing(model: ModelProto) -> None:
        model.graph.output[0].type.tensor_type.ClearField("shape")

    def say_more(model: ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9

    for change in (say_nothing, say_more):
        guest = opened(tmp_path, graph(change=change))
        assert guest.classes == CLASSES
        assert guest.cost(noise(1)).macs == SAMPLES * CLASSES


def test_a_graph_whose_operations_cannot_be_counted_is_timed_all_the_same(tmp_path: Path) -> None:
    def compute_a_shape(model: ModelProto) -> None:
        nodes = [
            helper.make_node("NonZero", ["logits"], ["places"]),
            helper.make_node("ReduceSum", ["places"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Cast", ["nothing"], ["plus"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["scores", "plus"], ["all"]),
        ]
        model.graph.node.extend(nodes)
        model.graph.initializer.append(numpy_helper.from_array(np.array(0), "zero"))
        model.graph.output[0].name = "all"

    guest = opened(tmp_path, graph(change=compute_a_shape))
    (note,) = guest.notes
    assert "its operations could not be counted" in note
    cost = guest.cost(noise(1))
    assert cost.macs is None and cost.file_bytes == len(guest.model)
    assert guest.timers(noise(1))["whole"]() > 0


def renamed(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.FLOAT, [1]))


def with_logits_too(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]))


def without_shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def of_labels(model: ModelProto) -> None:
    model.graph.node[-1].CopyFrom(helper.make_node("ArgMax", ["logits"], ["scores"], axis=1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def of_integers(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Cast", ["waveform"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT16


def of_one_clip(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, SAMPLES]), "shape"))
    model.graph.node.insert(0, helper.make_node("Reshape", ["waveform", "shape"], ["one"]))
    model.graph.node[1].input[0] = "one"


def of_a_sequence(model: ModelProto) -> None:
    model.graph.node[-1].CopyFrom(helper.make_node("SplitToSequence", ["logits"], ["scores"], axis=0))
    value = helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(value)


def of_a_foreign_operator(model: ModelProto) -> None:
    model.graph.node[-1].domain = "somebody.else"
    model.opset_import.append(helper.make_opsetid("somebody.else", 1))


def of_a_later_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def without_operators(model: ModelProto) -> None:
    del model.graph.node[:]


NOT_FINITE = helper.make_node("Log", ["logits"], ["scores"])
DEEPER = helper.make_node("Unsqueeze", ["logits", "axis"], ["scores"])


def with_an_axis(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (graph(change=renamed), "2 inputs (waveform, rate); a graph that maps one input"),
        (graph(change=with_logits_too), "2 outputs (scores, logits); a graph that maps one input"),
        (graph(sound=["batch", "time"]), "(?, ?): how many samples it hears is not fixed. Fix it: python -P -m onnxr"),
        (graph(sound=[4, SAMPLES]), f"(4, {SAMPLES}): it takes 4 clips at a time. Export it for a batch of any size"),
        (graph(sound=["batch", 1, SAMPLES]), f"(?, 1, {SAMPLES}); a graph that maps one input"),
        (graph(sound=[SAMPLES]), f"({SAMPLES}); a graph that maps one input"),
        (graph(sound=["batch", 1 << 40]), "no clip is that long"),
        (graph(change=without_shape), "its input 'waveform' has no shape"),
        (graph(change=of_integers), "its input 'waveform' is no tensor of floats"),
        (graph(change=of_labels), "its output 'scores' is no tensor of floats"),
        (graph(change=of_a_sequence), "its output 'scores' is no tensor of floats"),
        (graph(change=of_one_clip), "it does not run on 2 clips of noise: "),
        (graph(DEEPER, change=with_an_axis), "of 2 clips it gives scores of shape (2, 1, 3)"),
        (graph(NOT_FINITE), "its scores of noise are not finite"),
        (graph(change=of_a_foreign_operator), "cannot load the model: Fatal error: somebody.else:Softmax"),
        (graph(change=of_a_later_opset), "cannot load the model: ONNX Runtime only *guarantees* support"),
        (graph(change=without_operators), "it has no operators"),
        (graph().SerializeToString()[:3000], "not an ONNX file that can be read"),
        (b"", "it has no operators"),
    ],
)
def test_any_other_graph_is_refused_in_one_line(tmp_path: Path, model: ModelProto | bytes, words: str) -> None:
    assert words in refusal(tmp_path, model)


def test_the_advice_for_an_open_length_works(tmp_path: Path) -> None:
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    model = graph(sound=["batch", "time"])
    make_input_shape_fixed(model.graph, "waveform", [1, SAMPLES])  # what make_dynamic_shape_fixed calls
    torch.testing.assert_close(opened(tmp_path, model).classify(noise()), expected(noise()))


def test_rounding_that_tensorrt_would_clip_is_refused_where_it_would_run(profiled: Profiled, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(profiled.graphs["int8"])
    config = ProfileConfig(provider="TensorrtExecutionProvider")
    for source in (path, profiled.run.folder / "int8"):
        with pytest.raises(
            InputError, match=r"tensor '.*' is rounded to uint8 .*clips at half its range.*--provider out"
        ):
            candidates([source], config)


def test_words_of_onnxruntime_lose_their_codes_and_signatures() -> None:
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : Node 'r' /build/onnxruntime_src/onnxruntime/core/x.h:91 f::g(const B&, bool)"
        " sizes differ:\n{2} and {1}."
    )
    assert in_one_line(RuntimeError(said)) == "Node 'r' sizes differ: {2} and {1}"

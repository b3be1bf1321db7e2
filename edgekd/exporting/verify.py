"""Parity: does the exported file say what the trained network says?

ONNX Runtime on at least `MIN_CLIPS` real clips decides; on a few of them the standard's own reference implementation
(`onnx.reference`) is asked as well, which shares no code with it. A runtime rounds in other places than the
fake-quantised network (an int8 result is one unit up or down where a sum falls on the boundary), so probabilities
differ a little and classes should not. Export refuses a model beyond its tolerance.

What a classifier says of how familiar a clip is (`known`) is held to the same: clips are to lie on the same side of the
threshold, and differences are shares of the range that the scores of these clips have, as probabilities have one of 1.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.device.runner.answers import same_answers
from edgekd.device.runner.engines import onnxruntime_failures
from edgekd.errors import GateError
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import Parity, Reject
from edgekd.exporting.targets import Tolerance
from edgekd.models.students.student import Student
from edgekd.progress import Progress, silent
from edgekd.quantization.fake_quant import FlavourName, set_flavour
from edgekd.quantization.prepare import QuantizedNetwork
from edgekd.task import SINGLE, Task

if TYPE_CHECKING:
    import onnxruntime

MIN_CLIPS = 64  # fewer say little about agreement
REFERENCE_CLIPS = 4  # of 0.2 s to 2 s each in onnx.reference
_REFERENCE_OPSET = 19  # the first whose DequantizeLinear it has; older graphs are read as this one
_BATCH = 8

FLOATS: dict[str, type[np.floating]] = {  # as ONNX Runtime calls them
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}

Sound = NDArray[np.float32]
FrontEndOf = Callable[[Tensor], Tensor] | None  # waveforms (B, S) -> what the graph takes instead
Probabilities = Callable[[Tensor], Tensor]
"""Waveforms `(B, S)` -> class probabilities `(B, K)`; of a classifier that tells how familiar a clip is, with `known`
in one more column (`split_known`)."""


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """ONNX Runtime's settings for the models of this package, on `threads` threads; the runner has the same."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without VNNI, x86 adds pairs of uint8 x int8 products in 16 bits, which saturate; this asks for exact sums there
    # and changes nothing elsewhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def session(
    model_bytes: bytes, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session of `model_bytes`, on `threads` threads of the CPU or by other `providers`.

    Raises `GateError` when the runtime refuses the model.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(model_bytes, session_options(threads), providers=list(providers))
    except onnxruntime_failures() as refusal:
        raise GateError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {in_one_line(refusal)}."
        ) from None


def in_one_line(failure: Exception) -> str:
    """What ONNX Runtime says of a failure, without its codes and C++ signatures."""
    words = " ".join(str(failure).split())
    words = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", words)
    words = re.sub(r"/\S*/onnxruntime/\S+:\d+ .*?\) ", "", words)
    return words[:300].rstrip(" .")


def in_onnxruntime(model_bytes: bytes, front_end: FrontEndOf = None) -> Probabilities:
    """An exported graph as a function of waveforms, run by ONNX Runtime on one thread.

    `front_end` computes the log-mel `(B, 1, T, F)` of a graph that takes one. Raises `GateError` when the runtime
    refuses the model.
    """
    return in_session(session(model_bytes), front_end)


def in_session(runtime: onnxruntime.InferenceSession, front_end: FrontEndOf = None) -> Probabilities:
    """`in_onnxruntime` with a session that is open already."""
    sound = runtime.get_inputs()[0]
    kind = FLOATS.get(sound.type, np.float32)

    def infer(clips: Sound) -> Sound:
        return _joined(runtime.run(None, {sound.name: clips.astype(kind, copy=False)}))

    return _of_waveforms(infer, sound.shape, front_end)


def in_reference(model_bytes: bytes, front_end: FrontEndOf = None) -> Probabilities:
    """`in_onnxruntime` with the ONNX standard's reference implementation in its place."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(model_bytes)
    if model.opset_import[0].version < _REFERENCE_OPSET:
        model = onnx.version_converter.convert_version(model, _REFERENCE_OPSET)
    sound = model.graph.input[0]
    evaluator = ReferenceEvaluator(model)
    shape = [dimension.dim_value or None for dimension in sound.type.tensor_type.shape.dim]

    def infer(clips: Sound) -> Sound:
        outputs = evaluator.run(None, {sound.name: clips})
        assert isinstance(outputs, list)
        return _joined(outputs)

    return _of_waveforms(infer, shape, front_end)


def _joined(outputs: Sequence[Sound]) -> Sound:
    """The outputs of a graph, `(B, K)` and maybe `(B,)`, as columns of one array."""
    probabilities, *known = (each.astype(np.float32, copy=False) for each in outputs)
    return np.column_stack([probabilities, *known]) if known else probabilities


def split_known(answers: Sound, classes: int) -> tuple[Sound, Sound | None]:
    """Class probabilities `(B, classes)` of what a classifier answers, and `known (B,)` where it tells."""
    return answers[:, :classes], answers[:, classes] if answers.shape[1] > classes else None


def _of_waveforms(
    infer: Callable[[Sound], Sound], shape: Sequence[int | str | None], front_end: FrontEndOf
) -> Probabilities:
    """`infer`, which takes inputs of `shape`, as a function of waveforms of any batch."""
    clips_a_call = 1 if shape[0] == 1 else _BATCH
    takes_log_mel = len(shape) > 2

    @torch.no_grad()
    def classify(waveforms: Tensor) -> Tensor:
        sounds = waveforms
        if takes_log_mel:
            assert front_end is not None, "the graph takes a log-mel"
            sounds = front_end(waveforms)
        return torch.cat([torch.from_numpy(infer(part.numpy())) for part in sounds.split(clips_a_call)])

    return classify


class Remembered:
    """A classifier that remembers what it said of each clip, and computes nothing twice.

    An export asks the same clips several times: each precision is held to the same float student, another
    implementation to the same answers, and most clips that are tested are verified before.
    """

    def __init__(self, classify: Probabilities) -> None:
        self._classify = classify
        self._said: dict[int, Tensor] = {}

    def __call__(self, waveforms: Tensor) -> Tensor:
        clips = [hash(clip.tobytes()) for clip in waveforms.numpy()]
        new = [place for place, clip in enumerate(clips) if clip not in self._said]
        if new:
            answers = self._classify(waveforms if len(new) == len(clips) else waveforms[new])
            self._said.update(zip((clips[place] for place in new), answers, strict=True))
        return torch.stack([self._said[clip] for clip in clips])


def graph_classifier(classify: Probabilities, task: Task = SINGLE) -> Probabilities:
    """A function of probabilities as a classifier of logits, whose probabilities they are again."""
    return lambda waveforms: task.logits(classify(waveforms))


def reference(
    student: Student,
    network: QuantizedNetwork | None = None,
    flavour: FlavourName | None = None,
    known: KnownScore | None = None,
) -> Probabilities:
    """Waveforms `(B, S)` -> probabilities `(B, K)` as trained: the student, or with the quantised `network` in its
    place; with `known` in one more column where it is given.

    `network` computes as a runtime of `flavour` will; see `edgekd.quantization.fake_quant.set_flavour`. Copies are
    taken, so what is passed in is left as it is.
    """
    whole = copy.deepcopy(student).cpu().eval()
    if network is not None:
        whole.network = copy.deepcopy(network).cpu().eval()
        if flavour is not None:
            set_flavour(whole.network, flavour)

    if known is not None and known.gaussians is not None:
        whole.give_embedding()

    @torch.no_grad()
    def answers(waveforms: Tensor) -> Tensor:
        output = whole(waveforms)
        probabilities = whole.task.probabilities(output.logits)
        if known is None:
            return probabilities
        familiar = known.of(output.logits, probabilities, output.embedding)
        return torch.cat([probabilities, familiar[:, None]], dim=1)

    return answers


def verify(
    classify: Probabilities,
    trained: Probabilities,
    waveforms: Tensor,
    tolerance: Tolerance,
    progress: Progress = silent,
    task: Task = SINGLE,
    reject: Reject | None = None,
) -> Parity:
    """Compare an exported model with the trained student on `waveforms (N, S)`, N at least `MIN_CLIPS`.

    `reject`: how they tell the unknown, where they do. Raises `GateError` with the figures when agreement is below or a
    difference above `tolerance`, or an output is not finite.
    """
    if len(waveforms) < MIN_CLIPS:
        raise ValueError(f"verification needs at least {MIN_CLIPS} clips, got {len(waveforms)}")
    expected, found = _answers(classify, trained, waveforms, _BATCH, progress, "verify")
    agreement, difference, *known = _compared(expected, found, task, reject)
    if not (agreement >= tolerance.agreement and difference <= tolerance.probability):  # NaN refuses too
        raise GateError(
            f"The exported model does not agree with the trained one on {len(waveforms)} clips: {agreement:.1%} same "
            f"{'answers' if task.several else 'class'} (at least {tolerance.agreement:.1%} wanted), largest difference "
            f"in probability {difference:.4f} (at most {tolerance.probability:.4f}). Train the int8 student longer "
            "(edgekd quantize), or, if the application can bear it, set a wider [tolerance] in the target's TOML."
        )
    if known and not (known[0] >= tolerance.agreement and known[1] <= tolerance.probability):
        raise GateError(
            f"What the exported model says of how familiar {len(waveforms)} clips are does not agree with the trained "
            f"one: {known[0]:.1%} on the same side of the threshold (at least {tolerance.agreement:.1%} wanted), "
            f"largest difference {known[1]:.4f} of the range of the scores (at most {tolerance.probability:.4f}). "
            "Train the int8 student longer (edgekd quantize), or leave --reject out."
        )
    return _parity(len(waveforms), agreement, difference, known)


def verify_by_reference(
    classify: Probabilities,
    trained: Probabilities,
    waveforms: Tensor,
    tolerance: Tolerance,
    progress: Progress = silent,
    task: Task = SINGLE,
    reject: Reject | None = None,
) -> Parity:
    """Compare a graph run by `in_reference` with the trained student on the first `REFERENCE_CLIPS` waveforms.

    Raises `GateError` when a difference is above `tolerance`; that few clips say nothing about agreement.
    """
    import onnx

    clips = waveforms[:REFERENCE_CLIPS]
    expected, found = _answers(classify, trained, clips, 1, progress, "verify by reference")
    agreement, difference, *known = _compared(expected, found, task, reject)
    if not difference <= tolerance.probability or (known and not known[1] <= tolerance.probability):
        what = "scores of how familiar clips are" if difference <= tolerance.probability else "probabilities"
        raise GateError(
            f"onnx.reference {onnx.__version__} gets other {what} from the exported model than the trained one gives: "
            f"largest difference {max((difference, *known[1:])):.4f} (at most {tolerance.probability:.4f}) on "
            f"{len(clips)} clips. This is a fault of the export, not of the run: please report it with the model."
        )
    return _parity(len(clips), agreement, difference, known)


def _parity(clips: int, agreement: float, difference: float, known: Sequence[float]) -> Parity:
    agrees, apart = known or (None, None)
    return Parity(
        clips=clips, agreement=agreement, largest_difference=difference, known_agreement=agrees, known_difference=apart
    )


def _answers(
    classify: Probabilities, trained: Probabilities, waveforms: Tensor, batch_size: int, progress: Progress, stage: str
) -> tuple[Sound, Sound]:
    """What `trained` and `classify` say of all of `waveforms`."""
    answers, outputs = [], []
    for done, batch in enumerate(waveforms.float().split(batch_size)):
        progress(stage, done * batch_size, len(waveforms))
        answers.append(trained(batch))
        outputs.append(classify(batch))
    progress(stage, len(waveforms), len(waveforms))
    expected, found = torch.cat(answers), torch.cat(outputs)
    if found.shape != expected.shape:
        raise GateError(
            f"The exported model gives outputs of shape {tuple(found.shape)}, the trained one {tuple(expected.shape)}."
        )
    return expected.numpy(), found.numpy()


def _compared(expected: Sound, found: Sound, task: Task, reject: Reject | None) -> tuple[float, ...]:
    """Share of the same answers (`same_answers`), and the largest difference of any probability; with `reject` also the
    share on the same side of its threshold, and the largest difference as a share of its span."""
    classes = expected.shape[1] - (reject is not None)
    (said, familiar), (answered, known) = split_known(expected, classes), split_known(found, classes)
    agreement = same_answers(answered, said, task.activation)
    figures = (agreement, float(np.abs(answered - said).max()))
    if reject is None or known is None or familiar is None:
        return figures
    same = float(((known >= reject.threshold) == (familiar >= reject.threshold)).mean())
    return (*figures, same, float(np.abs(known - familiar).max() / reject.span))

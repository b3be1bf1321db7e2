"""What is deployed: a trained student in one precision, and the PyTorch module of it that becomes a graph.

    waveform (B, S) -> ExportLogMel (gain, log-mel, batch norm folded in) -> network -> softmax
    log_mel (B, 1, T, F) -> batch norm -> network -> softmax                   (log-mel "external", by the caller)

with a sigmoid in place of the softmax where clips may be of several classes.

Three precisions. *fp32* is what a trained student is. *fp16* casts the normalised log-mel and runs the network in half
precision; the front end stays in float32, for its power spectrum spans 1e-10 to beyond 65504. In *int8* every fake
quantiser has become what a runtime executes: a QuantizeLinear and a DequantizeLinear round each activation, and int8
weights with a DequantizeLinear per channel. The front end, the histogram layer, averages, sigmoid and softmax stay in
float, and so do the layers that quantisation was told to leave. Types and zero points follow the flavour
(`edgekd.quantization.fake_quant.FLAVOURS`). Where the unknown is to be rejected, how familiar a clip is comes beside
the softmax (`edgekd.exporting.known`), computed in float32 in every precision.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from edgekd.exporting.integer_layers import with_integers
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import Reject
from edgekd.exporting.targets import LogMelPlace, Precision
from edgekd.exporting.temperature import with_temperature
from edgekd.exporting.verify import Probabilities, reference
from edgekd.log_mel import ExportLogMel, mel_bin_affine, turned
from edgekd.models.students.student import Student
from edgekd.quantization.fake_quant import FLAVOURS, FlavourName
from edgekd.quantization.int8_student import load_int8, quantized_network, settings_file
from edgekd.quantization.prepare import QuantizedNetwork, check_finite
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import temperature_of


@dataclass(frozen=True)
class Deployable:
    """A trained student in one precision, of clips of `clip_samples`.

    `network`: the quantised network, which int8 has in place of the student's own. `source` names what it was loaded
    from: deployables of one source, precision and length are the same student, and are equal. `temperature`: what the
    logits of both are divided by already. `known`: the score that is to tell unknown clips, and `reject`: how;
    `rejecting` adds them.
    """

    precision: Precision
    clip_samples: int
    source: str
    student: Student = field(compare=False, repr=False)
    network: QuantizedNetwork | None = field(default=None, compare=False, repr=False)
    temperature: float = field(default=1.0, compare=False)
    known: KnownScore | None = field(default=None, compare=False, repr=False)
    reject: Reject | None = field(default=None, compare=False, repr=False)

    def rejecting(self, known: KnownScore, reject: Reject) -> Deployable:
        """This student with another output, `known`; itself has none."""
        assert self.known is None
        return replace(self, known=known, reject=reject, source=f"{self.source} {known.digest}")

    @property
    def stage(self) -> Stage:
        """What of a run it is."""
        return "student" if self.network is None else "int8"

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers of an int8 network that quantisation left in float on purpose."""
        return () if self.network is None else tuple(self.network.float_layers())

    def trained(self, flavour: FlavourName) -> Probabilities:
        """The student as it computes in the end, on a runtime of `flavour`; fp16 is held to the float student."""
        return reference(self.student, self.network, flavour, self.known)

    def module(self, flavour: FlavourName, log_mel: LogMelPlace) -> DeployableModule:
        """The PyTorch module that is exported. Raises `InputError` for a scale that was never calibrated."""
        if self.network is None:
            half = self.precision == "fp16"
            return DeployableModule(self.student, self.student.network, log_mel, half=half, known=self.known)
        return integer_module(self.student, self.network, flavour, log_mel, self.known)


def deployable_of(run: Run, precision: Precision) -> Deployable:
    """The student of a finished run in one precision, its temperature folded in.

    Raises `InputError` for an unfinished run, one without an int8 student where that is asked for, and for weights that
    are not finite.
    """
    int8 = precision == "int8"
    trained = load_int8(run) if int8 else run.student()
    check_finite(trained)
    temperature = temperature_of(run, "int8" if int8 else "student")
    student = with_temperature(trained, temperature)
    data = run.config.data
    return Deployable(
        precision=precision,
        clip_samples=round(data.clip_seconds * data.sample_rate),
        source=_source(run, int8, temperature),
        student=student,
        network=quantized_network(student) if int8 else None,
        temperature=temperature,
    )


def _source(run: Run, int8: bool, temperature: float) -> str:
    """A digest of all that a student is loaded from: configuration, classes, temperature, settings of quantisation,
    weights."""
    settings = run.config.model_dump(mode="json", exclude={"out"})
    digest = hashlib.sha256(json.dumps([settings, run.classes, temperature]).encode())
    if int8 and settings_file(run).is_file():
        digest.update(settings_file(run).read_bytes())
    digest.update(run.weights("int8" if int8 else "student").read_bytes())
    return digest.hexdigest()


class DeployableModule(nn.Module):
    """What is shipped: waveform `(B, S)`, or log-mel `(B, 1, T, F)`, -> probabilities `(B, K)`, and `known (B,)` where
    there is such a score."""

    def __init__(
        self,
        student: Student,
        network: nn.Module,
        log_mel: LogMelPlace = "graph",
        *,
        half: bool = False,
        turn: Callable[[Tensor], Tensor] = turned,
        known: KnownScore | None = None,
    ) -> None:
        super().__init__()
        scale, shift = mel_bin_affine(student.norm)
        config, sample_rate = student.frontend.config, student.frontend.sample_rate
        if log_mel == "graph":
            gain = student.gain.item()
            self.frontend: nn.Module = ExportLogMel(config, sample_rate, gain, scale, shift, turn)
        else:
            self.frontend = Normalise(scale, shift)
        self.half_precision, self.task, self.known = half, student.task, known
        # Of the same name in the network that quantisation makes.
        self._embedding_layer = None if student.embedding_layer is None else student.embedding_layer.name
        self.network = copy.deepcopy(network)
        self.eval().cpu()
        if half:
            self.network.half()

    def forward(self, sound: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        log_mel = self.frontend(sound)
        entered = log_mel.half() if self.half_precision else log_mel
        if self.known is None:
            return self.task.probabilities(self.network(entered)[0].float())
        logits, embedding = self._logits_and_embedding(entered, self.known)
        probabilities = self.task.probabilities(logits.float())
        return probabilities, self.known.of(logits, probabilities, embedding)

    def _logits_and_embedding(self, log_mel: Tensor, known: KnownScore) -> tuple[Tensor, Tensor | None]:
        if known.gaussians is None:
            return self.network(log_mel)[0], None
        assert self._embedding_layer is not None
        seen: list[Tensor] = []  # on its way, so that networks need not return it
        layer = self.network.get_submodule(self._embedding_layer)
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self.network(log_mel)[0]
        finally:
            hook.remove()  # a network with something hooked into it is not what it seems
        return logits, seen.pop()


def integer_module(
    student: Student,
    network: QuantizedNetwork,
    flavour: FlavourName,
    log_mel: LogMelPlace = "graph",
    known: KnownScore | None = None,
) -> DeployableModule:
    """The student with the quantised `network` in place of its own, in the operators that a `flavour` executes.

    Raises `InputError` when a scale in `network` was never calibrated.
    """
    family = FLAVOURS[flavour]
    turn = turned_by_einsum if family.moves_transposes else turned
    return DeployableModule(student, with_integers(network, family), log_mel, turn=turn, known=known)


def turned_by_einsum(log_mel: Tensor) -> Tensor:
    """`(B, F, T)` -> `(B, T, F)`, not as a Transpose.

    ONNX Runtime moves a Transpose past the QuantizeLinear that follows, to merge it with the one that brings its int8
    convolutions their channels last, and turning bytes takes it ten times as long as turning floats.
    """
    batch, bins, frames = log_mel.shape
    shape = (batch, frames, bins)
    return torch.onnx.ops.symbolic("Einsum", (log_mel,), {"equation": "bft->btf"}, dtype=log_mel.dtype, shape=shape)


class Normalise(nn.Module):
    """`scale * x + shift` for each mel bin of `(B, 1, T, F)`."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, log_mel: Tensor) -> Tensor:
        return log_mel * self.get_buffer("scale") + self.get_buffer("shift")

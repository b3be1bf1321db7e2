"""What a bundle says of itself: the types of `manifest.json`, and bundles that are read back.

A bundle is a folder whose files are those that its manifest lists, with the digests that it lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from edgekd import __version__
from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.config import FrontendConfig, Section, parse
from edgekd.data.background import background_of
from edgekd.device import runner
from edgekd.device.runner.detection import CLOSE_SHARE, DEFAULT_OPEN
from edgekd.errors import InputError, UsageError, shown
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Batch, Precision, Target
from edgekd.files.folders import put_back
from edgekd.recordings import Channel
from edgekd.task import Activation

# No folder is named "..", and none is the root, so nothing outside the bundle is ever read.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
FileName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
FilePath = Annotated[str, StringConstraints(pattern=f"^{_NAME}(/{_NAME})*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Resampler(Section):
    """How the training data was resampled: the parameters of the filter in `edgekd.audio.read`."""

    method: Literal["sinc_interp_hann"] = "sinc_interp_hann"
    lowpass_filter_width: int = Field(default=RESAMPLE_FILTER_WIDTH, ge=1, le=256, description="zero crossings a side")
    rolloff: float = Field(
        default=RESAMPLE_ROLLOFF, gt=0, le=1, description="cut-off, as a share of the lower Nyquist frequency"
    )


class Classifier(Section):
    """What goes into the graph and what comes out."""

    student: str
    width: float = Field(1.0, gt=0, description="of the student: times its channels")
    classes: tuple[str, ...] = Field(min_length=2, description="in the order of the output")
    activation: Activation = Field(
        "softmax", description="sigmoid: each class is answered for itself, several of them or none in a clip"
    )
    sample_rate: int = Field(ge=2_000, le=192_000, description="Hz")
    clip_samples: int = Field(ge=1, description="samples of one input")
    hop_samples: int = Field(
        default_factory=lambda fields: max(1, fields["clip_samples"] // 2),
        ge=1,
        description="samples between two windows of a longer signal; by default half a clip",
    )
    padding: Literal["repeat", "zeros"] = Field(description="how a shorter signal is filled")
    channel: Channel = Field("mean", description="what is heard of several: their mean, or this one, from 0")
    full_scale: float = Field(1.0, gt=0, description="of float samples")
    trim_silence: bool = Field(False, description="digital silence at a clip's ends is not used; the clip is filled")
    input: Literal["waveform", "log_mel"] = Field(
        "waveform", description="log_mel: (batch, 1, T, F) of the waveform times gain, computed by the caller"
    )
    batch: Batch = Field("dynamic", description="clips that one call takes; 1: exactly one")
    frontend: FrontendConfig = Field(description="log-mel; inside the graph where the input is a waveform")
    gain: float = Field(gt=0, description="factor on the waveform, before the log-mel")
    temperature: float = Field(1.0, gt=0, description="that the logits are divided by already, in the graph")
    resampler: Resampler = Resampler()


Score = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class Reject(Section):
    """How unknown windows are told: those whose score `known`, the graph's second output, is below the threshold."""

    score: Literal["energy", "mahalanobis"]
    threshold: float
    span: float = Field(gt=0, description="range of the scores of the clips that the graph was verified on")
    share: float = Field(ge=0, lt=1, description="of known validation clips that may be rejected")
    clips: int = Field(ge=1, description="validation clips that the threshold was chosen on")
    shrinkage: float | None = Field(
        None, ge=0, le=1, description="of the covariance towards a multiple of the identity"
    )


class Detection(Section):
    """What makes an event of the scores of windows: `edgekd.device.runner.detection` has the rule, and thresholds for
    classes that are not named here."""

    hop_samples: int | None = Field(None, ge=1, description="samples between two windows; null: a quarter of a clip")
    shared_samples: tuple[int, ...] = Field(
        (), description="at multiples of these windows share work, of the last most: a hop that is asked for is moved"
    )
    open: dict[str, Score] = Field({}, description="class -> score from which on there is an event")
    close: dict[str, Score] = Field({}, description="class -> score from which on an event goes on")
    minimum_s: Seconds = Field(0.0, description="a shorter event is left out")
    gap_s: Seconds = Field(0.0, description="events of a class no further apart are one")
    exclusive: bool = Field(False, description="one class at a time")
    background: str | None = Field(None, description="the class that is never an event")
    reject: Reject | None = Field(None, description="how unknown windows are told; null: none is unknown")
    chosen: str | None = Field(None, description="how the thresholds were chosen; null: by nobody")

    @classmethod
    def of_nobody(cls, classes: Sequence[str], background: str | None) -> Self:
        """Where nobody has chosen thresholds: the defaults, written down for whoever reads them. `background` is the
        name of that class where it is not called so."""
        nothing = background_of(classes, background)
        heard = [name for name in classes if name != nothing]
        return cls(
            open=dict.fromkeys(heard, DEFAULT_OPEN),
            close=dict.fromkeys(heard, round(CLOSE_SHARE * DEFAULT_OPEN, 6)),
            background=nothing,
        )


class Provenance(Section):
    """The run a bundle was exported from."""

    run: str
    dataset: str
    fold: int | None = Field(description="test fold, where the data set has folds")
    seed: int
    test_accuracy: float | None = Field(ge=0, le=1, description="of the shipped graph, on the test side")
    test_mean_average_precision: float | None = Field(
        None, ge=0, le=1, description="the same, where clips may be of several classes"
    )


class Parity(Section):
    """The exported graph against the quantised student it was made from, on real clips."""

    clips: int = Field(ge=1)
    agreement: float = Field(
        ge=0, le=1, description="share of clips with the same winning class, or of the same answers"
    )
    largest_difference: float = Field(ge=0, description="of any class probability")
    known_agreement: float | None = Field(None, ge=0, le=1, description="share of clips on one side of the threshold")
    known_difference: float | None = Field(None, ge=0, description="the largest of `known`, as a share of its span")


class Check(Section):
    """One means of checking the exported graph: what it was, and its figures or why it did not run."""

    by: str = Field(description="what ran it, with its version")
    precision: Precision = Field(description="of which graph")
    figures: dict[str, int | float | str] | None = None
    layers: dict[str, str] = Field({}, description="int8 layer -> int8 or float, as a builder says it computes it")
    not_run: str | None = Field(None, description="the reason")


class FloatOperators(Section):
    """Operators that run in floating point: how many of each in the front end, and the nodes after it by name; and
    what is to run on integers."""

    frontend: dict[str, int] = Field({}, description="of the log-mel: operator -> how many")
    network: tuple[str, ...] = ()
    on_integers: tuple[str, ...] = Field((), description="convolutions and matrix products with int8 weights")


class StepMap(Section):
    """What a part of the graph makes: see `edgekd.device.runner.steps.Map`."""

    columns: int = Field(ge=1, description="of a window")
    stride: int = Field(ge=1, description="columns of the part's input from one to the next")
    left: int = Field(ge=0, description="that feel the beginning of a window")
    right: int = Field(ge=0, description="that feel its end")
    reach: int = Field(ge=0, description="that feel the beginning of a stretch within it")


class StepPart(Section):
    """A part of the graph, on any number of columns of a window."""

    file: FileName
    lead: int = Field(ge=0, description="columns of its input that what feels the beginning of a window is made of")
    maps: tuple[StepMap, ...] = Field(min_length=1)


class Steps(Section):
    """The graph again, in parts that follow one another, for windows that overlap: what they share is computed once."""

    parts: tuple[StepPart, ...] = Field((), description="the first takes the log-mel of the runner")
    end: FileName = Field(description="takes the maps of the last part, or the log-mel; gives probabilities")


class Manifest(Section):
    """`manifest.json`. `sha256` is the digest of the manifest itself, without that entry."""

    format: Literal[1] = 1
    edgekd: str = __version__
    classifier: Classifier
    detection: Detection = Detection()
    target: Target
    provenance: Provenance
    parity: Parity
    precision: Precision = Field(description="of the model that was verified")
    alternatives: dict[Precision, FileName] = Field({}, description="the float student in other precisions")
    checks: tuple[Check, ...] = ()
    float_operators: FloatOperators = FloatOperators()
    steps: Steps | None = Field(None, description="null: windows are computed whole")
    unwritten: str | None = Field(
        None,
        description="what edgekd's writer does not know of the graph, which PyTorch's exporter wrote; null: nothing",
    )
    files: dict[FilePath, Sha256] = Field(description="every other file, by its place in the folder")
    sha256: Sha256

    @property
    def memory_on_the_core(self) -> str | None:
        """What the classifier takes of a microcontroller, in words; None where no compiler of its core was at hand."""
        for check in self.checks:
            found = check.figures or {}
            if {"flash_bytes", "code_bytes", "ram_bytes", "stack_bytes"} <= found.keys():
                flash, code, ram, stack = (
                    int(found[name]) for name in ("flash_bytes", "code_bytes", "ram_bytes", "stack_bytes")
                )
                return (
                    f"{flash:,} bytes of flash ({code:,} of them code), {ram:,} of RAM "
                    f"(an edgekd_t of {ram - stack:,}, {stack:,} of stack)"
                )
        return None

    @model_validator(mode="after")
    def _detection_is_of_the_classes(self) -> Self:
        named = (*self.detection.open, *self.detection.close, *filter(None, [self.detection.background]))
        for name in named:
            if name not in self.classifier.classes:
                raise ValueError(f"detection: {shown(name)} is not one of the classes")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle folder whose files match its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The file of the model that was verified."""
        target = self.manifest.target
        name = RUNTIMES[target.runtime].models(target)[self.manifest.precision]
        return self.folder / (name if name in self.manifest.files else PurePosixPath(name).name)  # older ones are flat

    @property
    def size_bytes(self) -> int:
        """Size of the files the manifest lists, and of the manifest."""
        return sum((self.folder / name).stat().st_size for name in (*self.manifest.files, "manifest.json"))


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Raises `InputError` naming the first missing, changed or malformed file."""
    put_back(folder)
    try:
        contents = runner.read_manifest(folder)
        manifest = parse(Manifest, contents, str(folder / "manifest.json"))
        runner.check_files(folder, contents)
    except (runner.RunnerError, UsageError) as failure:
        raise InputError(str(failure)) from None
    return Bundle(folder, manifest)

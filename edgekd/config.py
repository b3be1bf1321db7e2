"""The configuration of a run, validated once, here; inside the package its values are trusted.

A run is described by one `DistillConfig`. It is read from TOML under environment variables under flags (see
`edgekd.cli.options`), written in full to `config.toml` in the run folder, and read back from there by every later
command. Unknown keys are refused with the nearest valid one, and all mistakes are reported at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from edgekd.errors import UsageError, shown
from edgekd.front_end import FrontendConfig as FrontendConfig  # noqa: PLC0414 (found here as well, with the others)
from edgekd.recordings import DataConfig as DataConfig  # noqa: PLC0414
from edgekd.recordings import SimulationConfig as SimulationConfig  # noqa: PLC0414
from edgekd.section import InputPath, Seed
from edgekd.section import Section as Section  # noqa: PLC0414
from edgekd.teacher_settings import CacheMode as CacheMode  # noqa: PLC0414
from edgekd.teacher_settings import TeacherConfig as TeacherConfig  # noqa: PLC0414

Model = TypeVar("Model", bound=BaseModel)
MISTAKES = 20  # of one file that are told at once


class LossConfig(Section):
    """The terms of SSATKD and their forms. Where a default is not the paper's, the description names the paper's.

    The paper as it stands: `weighting = "learned"`, `distillation = "emd"`, `bandwidth = "paper"`, `texture_share = 1`.
    """

    terms: tuple[str, ...] = Field(
        default=("classification", "statistical", "structural", "distillation"), description="of edgekd.losses.terms"
    )
    weighting: Literal["fixed", "learned"] = Field(default="fixed", description="learned: the paper's log-variances")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="how much terms count with fixed weighting, by name; 1 where left out"
    )
    texture_share: float = Field(
        default=0.5, ge=0, le=1, description="share of the epochs, from the first, in which the texture terms count"
    )
    distillation: Literal["kl", "emd"] = Field(
        default="kl", description="emd: the paper's; depends on the order of classes"
    )
    temperature: float = Field(default=2.0, gt=0)
    unlabelled_confidence: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="the least that the teacher's best class must have for its answer to count on a clip without label",
    )
    embedding: Literal["cosine", "mse"] = Field(
        default="cosine", description="distance of embeddings; mse: to the teacher's at mean 0 and variance 1"
    )
    adapter: Literal["teacher", "student"] = Field(
        default="teacher", description="whose tap is brought to the other's channels; teacher: the paper's"
    )
    statistical: Literal["sinkhorn", "published"] = "sinkhorn"
    statistical_levels: int = Field(default=4, ge=2, le=16)
    bandwidth: Literal["relative", "paper"] = Field(
        default="relative", description="of the soft assignment: the spacing of the levels; paper: sigma = 2/N"
    )
    structural_levels: int = Field(default=3, ge=2, le=5)
    structural_fusion: Literal["all", "max"] = "all"

    @model_validator(mode="after")
    def _needs_classification(self) -> Self:
        if not {"classification", "embedding"} & set(self.terms):  # of a pre-training, the latter
            raise ValueError("terms: 'classification' must be one of the terms")
        if len(set(self.terms)) != len(self.terms):
            raise ValueError("terms: a term is named twice")
        return self

    @field_validator("weights")
    @classmethod
    def _only_what_differs(cls, weights: dict[str, float]) -> dict[str, float]:
        return {term: weight for term, weight in weights.items() if weight != 1}  # two ways to say a thing are one


class AugmentConfig(Section):
    """Random changes to what the student hears; the teacher hears the same shifts, mixtures and levels."""

    time_shift: bool = Field(default=True, description="circular shift of the waveform")
    shifts_per_clip: int = Field(
        default=4, ge=1, le=64, description="distinct shifts (and levels) a clip, so teacher logits can be reused"
    )
    mixes_per_clip: int = Field(default=0, ge=0, le=64, description="distinct mixtures of a clip with another (mixup)")
    mix_share: float = Field(
        default=0.5, ge=0, lt=1, description="the least share of a mixture that is the clip itself"
    )
    gain_db: float = Field(
        default=0.0, ge=0, le=60, description="by how much the level of a view is changed at most, up or down; 0: not"
    )
    time_masks: int = Field(default=2, ge=0, le=1000)
    time_mask_share: float = Field(
        default=0.096, gt=0, le=1, description="the widest, as a share of the clip; the paper's 48 frames in 5 s"
    )
    time_mask_frames: int | None = Field(default=None, ge=1, description="the widest, in place of time_mask_share")
    frequency_masks: int = Field(default=2, ge=0, le=1000)
    frequency_mask_bins: int = Field(default=8, ge=1, description="the widest, before any bins are averaged")

    def time_mask(self, frames: int) -> int:
        """Frames of the widest time mask, where a clip has so many."""
        return self.time_mask_frames or round(self.time_mask_share * frames)

    @property
    def shifts(self) -> int:
        """Distinct shifts, or levels, of a clip, the clip as it is among them."""
        return self.shifts_per_clip if self.time_shift or self.gain_db else 1

    @property
    def views(self) -> int:
        """Ways in which a clip is heard."""
        return self.shifts + self.mixes_per_clip


class TrainingConfig(Section):
    """The student's optimisation; defaults from the SSATKD paper where it gives them."""

    epochs: int = Field(default=60, ge=1, le=1_000_000)
    batch_size: int = Field(default=16, ge=2, le=1_000_000)
    unlabelled_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="of a batch, where there is audio without labels; an epoch stays once through the labelled clips",
    )
    learning_rate: float = Field(
        default=3e-3, gt=0, description="the paper's HLTDNN has 1e-3; hltdnn_ds learns more at 3e-3"
    )
    weight_decay: float = Field(default=1e-5, ge=0)
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="of labels, in all stages; balanced: those of small classes count for more"
    )
    sampling: Literal["natural", "balanced"] = Field(
        default="natural", description="of an epoch's clips, in all stages; balanced: every class as often as any other"
    )
    decay_power: float = Field(default=0.9, gt=0, description="polynomial learning-rate decay over all steps")
    patience: int = Field(default=50, ge=1, description="epochs without a better validation score before stopping")
    weight_average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay a step of an average of the weights, which then is what is validated and kept; 0: none",
    )
    norm_statistics: Literal["running", "precise"] = Field(
        default="running",
        description="of trained batch norms; precise: computed anew, in the end, from the training clips as they are",
    )
    adaptation: Literal["head", "full"] | None = Field(
        default=None,
        description="what is trained of a student cut from a teacher; None: its head; all others are trained whole",
    )
    layer_rate: float = Field(
        default=0.03, gt=0, le=1, description="full: learning rate of the layers from the teacher, of that of the head"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="auto: on CUDA, in one process, the student; on: the student, and on CUDA the whole step",
    )

    @model_validator(mode="after")
    def _balanced_once(self) -> Self:
        if self.class_weights == "balanced" and self.sampling == "balanced":
            raise ValueError("class_weights and sampling: balanced twice, small classes would outweigh large ones")
        return self


class QuantizeConfig(Section):
    """How a float student becomes an int8 one. Epochs and learning rate are those of quantisation-aware training."""

    method: Literal["qat", "ptq"] = Field(
        default="qat", description="qat: calibrated, then trained; ptq: calibrated only"
    )
    recipe: str = Field(default="default", description="name of a calibration recipe, or a path to a TOML")
    keep_float: tuple[str, ...] = Field(
        default=(), description="layers that stay in float, by their names in the student"
    )
    epochs: int = Field(default=6, ge=1, le=1_000_000)
    frozen_epochs: int = Field(default=2, ge=0, description="last epochs with the scales frozen")
    learning_rate: float = Field(
        default=3e-5, gt=0, description="low: int8 is to be the float student, not another one"
    )

    @model_validator(mode="after")
    def _frozen_within_epochs(self) -> Self:
        if self.frozen_epochs >= self.epochs:
            raise ValueError(f"frozen_epochs ({self.frozen_epochs}) must be below epochs ({self.epochs})")
        return self


class ProfileConfig(Section):
    """What a profile measures besides accuracy and latency, and how."""

    backends: tuple[str, ...] = Field(
        default=(), description="for what can run on several; none named: the one that ships"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="of PyTorch")
    provider: str = Field(default="CPUExecutionProvider", description="of ONNX Runtime")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads while latencies are taken")
    repetitions: int = Field(default=200, ge=1, description="timed calls of a subject")
    seconds: float = Field(default=10.0, gt=0, description="of timing a subject at most")
    batches: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(1, 8, 32), description="of throughput; none: left out"
    )
    noise: str | None = Field(default="pink", description="white, pink or a recording; None: robustness is left out")
    probes: bool = Field(default=True, description="silence, noise and hum: what is made of what is no class")
    site: tuple[InputPath, ...] = Field(
        default=(), description="recordings of one's own site, or folders of such, with nothing of the classes in them"
    )
    layers: bool = False
    memory: bool = True
    energy: bool = True
    battery_wh: float | None = Field(default=None, gt=0)
    duty_cycle: float = Field(default=1.0, gt=0, le=1)
    active_watts: float | None = Field(default=None, gt=0, description="of the device while it classifies")
    idle_watts: float | None = Field(default=None, ge=0, description="of the device while it sleeps")


class DistillConfig(Section):
    """Everything that decides the outcome of a run."""

    out: Path = Path("runs/edgekd")
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    student: str = Field(
        default="hltdnn_ds", description="see 'edgekd students', or package.module:factory, one of your own"
    )
    student_folder: InputPath | None = Field(
        default=None, description="where the module of your own student is; None: where you are"
    )
    student_weights: InputPath | None = Field(
        default=None, description="of a pre-training or another run, to begin with; the classifier stays new"
    )
    width: float = Field(
        default=1.0, ge=0.25, le=4, description="times the student's channels, where it comes in sizes"
    )
    data: DataConfig = DataConfig()
    frontend: FrontendConfig = Field(default=FrontendConfig(), validate_default=True)
    teacher: TeacherConfig = TeacherConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingConfig = TrainingConfig()
    quantize: QuantizeConfig = QuantizeConfig()

    @field_validator("frontend")
    @classmethod
    def _follows_the_rate(cls, frontend: FrontendConfig, others: ValidationInfo) -> FrontendConfig:
        data = others.data.get("data")  # None where it is wrong itself
        return frontend if data is None else frontend.at(data.sample_rate)

    @field_validator("augment")
    @classmethod
    def _masks_follow_the_clip(cls, augment: AugmentConfig, others: ValidationInfo) -> AugmentConfig:
        data, frontend = others.data.get("data"), others.data.get("frontend")
        if data is None or frontend is None or augment.time_mask_frames is None:
            return augment
        frames, _ = frontend.shape(round(data.clip_seconds * data.sample_rate))
        share = augment.model_copy(update={"time_mask_frames": None})
        return share if share.time_mask(frames) == augment.time_mask_frames else augment

    @model_validator(mode="after")
    def _front_end_fits_clips(self) -> Self:
        self.frontend.check(self.data.sample_rate, round(self.data.clip_seconds * self.data.sample_rate))
        return self

    def describe(self) -> str:
        """What follows from the settings, as a comment in TOML."""
        samples = round(self.data.clip_seconds * self.data.sample_rate)
        return f"# The front end {self.frontend.describe(self.data.sample_rate, samples)}\n"


def parse(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Build `model` from `values`; every mistake becomes one line of one `UsageError`.

    `source` names where the values come from (a file, "command line") for the message.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{source}: {shown(values)}: keys and values are wanted")
    try:
        return model.model_validate(dict(values))
    except ValidationError as failure:
        lines = [_describe(model, error) for error in _by_setting(failure.errors(include_url=False))[:MISTAKES]]
        more = f"; and {failure.error_count() - MISTAKES} more" if failure.error_count() > MISTAKES else ""
        raise UsageError(f"{source}: " + "; ".join(lines) + more) from None


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored: Collection[str] = (), prefix: str = ""
) -> list[str]:
    """The dotted names of the settings in which two configurations differ, but for those `ignored`.

    What only one of them has, such as the weight of a term, is a difference.
    """
    names = []
    for key in {**new, **old}:
        before, now = old.get(key), new.get(key)
        if isinstance(now, Mapping):
            names += differences(before or {}, now, ignored, f"{prefix}{key}.")
        elif before != now and prefix + key not in ignored:
            names.append(prefix + key)
    return names


_BRANCH = re.compile(r"literal\[.*\]|constrained-\w+")  # how pydantic names what a setting of two types may be


def _by_setting(errors: Iterable[Any]) -> list[Any]:
    """One error a setting: what is wrong with a value of two types is said of both at once."""
    merged: dict[tuple[str | int, ...], Any] = {}
    for number, error in enumerate(errors):
        *above, last = error["loc"] or ("",)
        if not _BRANCH.fullmatch(str(last)):
            merged[*error["loc"], number] = error
        elif (first := merged.get(tuple(above))) is None:
            merged[tuple(above)] = {**error, "loc": tuple(above)}
        else:
            first["msg"] += ", or " + error["msg"].removeprefix("Input should be ")
    return list(merged.values())


def _describe(model: type[BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        valid = _keys_at(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), valid, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return f"unknown key '{place}'.{hint} Valid: {', '.join(valid)}"
    message = error["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if error["type"] == "value_error" and isinstance(error["input"], Mapping):  # of a section: it names the setting
        return f"{place}.{message}"
    return f"{place} = {shown(error['input'])}: {message[0].lower()}{message[1:]}"


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]  # of `Section | None`
        section = next((kind for kind in inner if issubclass(kind, BaseModel)), None)
        if section is None:
            return []
        model = section
    return sorted(model.model_fields)

"""A profile as data: what `report.json` holds, and what every other form of the report is drawn from.

The classes below are the schema, version 3: their fields are the keys, and `edgekd profile --schema` prints the same as
JSON Schema. Shares are from 0 to 1, times in ms unless a name says otherwise, sizes in bytes, intervals 95 %. What
could not be had on this machine, or was not asked for, is null or empty, never 0.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from edgekd.config import Section
from edgekd.errors import InputError, shown
from edgekd.json_files import Amount, Count, Share, read_json
from edgekd.scoring.differences import AnyDifference, Difference, LabelDifference
from edgekd.scoring.intervals import Shares
from edgekd.scoring.scored import AnyScores
from edgekd.scoring.scores import CALIBRATION_BINS

PROFILE_VERSION: Literal[3] = 3
OLDER = (2,)  # versions whose reports lack what is optional here, and are read

Role = Literal["teacher", "student", "int8", "model"]
"""What a subject is to its run; a graph or an engine that came alone is a `model`."""
Kind = Literal["run", "bundle", "onnx", "engine"]
PrecisionName = Literal["float32", "float16", "int8"]


Positive = Annotated[float, Field(strict=True, gt=0)]
Degrees = Annotated[float, Field(strict=True, ge=-273.15)]
Numbers = TypeVar("Numbers", bound=tuple[float, ...])


def _ascending(numbers: Numbers) -> Numbers:
    if any(after < before for before, after in pairwise(numbers)):
        raise ValueError(f"{shown(numbers)} do not ascend")
    return numbers


Span = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]


class Estimate(Section):
    """A figure and its 95 % interval."""

    value: Positive
    low: Positive
    high: Positive


class Calibration(Section):
    """How far probabilities are from what is true: as they ship, and `before` the temperature in the graph, null where
    there is none."""

    temperature: Positive | None = Field(None, description="that the logits are divided by; null: not known")
    bins: int = Field(CALIBRATION_BINS, strict=True, ge=1, description="of the calibration error, of equal width")
    error: Share = Field(description="expected calibration error of the highest probability")
    error_interval: Annotated[Shares, AfterValidator(_ascending)]
    cross_entropy: Amount = Field(description="mean over clips, of natural logarithms")
    error_before: Share | None = None
    error_before_interval: Annotated[Shares, AfterValidator(_ascending)] | None = None
    cross_entropy_before: Amount | None = None


class Latency(Section):
    """Wall time of one clip, waveform to scores, batch 1."""

    mean_ms: Positive
    p50_ms: Positive
    p50_interval_ms: Span = Field(description="of the median, over rounds of the measurement")
    p95_ms: Positive
    p99_ms: Positive
    spread_ms: Amount = Field(description="interquartile range")
    repetitions: int = Field(strict=True, ge=1)
    settled: bool = Field(description="whether the time had settled before it was taken")
    quantiles_ms: Annotated[tuple[Positive, ...], AfterValidator(_ascending)] = Field(
        description="0 %, 1 %, ... 100 %", min_length=101, max_length=101
    )
    frontend_ms: Amount | None = Field(None, description="median of the front end alone")
    network_ms: Amount | None = Field(None, description="median of the network alone")
    device_ms: Amount | None = Field(None, description="median by CUDA events, without the copy of the waveform")
    real_time_factor: Amount | None = Field(
        None, description="median over the length of a clip: below 1 keeps up; null where no clip has a length"
    )


class Throughput(Section):
    """Clips a second with several in a batch."""

    batch: int = Field(strict=True, ge=1)
    threads: int = Field(strict=True, ge=1)
    clips_per_second: Positive


class Cost(Section):
    """What one clip costs, batch 1. A MAC is one multiply-accumulate."""

    parameters: Count | None = Field(None, description="of the network, without front end")
    macs: Count | None = Field(None, description="of the network")
    frontend_macs: Count | None = Field(None, description="null where the front end is an FFT, which has none to count")
    file_bytes: Count
    traffic_bytes: Count | None = Field(None, description="read and written by all operators, weights included")
    arithmetic_intensity: Amount | None = Field(None, description="MACs, front end included, a byte of that traffic")
    activation_bytes: Count | None = Field(None, description="peak of what is live at once, from the graph")
    measured_activation_bytes: Count | None = Field(
        None, description="the most that the runtime's allocator had in use at once while it classified"
    )
    process_bytes: Count | None = Field(None, description="resident memory of a process that does nothing else")
    peak_process_bytes: Count | None = None


class Energy(Section):
    """Energy of one clip."""

    joules_per_clip: Amount
    watts: Amount | None = Field(None, description="mean power while clips are classified one after another")
    idle_watts: Amount | None = Field(None, description="the same meter with nothing to do")
    source: Literal["rapl", "jetson", "nvml", "stated", "model"]
    measured: bool
    how: str = Field(description="what was measured or assumed, in a sentence")


class Microcontroller(Section):
    """What a bundle of C takes of its board. Counts and estimates are of a second of a stream; what is null was not to
    be had here."""

    core: str
    clock_hz: Count | None = None
    constant_bytes: Count = Field(description="of the model")
    state_bytes: Count = Field(description="an edgekd_t")
    flash_bytes: Count | None = Field(None, description="constants and code")
    stack_bytes: Count | None = Field(None, description="of the deepest chain of calls")
    ram_bytes: Count | None = Field(None, description="an edgekd_t and the stack")
    emulator: str | None = Field(None, description="what counted, its version and its board")
    instructions: Count | None = None
    log_mel_instructions: Count | None = None
    network_instructions: Count | None = Field(None, description="all but the log-mel's")
    longest_push_instructions: Count | None = Field(None, description="of the longest push of `push_seconds` of sound")
    push_seconds: Positive | None = Field(None, description="a frame's hop")
    not_counted: str | None = Field(None, description="why there are no instructions")
    milliseconds: Span | None = Field(None, description="estimated: at least, at most")
    millijoules: Span | None = Field(None, description="estimated: at least, at most")


class Battery(Section):
    """How long a battery lasts."""

    watt_hours: Positive
    duty_cycle: Share = Field(description="share of the time in which sound is listened to and classified")
    mean_watts: Amount
    days: Amount
    how: str


class Layer(Section):
    """One layer, or one operator that a runtime ran."""

    name: str
    operator: str
    ms: Amount = Field(description="mean a clip")
    share: Amount = Field(le=1.001, description="of the time of all layers")
    macs: Count | None = None
    output_bytes: Count | None = None
    precision: str | None = None


class Point(Section):
    """Accuracy, or mAP, under one condition."""

    value: Annotated[float, Field(strict=True)] = Field(description="signal-to-noise ratio in dB, or length in seconds")
    accuracy: Share | None = None
    accuracy_interval: Annotated[Shares, AfterValidator(_ascending)] | None = None
    mean_average_precision: Share | None = Field(None, description="where clips may be of several classes")
    mean_average_precision_interval: Annotated[Shares, AfterValidator(_ascending)] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if None not in (self.accuracy, self.accuracy_interval):
            return self
        if None in (self.mean_average_precision, self.mean_average_precision_interval):
            raise ValueError("accuracy or mean_average_precision, and its interval, are missing")
        return self

    @classmethod
    def of(cls, value: float, scores: AnyScores) -> Self:
        """What was scored at `value`."""
        name = scores.task.measure
        return cls.model_validate({"value": value, name: scores.measure, f"{name}_interval": scores.measure_interval})

    @property
    def measure(self) -> float:
        """The figure that models are compared by."""
        found = self.mean_average_precision if self.accuracy is None else self.accuracy
        assert found is not None
        return found

    @property
    def measure_interval(self) -> tuple[float, float]:
        """Its interval."""
        found = self.mean_average_precision_interval if self.accuracy_interval is None else self.accuracy_interval
        assert found is not None
        return found


class Robustness(Section):
    """How accuracy falls with added noise and with shorter clips."""

    noise: tuple[Point, ...] = Field((), description="loudest signal first; the clip as it is is in `scores`")
    length: tuple[Point, ...] = Field((), description="longest first; a shorter clip is padded as the runner pads it")


class Probe(Section):
    """What is made of sounds that are none of the classes. Scores are by their names: softmax, energy, mahalanobis."""

    kind: str = Field(description="digital silence, white noise, pink noise, 50 Hz hum, 60 Hz hum, your site")
    clips: int = Field(strict=True, ge=1)
    confident: Share = Field(description="answered with a probability of 0.99 or more, and not rejected")
    named: str = Field(description="the class that most of these got; of all clips where none was confident")
    auroc: dict[str, Share] = Field(description="how likely a test clip is the more familiar, by each score")
    auroc_interval: dict[str, Shares] = Field({}, description="95 %, over recordings; empty in older reports")
    false_alarms: dict[str, Share] = Field({}, description="not rejected at the threshold of each score")
    false_alarms_interval: dict[str, Shares] = Field({}, description="as that of `auroc`")


class Unknown(Section):
    """How sounds are told that are none of the classes."""

    rejects: str | None = Field(description="the score that it ships with; null: it gives each sound a class")
    thresholds: dict[str, float] = Field({}, description="of each score, from the validation side or the bundle")
    lost: dict[str, Share] = Field({}, description="of the test clips, those below the threshold of each score")
    lost_interval: dict[str, Shares] = Field({}, description="as those of the probes")
    probes: tuple[Probe, ...]


class Golden(Section):
    """A bundle's golden examples on the machine that ran them."""

    agrees: bool
    clips: int = Field(strict=True, ge=1)
    agreement: Share = Field(description="share of clips with the same class, or of the same answers")
    largest_difference: Amount = Field(description="of any class probability")


class Versus(Section):
    """A subject against the baseline."""

    baseline: str
    accuracy: Difference | None = Field(None, description="subject less baseline, in pairs of clips")
    mean_average_precision: LabelDifference | None = Field(
        None, description="the same, where clips may be of several classes"
    )
    speedup: Estimate | None = Field(None, description="the baseline's time over the subject's, in pairs of rounds")
    smaller: Positive = Field(description="the baseline's file size over the subject's")

    @property
    def measured(self) -> AnyDifference | None:
        """The difference in the figure that models are compared by."""
        return self.accuracy or self.mean_average_precision


class Machine(Section):
    """Where times were taken, and in which state it was. What it does not tell is null or empty."""

    cpu: str | None
    cpus: int = Field(strict=True, ge=1)
    gpu: str | None = None
    governor: str | None = None
    mhz: tuple[Count, ...] = Field((), description="clock of each core, after the measurement")
    max_mhz: Count | None = None
    devices: dict[str, dict[str, Count]] = Field({}, description="GPU and memory clocks in MHz")
    temperatures: dict[str, Degrees] = Field({}, description="degrees C")
    power_mode: str | None = None
    throttled: tuple[str, ...] = ()
    load_average: Amount | None = Field(None, description="before the measurement")
    cpus_used_by_others: Amount | None = Field(None, description="mean over the measurement")
    busy: bool = Field(description="others took enough of it to distrust the times")


class Subject(Section):
    """One thing that was profiled."""

    name: str = Field(description="unique in the report")
    kind: Kind
    role: Role
    source: str = Field(description="folder or file")
    host: str | None = Field(None, description="where it was timed, user@device; null: here")
    architecture: str | None
    precision: PrecisionName
    backend: str = Field(
        description="torch, torch-compiled, torch-tensorrt, torch-tensorrt-rtx, or the name of a runtime"
    )
    runtime: str = Field(description="name, version and provider, in words")
    threads: int | None = Field(
        None, strict=True, ge=1, description="CPU threads of the latency; null where a GPU computes"
    )
    scores: AnyScores | None = Field(None, description="null where there are no labelled clips to score it on")
    calibration: Calibration | None = Field(None, description="of the same clips; null in reports of version 2")
    latency: Latency
    throughput: tuple[Throughput, ...] = ()
    cost: Cost
    energy: Energy | None = None
    battery: Battery | None = None
    microcontroller: Microcontroller | None = Field(None, description="null for what is no bundle of C")
    layers: tuple[Layer, ...] = Field((), description="slowest first")
    robustness: Robustness | None = None
    unknown: Unknown | None = Field(None, description="null where it was not asked for, or there are no clips")
    versus: Versus | None = Field(None, description="null for the baseline itself")
    golden: Golden | None = None
    machine: Machine | None = Field(None, description="the host's; null: the report's")


class Profile(Section):
    """What `edgekd.profiling.profiler` found."""

    version: Literal[3] = PROFILE_VERSION
    edgekd: str = Field(description="version of this package")
    created: str = Field(description="ISO 8601, UTC")
    command: tuple[str, ...] = Field(description="what makes this report again")
    environment: dict[str, str] = Field(description="versions of Python, the system and the packages that ran")
    dataset: str | None
    clips: str = Field(description="which clips were scored, in words")
    clips_digest: str | None = Field(None, description="sha256 of their names, labels and places")
    clip_seconds: float | None = Field(
        None, strict=True, gt=0, description="null for graphs alone, which do not tell their rate"
    )
    sample_rate: int | None = Field(None, strict=True, ge=1, description="Hz, of the first subject")
    noise: str | None = Field(None, description="what was added for `robustness.noise`, in words")
    baseline: str | None = Field(None, description="the subject that the others are compared with")
    machine: Machine
    verdict: tuple[str, ...] = Field((), description="a sentence for each subject compared with the baseline")
    notes: tuple[str, ...] = Field((), description="what a reader of the figures should know")
    failures: tuple[str, ...] = Field((), description="hosts that could not be profiled, and why")
    subjects: tuple[Subject, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [subject.name for subject in self.subjects]
        baselines = [self.baseline, *(subject.versus.baseline for subject in self.subjects if subject.versus)]
        if len(set(names)) < len(names):
            raise ValueError("subjects: two have the same name")
        for name in baselines:
            if name is not None and name not in names:
                raise ValueError(f"baseline {shown(name)} is none of the subjects")
        return self

    def subject(self, name: str) -> Subject:
        """The subject of this name. Raises `KeyError`."""
        return {subject.name: subject for subject in self.subjects}[name]

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return self.model_dump(mode="json")


def read_profile(path: Path) -> Profile:
    """The profile in a `report.json`.

    Raises `InputError` for a file that is none, is damaged, or was written in another version of the schema.
    """
    again = "Make it again: edgekd profile"
    values = read_json(path, "Name the report.json of an earlier 'edgekd profile'.")
    if not isinstance(values, dict) or "subjects" not in values or "version" not in values:
        raise InputError(f"{path}: not the report.json of a profile. {again}")
    if type(values["version"]) is int and values["version"] in OLDER:
        values = values | {"version": PROFILE_VERSION}
    if type(values["version"]) is not int or values["version"] != PROFILE_VERSION:
        version = shown(values["version"])
        raise InputError(f"{path}: a report of schema version {version}; this edgekd reads {PROFILE_VERSION}. {again}")
    try:
        return Profile.model_validate(values)
    except ValidationError as failure:
        first = failure.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the report"
        raise InputError(f"{path}: {where}: {first['msg'].lower()}. Was it edited? {again}") from None

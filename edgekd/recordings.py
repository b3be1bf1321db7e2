"""The recordings of a run, as its configuration names them: where they are, how they are cut and split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from edgekd.section import InputPath, Section, Seed
from edgekd.task import SINGLE, TASKS, Labels, Task

Decibels = Annotated[float, Field(ge=-200, le=200)]
LOWEST_RATE, HIGHEST_RATE = 2_000, 192_000  # Hz, of a run
SHORTEST_CLIP = 0.1  # s

Channel = Literal["mean"] | Annotated[StrictInt, Field(ge=0, le=1023)]
"""What is heard of a recording with several channels: their mean, or the one with this number, from 0."""


class SimulationConfig(Section):
    """Size and difficulty of the simulated passive-sonar data set (`sonar_sim`)."""

    vessels_per_class: int = Field(
        default=20, ge=5, le=100_000, description="distinct vessels a class; a vessel is a group"
    )
    windows_per_vessel: int = Field(default=8, ge=1, le=100_000, description="clips cut from one vessel's recording")
    snr_db: tuple[Decibels, Decibels] = Field(
        default=(-12.0, 8.0), description="range of in-band signal-to-noise ratios, dB"
    )
    seed: Seed = 0


class SelectionsConfig(Section):
    """How windows of long recordings get their labels from tables of selections (`selections`)."""

    tables: InputPath | None = Field(
        default=None, description="a table, or a folder of tables; None: those that lie with the recordings"
    )
    format: Literal["raven", "audacity", "csv", "jsonl"] | None = Field(
        default=None, description="of the tables; None: told by what they hold"
    )
    label: str | None = Field(default=None, min_length=1, description="the column of labels, if not a known one")
    classes: tuple[str, ...] = Field(
        default=(), description="labels that are classes; none named: all. Windows of others are left out"
    )
    overlap: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the window or of the selection, the shorter of the two, that a window of a class has",
    )
    hop_seconds: float | None = Field(
        default=None, ge=0.05, le=60, description="from one window to the next; None: they follow each other"
    )
    background: Literal["between", "everywhere", "labelled"] = Field(
        default="between",
        description="what is background: all between selections, in recordings that a table tells of; the same in all "
        "recordings; or only selections with that label",
    )
    background_ratio: Annotated[float, Field(gt=0)] | Literal["all"] = Field(
        default=2.0,
        description="how many times as many windows of background as of the largest class are kept, evenly spread",
    )


class DataConfig(Section):
    """Where clips come from, how they are cut, and how they are split."""

    dataset: str | None = Field(default=None, description="data set layout; None: recognised from data_dir")
    data_dir: InputPath | None = None
    labels: Labels | None = Field(
        default=None,
        description="multi: a label of a table names several classes, parted by ';'; None: what the table has, which "
        "a run then records",
    )
    unlabelled: tuple[InputPath, ...] = Field(
        default=(), description="folders of audio without labels, to teach with through the teacher's answers"
    )
    sample_rate: int = Field(default=32_000, ge=LOWEST_RATE, le=HIGHEST_RATE, description="Hz")
    clip_seconds: float = Field(default=5.0, ge=SHORTEST_CLIP, le=60.0)
    padding: Literal["repeat", "zeros"] = Field(default="repeat", description="how a short clip is filled")
    channel: Channel = Field(
        default="mean", description="mean: channels are averaged; 0, 1, ...: this one alone, which every file must have"
    )
    full_scale: float = Field(
        default=1.0,
        gt=0,
        description="by what samples of float files are divided: 32768 where they are 16-bit integers, the recorder's "
        "full scale where they are in pascal",
    )
    trim_silence: bool = Field(
        default=False, description="do not use the digital silence that clips begin and end with; they are filled anew"
    )
    fold: int = Field(default=1, ge=1, description="test fold, where the data set has folds")
    val_fold: int | None = Field(default=None, ge=1, description="validation fold; None: the one after the test fold")
    split: tuple[float, float, float] = Field(
        default=(0.7, 0.1, 0.2), description="train, validation, test: shares of groups"
    )
    split_seed: Seed = 0
    given_split: bool = Field(default=True, description="keep the data set's own folds or sides; False: split by group")
    group_by: Literal["day", "deployment"] | None = Field(
        default=None, description="recordings named by the time they began: what of them is one group, if no table says"
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="classes that are not learned: none of their clips is on a side"
    )
    time_pattern: str | None = Field(
        default=None,
        description="how the time stands in names, '%Y%m%d_%H%M%S', for group_by; None: as recorders write it",
    )
    background: str | None = Field(
        default=None,
        min_length=1,
        description="the class that is no event, never reported by a detector; None: the one called background, if any",
    )
    near_duplicates: Literal["refuse", "warn", "off"] | None = Field(
        default=None,
        description="the same audio on two sides; None: refuse our own split, warn of one the data set gives",
    )
    simulation: SimulationConfig = SimulationConfig()
    selections: SelectionsConfig = SelectionsConfig()

    @property
    def task(self) -> Task:
        """What the classes of a run are to each other; before the data has been read, of what is given."""
        return SINGLE if self.labels is None else TASKS[self.labels]

    @model_validator(mode="after")
    def _split_sums_to_one(self) -> Self:
        if abs(sum(self.split) - 1) > 1e-6 or min(self.split) <= 0:
            raise ValueError("split: the three shares must be positive and sum to 1")
        return self

"""Which cells the study has: students x methods x folds x seeds, those of most worth first.

All that a fold tells is told before the next fold, all folds before what is worth less, all of that before the next
seed: however many cells are done, students and methods have the same folds but for the last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig, parse
from edgekd.data.index import ClipIndex
from edgekd.data.load import load_index
from edgekd.experiments.plan import METHODS, Cell, Settings, plan_cells, plan_parts
from edgekd.progress import Progress
from edgekd.training.new_teacher import settled

SEEDS = (0, 1, 2)
SPLITS = 5  # by group, of data without folds
SONAR: Settings = {
    "dataset": "sonar_sim",
    "sample_rate": 16_000,
    "clip_seconds": 3.0,
    "simulation": {"vessels_per_class": 40, "windows_per_vessel": 4, "snr_db": (-10.0, 10.0), "seed": 1},
}
ALL_METHODS: dict[str, Settings] = {
    **METHODS,
    "ssatkd-embedding": {
        "loss": {
            "terms": ["classification", "statistical", "structural", "distillation", "embedding"],
            "weights": {"embedding": 5.0},
        }
    },
}


@dataclass(frozen=True)
class Subject:
    """A student in the study: what it changes of the settings, the methods that it is trained by, and whose labels
    alone they are compared with (None: its own)."""

    name: str
    settings: Settings
    methods: tuple[str, ...]
    against: str | None = None

    @property
    def reference(self) -> str:
        """The method of the plan that all others of this student are compared with."""
        return f"{self.against or self.name}.labels"

    def named(self) -> dict[str, Settings]:
        """Its methods by the names that they have in the plan, and what each changes of the settings."""
        return {f"{self.name}.{method}": {**ALL_METHODS[method], **self.settings} for method in self.methods}


_CUT7, _CUT9 = ({"student": f"yamnet-cut{layers}", "width": width} for layers, width in ((7, 0.55), (9, 0.65)))
_WHOLE = {"adaptation": "full", "learning_rate": 1e-3}
_PAPERS = {"student": "hltdnn", "training": {"learning_rate": 1e-3}}

# What two cores of a CPU have not shown comes first: the paper's own student, the embedding and the textures on every
# fold, students trained whole; then the rest, and teachers that are trained whole.
OF_YAMNET: tuple[tuple[Subject, ...], ...] = (
    (
        Subject("hltdnn", _PAPERS, ("labels", "kd", "ssatkd")),
        Subject("hltdnn_ds", {"student": "hltdnn_ds"}, ("labels", "kd-embedding", "ssatkd")),
        Subject("cut9", _CUT9, ("labels", "kd")),
        Subject("cut9-whole", {**_CUT9, "training": _WHOLE}, ("kd-embedding", "ssatkd-embedding"), against="cut9"),
    ),
    (
        Subject("cut7", _CUT7, ("labels", "kd")),
        Subject("cut5", {"student": "yamnet-cut5"}, ("labels", "kd")),
        Subject("cut9-teacher-whole", {**_CUT9, "teacher": {"adaptation": "full"}}, ("kd",), against="cut9"),
        Subject(
            "hltdnn_ds-teacher-whole",
            {"student": "hltdnn_ds", "teacher": {"adaptation": "full"}},
            ("kd-embedding",),
            against="hltdnn_ds",
        ),
        Subject("hltdnn_ds", {"student": "hltdnn_ds"}, ("kd",)),
        Subject("cut9-whole", {**_CUT9, "training": _WHOLE}, ("labels",), against="cut9"),
    ),
)
OF_CONVNET: tuple[tuple[Subject, ...], ...] = (
    (
        Subject("hltdnn_ds", {"student": "hltdnn_ds"}, ("labels", "kd-embedding", "ssatkd")),
        Subject("hltdnn", _PAPERS, ("labels", "kd", "ssatkd")),
    ),
)


@dataclass(frozen=True)
class Study:
    """The settings that all cells share, the clips, and the students, in ranks of worth."""

    config: DistillConfig
    index: ClipIndex
    ranks: tuple[tuple[Subject, ...], ...]
    seeds: tuple[int, ...] = SEEDS

    def cells(self, folder: Path) -> list[Cell]:
        """The cells, in the order in which they are to be done, with run folders in `folder`."""
        config = self.config.model_copy(update={"out": folder})
        given = any(clip.fold is not None or clip.side is not None for clip in self.index)
        parts = plan_parts(config, self.index, None, 1 if given else SPLITS)
        found: list[Cell] = []
        for seed in self.seeds:
            for rank in self.ranks:
                methods = {name: changes for subject in rank for name, changes in subject.named().items()}
                found += plan_cells(config, methods, parts, [seed])
        return found

    @property
    def references(self) -> dict[str, str]:
        """For each method of the plan the one that it is compared with."""
        return {name: subject.reference for rank in self.ranks for subject in rank for name in subject.named()}

    def digest(self, cell: Cell) -> str:
        """Of all that decides what comes of the cell: settings and clips, and not where anything lies."""
        left_out = {"out": True, "device": True, "student_folder": True, "data": {"data_dir"}}
        left_out |= {"teacher": {"weights", "weights_of", "folder", "cache"}, "training": {"compile"}}
        return _digest([cell.config.model_dump(mode="json", exclude=left_out), self._clips])

    @cached_property
    def _clips(self) -> str:
        return _digest([(self.index.name(clip), clip.start, clip.group, clip.label, clip.fold) for clip in self.index])


def plan_study(device: str, data: Path | None, weights: Path | None, progress: Progress) -> Study:
    """The study of the data set in the folder `data`, None: of simulated sonar, with YAMNet of the file `weights` as
    the teacher, None: with a small network that is trained on the data alone.

    Students are not compiled: the compiler takes longer than their few hundred steps. Raises `InputError` and
    `UsageError` for data that no run could use.
    """
    teacher: dict[str, Any] = {"name": "convnet", "adaptation": "full"}
    if weights is not None:
        teacher = {"name": "yamnet", "weights": weights}
    values = {
        "device": device,
        "data": SONAR if data is None else {"data_dir": data},
        "teacher": teacher,
        "training": {"compile": "off"},
    }
    config = settled(parse(DistillConfig, values, "study"))
    index = load_index(config.data, progress)
    return Study(config, index, OF_CONVNET if weights is None else OF_YAMNET)


def in_order(names: Sequence[str], ranks: Sequence[Sequence[Subject]]) -> list[str]:
    """The methods `names` with those of a student together."""
    subjects = list(dict.fromkeys(subject.name for rank in ranks for subject in rank))
    return sorted(names, key=lambda name: subjects.index(name.rpartition(".")[0]))


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

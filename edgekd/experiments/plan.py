"""The plan of a comparison: methods x parts of the data x seeds, each cell an ordinary run folder.

    out/cells/<method>/fold1-seed0/        a run of `distill` (and `quantize`)
    out/teachers/fold1-seed0/              the teacher that all the methods of this fold and seed are taught by

Methods differ in their loss (or in the settings of the user's own TOML) and in nothing else: of one fold and seed they
have the same split, the same teacher, the same initial weights of the student and the same augmentation of each clip.

A *part* is what one test side comes from: a fold where the data set has folds, the whole split where its authors gave
one, and else a split by groups drawn from a split seed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.config import DistillConfig, parse
from edgekd.data.index import ClipIndex
from edgekd.errors import UsageError, unknown_name
from edgekd.layers_of_settings import displaced
from edgekd.losses.terms import needs_teacher
from edgekd.toml_files import to_toml
from edgekd.training.lent_teacher import teacher_settings
from edgekd.training.new_teacher import settled

Settings = Mapping[str, Any]

# What each method changes of the shared settings.
METHODS: dict[str, Settings] = {
    "labels": {"loss": {"terms": ["classification"]}},
    "kd": {"loss": {"terms": ["classification", "distillation"], "distillation": "kl"}},
    "embedding": {"loss": {"terms": ["classification", "embedding"]}},
    "kd-embedding": {
        "loss": {
            "terms": ["classification", "distillation", "embedding"],
            "distillation": "kl",
            "weights": {"embedding": 5.0},
        }
    },
    "ssatkd": {"loss": {"terms": ["classification", "statistical", "structural", "distillation"]}},
    "ssatkd-structural": {"loss": {"terms": ["classification", "structural", "distillation"]}},
    "ssatkd-statistical": {"loss": {"terms": ["classification", "statistical", "distillation"]}},
}
# What the grid decides, or what makes the cells of two methods pairs: not a method's to change.
THE_GRIDS = (
    "out",
    "seed",
    *(
        f"data.{name}"
        for name in ("dataset", "data_dir", "fold", "val_fold", "split", "split_seed", "given_split", "leave_out")
    ),
)


def method_settings(name: str) -> Settings:
    """What the method called `name` changes. Raises `UsageError` where `METHODS` has none of that name."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


@dataclass(frozen=True)
class Cell:
    """One run: a method on one part of the data with one seed; `config.out` is its folder. `teacher` is the run that
    adapts its teacher, None for a student of labels alone."""

    method: str
    part: str
    seed: int
    config: DistillConfig
    teacher: DistillConfig | None

    @property
    def name(self) -> str:
        return f"{self.method}/{self.part}-seed{self.seed}"


def plan_parts(
    config: DistillConfig, index: ClipIndex, folds: Sequence[int] | None, splits: int
) -> dict[str, Settings]:
    """The parts of the data set `index`, and what each changes of the settings.

    `folds`: those wanted (None: all), where there are folds; `splits`: how many splits by groups, with the split seeds
    from `config.data.split_seed` on, where the data set has none of its own. Raises `UsageError` for what it has not.
    """
    keeps = config.data.given_split
    given = keeps and any(clip.side is not None for clip in index)
    own = sorted({clip.fold for clip in index if clip.fold is not None}) if keeps and not given else []
    if folds is not None and not own:
        what = "comes with its split" if given else "is split by groups: pass --splits N for N such splits"
        raise UsageError(f"--folds: {index.dataset} is used without folds; it {what}.")
    if splits > 1 and (own or given):
        what = f"has folds ({', '.join(map(str, own))}): pass --folds" if own else "comes with its split"
        raise UsageError(f"--splits {splits}: {index.dataset} {what}.")
    if given:
        return {"given": {}}
    if own:
        return {f"fold{fold}": {"data": {"fold": fold}} for fold in (own if folds is None else folds)}
    first = config.data.split_seed
    return {f"split{seed}": {"data": {"split_seed": seed}} for seed in range(first, first + splits)}


def without_each(parts: Mapping[str, Settings], classes: Sequence[str], already: Sequence[str]) -> dict[str, Settings]:
    """Each of `parts` once for each of `classes`, which is not learned there, nor are those that are left out
    `already`."""
    return {
        f"{part}-without-{_file_name(name)}": _merged(chosen, {"data": {"leave_out": [*already, name]}})
        for part, chosen in parts.items()
        for name in classes
    }


def _file_name(name: str) -> str:
    """A class in the name of a folder: as it is where that is safe, else with a digest that tells it from others."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    return plain if plain == name else f"{plain[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def plan_cells(
    config: DistillConfig, methods: Mapping[str, Settings], parts: Mapping[str, Settings], seeds: Sequence[int]
) -> list[Cell]:
    """The cells of the grid in the folder `config.out`: all methods of one part and seed, then of the next, so that a
    grid half done can be compared.

    `methods` and `parts` give, by name, what each changes of `config`. Raises `UsageError` where a method's settings
    are wrong or are the grid's to decide.
    """
    shared = config.model_dump(mode="json", exclude_unset=True)  # what nobody has set may follow from a method
    cells = []
    for seed in seeds:
        for part, chosen in parts.items():
            name, own = f"{part}-seed{seed}", {"seed": seed}
            common = teacher_settings(_config(_merged(shared, chosen, own), "settings"))
            for method, changes in methods.items():
                _check_changes(method, changes)
                out = config.out / "cells" / method / name
                cell = _config(_merged(shared, changes, chosen, own, {"out": str(out)}), f"method '{method}'")
                teacher = None
                if not needs_teacher(cell.loss.terms) and "unlabelled" not in changes.get("data", {}):
                    # What is shared teaches those methods that have a teacher.
                    cell = cell.model_copy(update={"data": cell.data.model_copy(update={"unlabelled": ()})})
                if needs_teacher(cell.loss.terms):
                    decides = teacher_settings(cell)
                    # A method that changes what its teacher is has teachers to itself.
                    folder = name if decides == common else f"{name}-{_digest(decides)}"
                    run = {"device": cell.device, "out": str(config.out / "teachers" / folder)}
                    cache = {"teacher": {"cache": cell.teacher.cache}}
                    teacher = _config(_merged(decides, run, cache), f"method '{method}'")
                cells.append(Cell(method, part, seed, cell, teacher))
    return cells


def plan_text(
    config: DistillConfig,
    methods: Mapping[str, Settings],
    folds: Sequence[int] | None,
    splits: int,
    seeds: Sequence[int],
    leave_out: Sequence[str] = (),
) -> str:
    """The shared settings as TOML that `--config` reads, under comments that name the grid and what methods change."""
    parts = f"folds {'all' if folds is None else ','.join(map(str, folds))}"
    if splits > 1:
        parts += f" or {splits} splits"
    if leave_out:
        parts += f", each without {', '.join(leave_out)} in turn"
    lines = [f"# {len(methods)} methods, {parts}, seeds {', '.join(map(str, seeds))}; shared settings:"]
    lines += [config.describe().strip()]
    lines += to_toml(config.model_dump(mode="json")).splitlines()
    for name, changes in methods.items():
        lines += ["", f"# {name} changes:", *(f"# {line}".rstrip() for line in to_toml(changes).strip().splitlines())]
    return "\n".join(lines) + "\n"


def _config(values: Settings, source: str) -> DistillConfig:
    return settled(parse(DistillConfig, values, source))


def _merged(values: Settings, *changes: Settings, prefix: str = "") -> dict[str, Any]:
    """Nested `values` with `changes` over them, the last on top and in place of what said the same in another way."""
    merged = dict(values)
    for change in changes:
        for key, value in change.items():
            for other in displaced(prefix + key, {**merged, **change}) - set(change):
                merged.pop(other, None)
            inner = merged.get(key)
            if isinstance(inner, dict) and isinstance(value, Mapping):
                merged[key] = _merged(inner, value, prefix=f"{prefix}{key}.")
            else:
                merged[key] = value
    return merged


def _check_changes(method: str, changes: Settings) -> None:
    """Raise `UsageError` where a method would decide what the grid does: then its cells were no pairs."""
    named = [name for name in changes if name in THE_GRIDS]
    data = changes.get("data", {})
    named += [f"data.{name}" for name in data if f"data.{name}" in THE_GRIDS] if isinstance(data, Mapping) else []
    if named:
        raise UsageError(
            f"Method '{method}' sets {', '.join(named)}: it is the same for all methods of a comparison. Leave it out."
        )


def _digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

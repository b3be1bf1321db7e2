"""Which data sets there are, and how one is found, recognised and loaded.

A data set is a module with a `load` that returns a `ClipIndex`, and one line in `DATASETS`. Names here import nothing
heavy; the modules are imported when they are needed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.data.index import ClipIndex


@dataclass(frozen=True)
class Dataset:
    """A layout: what a folder of it holds, for messages, and its loader. `simulated`: made when no folder is
    given."""

    expected: str
    load: Callable[[Path, DataConfig], ClipIndex]
    simulated: bool = False


def load_index(config: DataConfig, progress: Progress = silent) -> ClipIndex:
    """The rows of the data set `config` names, or of the one recognised in `config.data_dir`.

    `data_dir` is a folder, or for `manifest` also the table itself.

    `sonar_sim` is simulated once: into `data_dir` if that is absent or empty, without `data_dir` into the cache
    folder, under a name of its own for every setting and version of the simulator. A `data_dir` that holds one is
    read as it is.

    Raises `UsageError` for an unknown name or no folder, `InputError` for a folder that is not there, of another
    layout, or (without a name) of two.
    """
    if config.dataset is None:
        if config.data_dir is None:
            names = ", ".join(sorted(DATASETS))
            raise UsageError(
                f"No data: pass --data-dir FOLDER, or --dataset sonar_sim to simulate. Data sets: {names}."
            )
        name = recognise(config.data_dir)
    else:
        name = config.dataset
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    dataset = DATASETS[name]
    if dataset.simulated:
        return dataset.load(_simulated(config, progress), config)
    if config.data_dir is None:
        raise UsageError(f"Data set '{name}' needs its folder: pass --data-dir FOLDER ({dataset.expected}).")
    _check_place(config.data_dir, table=name == "manifest")
    return dataset.load(config.data_dir, config)


def check_clip_length(index: ClipIndex, config: DataConfig) -> None:
    """Raises `UsageError` where most clips would be filled up to more than twice their length.

    VTUAD's are 1 s long: cut to 5 s, a network would be trained on repetition and then meet none.
    """
    from edgekd.data.audio import probe

    some = index.clips[:: len(index) // 200 + 1]
    seconds = sorted(clip.length / probe(clip.path).rate for clip in some)[len(some) // 2]
    if seconds < config.clip_seconds / 2:
        raise UsageError(
            f"{index.root}: most clips are {seconds:.2g} s long or shorter, and would be filled up to "
            f"data.clip_seconds = {config.clip_seconds:g}. Pass --clip-seconds {seconds:.2g}."
        )


def recognise(data_dir: Path) -> str:
    """The name of the data set whose layout `data_dir` has. Raises `InputError` for another, for two, or no data."""
    _check_place(data_dir, table=True)
    names = _layouts(data_dir)
    if not names:
        layouts = "; ".join(f"{name}: {dataset.expected}" for name, dataset in DATASETS.items())
        raise InputError(f"{data_dir}: no known layout: found {_found(data_dir)}. Known: {layouts}.")
    if len(names) > 1:
        parts = " and of ".join(f"'{name}' ({DATASETS[name].expected})" for name in names)
        raise InputError(
            f"{data_dir}: holds the layout of {parts}. Keep one data set a folder, or choose: --dataset {names[0]}."
        )
    return names[0]


def wrong_layout(data_dir: Path, name: str) -> InputError:
    """The error for a folder not in the layout of `name`: what was expected, what is there, and what would fit."""
    _check_place(data_dir, table=False)
    expected, found, fits = DATASETS[name].expected, _found(data_dir), _layouts(data_dir)
    hint = f" It looks like --dataset {fits[0]}." if len(fits) == 1 and fits[0] != name else ""
    return InputError(f"{data_dir}: not in the layout of '{name}': expected {expected}, found {found}.{hint}")


def _esc50(root: Path, _config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.esc50 import load

    return load(root, "esc50")


def _esc10(root: Path, _config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.esc50 import load

    return load(root, "esc10")


def _urbansound8k(root: Path, _config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.urbansound8k import load

    return load(root)


def _deepship(root: Path, config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.deepship import load

    return load(root, config.clip_seconds)


def _vtuad(root: Path, config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.vtuad import load

    return load(root, config.clip_seconds)


def _manifest(table_or_folder: Path, config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.manifest import load

    return load(table_or_folder, config.clip_seconds)


def _folder(root: Path, config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.folder import load

    return load(root, config.clip_seconds)


def _sonar_sim(root: Path, config: DataConfig) -> ClipIndex:
    from edgekd.data.layouts.folder import load

    return load(root, config.clip_seconds, dataset="sonar_sim")


DATASETS: dict[str, Dataset] = {
    "esc50": Dataset("meta/esc50.csv and audio/", _esc50),
    "esc10": Dataset("meta/esc50.csv and audio/, the rows with esc10 = True", _esc10),
    "urbansound8k": Dataset("audio/fold1 to fold10 (and metadata/UrbanSound8K.csv)", _urbansound8k),
    "deepship": Dataset("Cargo/, Passengership/, Tanker/ and Tug/ (and their metafiles)", _deepship),
    "vtuad": Dataset("train/, validation/ and test/, each with audio/ and a folder a class, or scenarios", _vtuad),
    "manifest": Dataset(
        "manifest.csv, or any table as --data-dir: path,label[,group,split,fold,start_s,end_s]", _manifest
    ),
    "folder": Dataset("a folder of recordings for each class (and optionally groups.csv)", _folder),
    "sonar_sim": Dataset("recordings.csv and a folder for each class, as simulated", _sonar_sim, simulated=True),
}


# Folders that say how a data set is divided, not what was recorded: their layout needs a loader of its own.
_NOT_CLASSES = re.compile(r"train(ing)?|val(id|idation)?|test|audio|meta(data)?|fold_?\d+", re.IGNORECASE)


def _layouts(data_dir: Path) -> list[str]:
    """The data sets whose layout is there. A manifest describes the class folders beside it."""
    from edgekd.data.layouts import deepship, esc50, folder, manifest, urbansound8k, vtuad

    if data_dir.is_file():
        return ["manifest"]
    names = []
    if (data_dir / esc50.TABLE).is_file():
        names.append("esc10" if esc50.is_esc10(data_dir) else "esc50")
    if urbansound8k.looks_like(data_dir):
        names.append("urbansound8k")
    if (data_dir / manifest.TABLE).is_file():
        names.append("manifest")
    if vtuad.looks_like(data_dir):
        names.append("vtuad")
    if "manifest" in names:
        return names
    if deepship.looks_like(data_dir):
        return [*names, "deepship"]
    folders = folder.class_folders(data_dir)
    divisions = [path for path in folders if _NOT_CLASSES.fullmatch(path.name) or vtuad.holds_sides(path)]
    classes = [path for path in folders if path not in divisions and folder.holds_audio(path)]
    if not names:
        return ["folder"] if classes and not any(map(folder.holds_audio, divisions)) else []
    # Beside another data set, one folder of audio may be anything; two are classes.
    return [*names, "folder"] if len(classes) > 1 else names


def _check_place(data_dir: Path, table: bool) -> None:
    """`table`: a CSV file will do, too."""
    if not data_dir.exists():
        raise InputError(f"{data_dir}: no such {'file' if data_dir.suffix else 'folder'}. Check --data-dir.")
    if table and data_dir.is_file() and data_dir.suffix.lower() == ".csv":
        return
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: a file, where the folder of a data set is expected. Check --data-dir.")
    if not any(data_dir.iterdir()):
        raise InputError(f"{data_dir}: the folder is empty. Put the data set there, or check --data-dir.")


def _found(data_dir: Path, shown: int = 5) -> str:
    """A few of the names in a folder."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in data_dir.iterdir())
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _simulated(config: DataConfig, progress: Progress) -> Path:
    """The folder with the simulated recordings, made first if it is not there."""
    from edgekd.data.simulation import ocean, sonar, vessels
    from edgekd.files.caches import cache_folder, locked

    if config.data_dir is None:
        key = hashlib.sha256(
            f"{config.simulation.model_dump_json()} {config.sample_rate} {config.clip_seconds}".encode()
        )
        for module in (sonar, ocean, vessels):  # other code, other recordings
            key.update(getsource(module).encode())
        folder = cache_folder() / f"sonar_sim-recordings-{key.hexdigest()[:24]}"
    else:
        folder = config.data_dir
    lock = cache_folder() / f"simulate-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, lambda: progress("wait for another simulation", 0, 1)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # the recordings come by renaming a whole folder to this name
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                sonar.simulate(folder, config.simulation, config.sample_rate, config.clip_seconds, progress)
    except OSError as failure:
        raise InputError(f"{folder}: the simulated recordings cannot be written: {failure.strerror}.") from None
    if not (folder / "recordings.csv").is_file():
        raise wrong_layout(folder, "sonar_sim")
    return folder

"""Passive sonar, simulated (`edgekd.data.simulation`) and then read like recordings of one's own.

    root/recordings.csv                  what is true of each recording
    root/<class>/<class>-<nn>.wav        one recording a vessel, which is the group

A folder of it has the layout `folder` too and is recognised as that; simulated it is by name alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from inspect import getsource
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgekd.data import fourier
from edgekd.data.layouts import folder
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.simulation import ocean, sonar, vessels
from edgekd.errors import InputError
from edgekd.files.caches import cache_folder, locked
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.data.index import ClipIndex


def recognise(_: Path) -> bool:
    """Never: see above."""
    return False


def load(root: Path, config: DataConfig) -> ClipIndex:
    """The windows of every recording, as `folder.load` has them."""
    table = root / "recordings.csv"
    if not table.is_file():
        raise WrongLayout(root)
    return replace(folder.load(root, config, "sonar_sim"), tables=(table,))


def make(config: DataConfig, progress: Progress = silent) -> Path:
    """The folder with the simulated recordings, made first where it is absent or empty.

    That is `config.data_dir`, or one in the cache folder under a name of its own for every setting and version of the
    simulator. One process simulates; others wait for it. Raises `InputError` where it cannot be written.
    """
    root = config.data_dir or cache_folder() / f"sonar_sim-recordings-{settings_key(config)}"
    lock = cache_folder() / f"simulate-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, lambda: progress("wait for another simulation", 0, 1)):
            if root.is_dir() and not any(root.iterdir()):
                root.rmdir()  # the recordings come by renaming a whole folder to this name
            if not root.exists():
                root.parent.mkdir(parents=True, exist_ok=True)
                sonar.simulate(root, config.simulation, config.sample_rate, config.clip_seconds, progress)
    except OSError as failure:
        raise InputError(f"{root}: the simulated recordings cannot be written: {failure.strerror}.") from None
    return root


def settings_key(config: DataConfig, code: Iterable[ModuleType] = (sonar, ocean, vessels, fourier)) -> str:
    """A hash of everything that decides the recordings: the settings, and the source of the modules in `code`."""
    key = hashlib.sha256(f"{config.simulation.model_dump_json()} {config.sample_rate} {config.clip_seconds}".encode())
    for module in code:
        key.update(getsource(module).encode())
    return key.hexdigest()[:24]

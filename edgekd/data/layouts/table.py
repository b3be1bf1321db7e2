"""The layouts, in the order in which they are recognised. A new one is a module beside this file and a row here.

Its module has `recognise(root) -> bool` and `load(root, config) -> ClipIndex` (see `layout`), and is imported when one
of them is called: the names alone cost nothing.

Where a folder has two layouts, both are refused (`edgekd.data.load.recognise`), but for those that say what the folders
in it are: a manifest describes the folders beside it, and four folders of DeepShip's names are DeepShip.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.data.layouts.layout import Layout, Load, Recognise

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.data.index import ClipIndex
    from edgekd.progress import Progress


def _of(module: str) -> tuple[Recognise, Load]:
    """`recognise` and `load` of a module of this folder."""

    def recognise(root: Path) -> bool:
        return _module(module).recognise(root)

    def load(root: Path, config: DataConfig) -> ClipIndex:
        return _module(module).load(root, config)

    return recognise, load


def _module(name: str) -> Any:
    return import_module(f"edgekd.data.layouts.{name}")


def _several_classes(root: Path) -> bool:
    return _module("folder").several_classes(root)


def _simulated(config: DataConfig, progress: Progress) -> Path:
    return _module("sonar_sim").make(config, progress)


def _is_selections(table: Path) -> bool:
    return _module("selections").is_selections(table)


def _selections_beside(root: Path) -> bool:
    return _module("selections").beside(root)


LAYOUTS: tuple[Layout, ...] = (
    Layout("esc50", "meta/esc50.csv and audio/", *_of("esc50"), named=True, folds=5),
    Layout("esc10", "meta/esc50.csv and audio/, the rows with esc10 = True", *_of("esc10"), named=True, folds=5),
    Layout("urbansound8k", "audio/fold1 to fold10 (and metadata/UrbanSound8K.csv)", *_of("urbansound8k"), folds=10),
    Layout(
        "manifest",
        "manifest.csv, or any table as --data-dir: path,label[,group,split,fold,start_s,end_s]",
        *_of("manifest"),
        table=True,
        several=True,
        named=True,
        class_folders=True,
    ),
    Layout(
        "vtuad", "train/, validation/ and test/, each with audio/ and a folder a class, or scenarios", *_of("vtuad")
    ),
    Layout(
        "deepship",
        "Cargo/, Passengership/, Tanker/ and Tug/ (and their metafiles)",
        *_of("deepship"),
        class_folders=True,
    ),
    Layout(
        "selections",
        "recordings and tables of selections in them (Raven, Audacity, CSV, JSON lines)",
        *_of("selections"),
        table=True,
        told_by=_is_selections,
        several=True,
        named=True,
        beside=_selections_beside,
    ),
    Layout(
        "folder",
        "a folder of recordings for each class (and optionally groups.csv)",
        *_of("folder"),
        class_folders=True,
        beside=_several_classes,
    ),
    Layout("sonar_sim", "recordings.csv and a folder for each class, as simulated", *_of("sonar_sim"), make=_simulated),
)

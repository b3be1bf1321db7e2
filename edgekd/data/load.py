"""The rows of a data set: its folder found or made, its layout recognised, its clips read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.config import DataConfig
from edgekd.data.background import check_background
from edgekd.data.folds import missing_folds
from edgekd.data.grouping import grouped
from edgekd.data.index import ClipIndex
from edgekd.data.layouts.folder import GROUPS
from edgekd.data.layouts.layout import Layout, WrongLayout
from edgekd.data.layouts.table import LAYOUTS
from edgekd.data.walk import audio_files, left_out, why_no_audio
from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.escaping import is_utf8
from edgekd.files.table_text import TABLE_SUFFIXES, is_table, table_at
from edgekd.progress import Progress, silent


def load_index(config: DataConfig, progress: Progress = silent, layouts: Sequence[Layout] = LAYOUTS) -> ClipIndex:
    """The rows of the data set `config` names, or of the one recognised in `config.data_dir`.

    `data_dir` is a folder, or for a layout that is a table also the table itself.

    `sonar_sim` is simulated once: into `data_dir` if that is absent or empty, without `data_dir` into the cache
    folder, under a name of its own for every setting and version of the simulator. A `data_dir` that holds one is
    read as it is.

    What lies in the folder and is no clip of it is told of in `left_out`; clips of the classes in `config.leave_out`
    are not there. Raises `UsageError` for an unknown name, no folder, or several classes a clip where the layout has
    one, `InputError` for a folder that is not there, of another layout, or (without a name) of two, and for a
    background that is none of its classes.
    """
    if config.dataset is not None:
        layout = _named(config.dataset, layouts)
    elif config.data_dir is not None:
        layout = recognise(config.data_dir, layouts)
    else:
        names = ", ".join(sorted(layout.name for layout in layouts))
        raise UsageError(f"No data: pass --data-dir FOLDER, or --dataset sonar_sim to simulate. Data sets: {names}.")
    if config.labels == "multi" and not layout.several:
        raise UsageError(
            f"data.labels = multi: '{layout.name}' gives each clip one class. List the recordings in a table "
            "(path,label), with the classes of each parted by ';'."
        )
    if layout.make is not None:
        root = layout.make(config, progress)
    elif config.data_dir is None:
        raise UsageError(f"Data set '{layout.name}' needs its folder: pass --data-dir FOLDER ({layout.expected}).")
    else:
        root = config.data_dir
        _check_place(root, table=layout.table)
    try:
        index = _with_left_out(layout.load(root, config), layout, root)
    except WrongLayout:
        raise _refused(root, layout, layouts) from None
    except UnicodeEncodeError:  # libsndfile's binding takes no such name either
        check_names_of_files(audio_files(root))
        raise
    check_names_of_files(clip.path for clip in index)
    if not index.task.several:  # else it is how a label says that nothing is heard
        check_background(index.classes, config.background, str(root))
    index = replace(index, notes=(*index.notes, *missing_folds(index, config, layout.folds)))
    return without_classes(grouped(index, config), config.leave_out)


def without_classes(index: ClipIndex, names: Sequence[str]) -> ClipIndex:
    """`index` without the clips of the classes called `names`; the others keep their order.

    Raises `UsageError` for a class that is not there, where fewer than two are left, and where clips may be of several.
    """
    if not names:
        return index
    if index.combinations:
        raise UsageError(
            f"{index.root}: a clip may be of several classes there, so none can be left out (data.leave_out)."
        )
    for name in names:
        if name not in index.classes:
            raise unknown_name("class to leave out", name, index.classes)
    kept = [label for label, name in enumerate(index.classes) if name not in names]
    if len(kept) < 2:
        raise UsageError(f"{index.root}: without {', '.join(names)} there are not two classes left to tell apart.")
    new = {label: place for place, label in enumerate(kept)}
    clips = tuple(replace(clip, label=new[clip.label]) for clip in index if clip.label in new)
    return replace(index, classes=tuple(index.classes[label] for label in kept), clips=clips)


def recognise(data_dir: Path, layouts: Sequence[Layout] = LAYOUTS) -> Layout:
    """The layout that `data_dir` has. Raises `InputError` for another, for two, or no data."""
    _check_place(data_dir, table=True)
    fitting = _fitting(data_dir, layouts)
    if not fitting:
        known = "; ".join(f"{layout.name}: {layout.expected}" for layout in layouts)
        raise InputError(
            f"{data_dir}: no known layout: found {_contents(data_dir)}. Known: {known}.{why_no_audio(data_dir)} "
            "Where file names tell the class, a command writes the table: "
            f"edgekd data manifest {shlex.quote(str(data_dir))} --pattern '{{label}}_{{group}}_{{_}}'"
        )
    if len(fitting) > 1:
        parts = " and of ".join(f"'{layout.name}' ({layout.expected})" for layout in fitting)
        raise InputError(
            f"{data_dir}: holds the layout of {parts}. Keep one data set a folder, or choose: "
            f"--dataset {fitting[0].name}."
        )
    return fitting[0]


def check_names_of_files(files: Iterable[Path]) -> None:
    """Raises `InputError` for files whose names are no UTF-8: no table, archive or page could name them again."""
    odd = [path for path in dict.fromkeys(files) if not is_utf8(str(path))]
    if odd:
        name = repr(os.fsencode(odd[0]))[2:-1]
        raise InputError(
            f"{name}: its name is not UTF-8 ({len(odd)} such). Rename it, e.g. with: convmv -f latin1 -t utf8 --notest"
        )


def check_dataset(name: str | None) -> None:
    """Raise `UsageError` for a name that is no layout's; without one a layout is recognised."""
    if name is not None:
        _named(name, LAYOUTS)


def _with_left_out(index: ClipIndex, layout: Layout, root: Path) -> ClipIndex:
    """`index` with what else lies in its folder: of a table that is given itself, in those of the files it names."""
    told = {each.path for each in index.left_out}
    used = {clip.path for clip in index}
    groups = table_at(index.root, GROUPS)  # `grouped` heeds it, whatever the layout
    read = {*index.tables, *([] if groups is None else [groups])}
    folders, depth = (sorted({path.parent for path in used}), 0) if root.is_file() else ([root], None)
    if layout.named:
        elsewhere = "not named by the table"
    elif layout.class_folders:
        elsewhere = "outside the folders of the classes"
    else:
        elsewhere = f"where '{layout.name}' has no recordings"
    found = left_out(folders, used | read | told, elsewhere, lost=not layout.named, depth=depth)
    return replace(index, left_out=(*index.left_out, *found))


def _named(name: str, layouts: Sequence[Layout]) -> Layout:
    by_name = {layout.name: layout for layout in layouts}
    if name not in by_name:
        raise unknown_name("data set", name, by_name)
    return by_name[name]


def _fitting(data_dir: Path, layouts: Sequence[Layout]) -> list[Layout]:
    """The layouts that are there, in their order."""
    if data_dir.is_file():
        tables = [layout for layout in layouts if layout.table]
        told = [layout for layout in tables if layout.told_by is not None and layout.told_by(data_dir)]
        return told or [layout for layout in tables if layout.told_by is None]
    fitting: list[Layout] = []
    for layout in layouts:
        if layout.class_folders and any(other.class_folders for other in fitting):
            continue
        recognised = layout.beside if fitting and layout.beside is not None else layout.recognise
        if recognised(data_dir):
            fitting.append(layout)
    return fitting


def _refused(root: Path, layout: Layout, layouts: Sequence[Layout]) -> InputError:
    """The error for a folder that is not in `layout`: what was expected, what is there, and what would fit."""
    _check_place(root, table=False)
    others = _fitting(root, layouts)
    hint = f" It looks like --dataset {others[0].name}." if len(others) == 1 and others[0] != layout else ""
    return InputError(
        f"{root}: not in the layout of '{layout.name}': expected {layout.expected}, found {_contents(root)}.{hint}"
    )


def _check_place(data_dir: Path, table: bool) -> None:
    """`table`: a table will do, too."""
    if not data_dir.exists():
        raise InputError(f"{data_dir}: no such {'file' if data_dir.suffix else 'folder'}. Check --data-dir.")
    if table and data_dir.is_file() and is_table(data_dir):
        return
    if not data_dir.is_dir():
        kinds = f" (tables: {' '.join(TABLE_SUFFIXES)})" if table else ""
        raise InputError(f"{data_dir}: a file, where the folder of a data set is expected. Check --data-dir{kinds}.")
    if not any(data_dir.iterdir()):
        raise InputError(f"{data_dir}: the folder is empty. Put the data set there, or check --data-dir.")


def _contents(folder: Path, shown: int = 5) -> str:
    """A few of the names in a folder."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

"""Audio without labels: folders of recordings that a student is taught with through its teacher's answers.

    folder/**/<recording>.wav      any format libsndfile reads, any rate and length
    folder/groups.csv              optional: path (relative to the folder), group

Recordings are cut into clips as in the folder layout. A group is the recording, or what `groups.csv` says: the source
that several files were cut from, by the name that the labelled clips of the same source have; or with `data.group_by`
the day or the deployment that the name of the file tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgekd.audio.read import AUDIO_SUFFIXES
from edgekd.config import DataConfig
from edgekd.data.grouping import spelled_once
from edgekd.data.index import Clip, ClipIndex
from edgekd.data.layouts.folder import GROUPS, groups_of, windows
from edgekd.data.load import check_names_of_files
from edgekd.data.recording_times import GroupBy, begun, pattern_of
from edgekd.data.recording_times import group_of as of_time
from edgekd.data.times_in_names import TimePattern
from edgekd.data.walk import audio_files, left_out, why_no_audio
from edgekd.errors import InputError
from edgekd.files.table_text import table_at
from edgekd.files.threads import threaded
from edgekd.progress import Progress, silent


def load_unlabelled(config: DataConfig, progress: Progress = silent) -> ClipIndex:
    """The clips of the folders `config.unlabelled`, folder by folder in their order; a file below two of them is taken
    once. `root` is the folder that holds them all.

    Raises `InputError` for a folder that is not there or holds no audio, an unreadable recording, and a `groups.csv`
    that names an unknown file or leaves one out.
    """
    group_of: dict[Path, str] = {}
    seen: set[Path] = set()
    for folder in config.unlabelled:
        files = _recordings(folder)
        # By its full path a recording without a given group has no namesake among labelled ones.
        groups = groups_of(folder, files, str(folder) + os.sep)
        if config.group_by is not None:
            groups |= _by_time(folder, groups, config.group_by, pattern_of(config))
        targets = {path: path.resolve() for path in files}
        group_of.update((path, groups[path]) for path, target in targets.items() if target not in seen)
        seen.update(targets.values())
    files = list(group_of)
    check_names_of_files(files)
    cut: dict[Path, list[tuple[int, int]]] = {}
    for done, (path, pieces) in enumerate(threaded(lambda path: windows(path, config.clip_seconds), files), 1):
        cut[path] = pieces
        progress("read headers", done, len(files))
    clips = [
        Clip(path, -1, group, None, start, length) for path, group in group_of.items() for start, length in cut[path]
    ]
    tables = [table for folder in config.unlabelled if (table := table_at(folder, GROUPS)) is not None]
    beside = left_out(config.unlabelled, [*files, *tables], "read in another folder of these already", lost=False)
    index = ClipIndex("unlabelled", Path(os.path.commonpath(config.unlabelled)), (), tuple(clips), tuple(beside))
    return spelled_once(index)


def _by_time(
    folder: Path, groups: Mapping[Path, str], group_by: GroupBy, pattern: TimePattern | None
) -> dict[Path, str]:
    """The groups of recordings that no table groups and that are named by a time: those that labelled recordings of the
    same day or deployment have."""
    own = [
        path for path, group in groups.items() if group == str(folder) + os.sep + path.relative_to(folder).as_posix()
    ]
    times = {path: begun(PurePosixPath(path.relative_to(folder).as_posix()), pattern=pattern) for path in own}
    return {path: of_time(time, group_by) for path, time in times.items() if time is not None}


def _recordings(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}. Check --unlabelled.")
    files = audio_files(folder)
    if not files:
        kinds = " ".join(sorted(AUDIO_SUFFIXES))
        raise InputError(f"{folder}: holds no audio ({kinds}). Check --unlabelled.{why_no_audio(folder)}")
    return files

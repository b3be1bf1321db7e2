"""What belongs together, beyond what a layout says: groups spelled in several ways, `groups.csv`, times in names.

Two groups that are made one can only make a split stricter; one that is taken for two lets it leak. So what is there is
used or, where it needs a decision, named in a note.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from edgekd.config import DataConfig
from edgekd.data.disjoint_groups import DisjointGroups
from edgekd.data.index import ClipIndex, Note
from edgekd.data.layouts.folder import GROUPS, listed_groups
from edgekd.data.recording_times import by_time, neighbours, pattern_of
from edgekd.data.unread_tables import unheeded
from edgekd.files.spelling import one_spelling
from edgekd.files.table_text import table_at


def grouped(index: ClipIndex, config: DataConfig) -> ClipIndex:
    """`index` with every group there is evidence of, and notes about what was not used.

    Raises `InputError` for a wrong `groups.csv`, `UsageError` where `config.group_by` finds nothing
    and for a wrong `config.time_pattern`.
    """
    index = joined_by_table(spelled_once(index))
    pattern = pattern_of(config)
    if config.group_by is not None:
        index = by_time(index, config.group_by, pattern)
    else:
        index = replace(index, notes=(*index.notes, *neighbours(index, pattern)))
    return replace(index, notes=(*index.notes, *unheeded(index)))


def spelled_once(index: ClipIndex) -> ClipIndex:
    """`index` with groups whose names are alike as one, under the first one's name."""
    spelling = one_spelling(clip.group for clip in index)
    others = [_shown(name, first) for name, first in spelling.items() if name != first]
    if not others:
        return index
    some = ", ".join(others[:3]) + (", ..." if others[3:] else "")
    note = Note("groups", f"{len(others)} name(s) of groups are taken for another spelling of one: {some}.")
    clips = tuple(replace(clip, group=spelling[clip.group]) for clip in index)
    return replace(index, clips=clips, notes=(*index.notes, note))


def _shown(name: str, other: str) -> str:
    """Two spellings side by side, in codes where they look the same."""
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return f"{name!a} = {other!a}" if same else f"{name!r} = {other!r}"


def joined_by_table(index: ClipIndex) -> ClipIndex:
    """`index` with the groups that a `groups.csv` beside the recordings puts together, whatever their layout.

    It may list some of the recordings alone; what the layout keeps together stays so. Raises `InputError` for a file it
    does not know, one without a group, and one with two.
    """
    table = table_at(index.root, GROUPS)
    if table is None:
        return index
    below = {clip.path: clip.group for clip in index if clip.path.is_relative_to(index.root)}
    listed = listed_groups(index.root, table, list(below))
    spelling = one_spelling([*(clip.group for clip in index), *listed.values()])
    groups = DisjointGroups(spelling.values())
    for path, group in listed.items():
        groups.join(below[path], into=spelling[group])
    return replace(index, clips=tuple(replace(clip, group=groups.name_of(clip.group)) for clip in index))

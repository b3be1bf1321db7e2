"""The audit that runs before training: does the split leak, and could a classifier cheat?

A split leaks when a group is on two sides, or audio is: the same recording under two names, re-encoded, cut again with
an overlap, turned down (`edgekd.checks.fingerprint`). Such a score measures memory.

The same samples under two labels teach one of two classes wrongly, on whichever sides they are: that comes first.

A classifier can cheat where the class goes with something that is not the sound: all tugs recorded at 48 kHz, all of
one class louder. Each attribute is tested over groups, not clips, for the windows of a recording are one observation
(`edgekd.checks.association`). That is a warning and no leak: loud things may be loud.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.read import AudioInfo, probe
from edgekd.checks.association import (
    Attribute,
    association,
    binned,
    cross_table,
    expected_if_independent,
    typical_value,
)
from edgekd.checks.fingerprint import Match, near_duplicates
from edgekd.checks.landmarks import levels
from edgekd.checks.silence import SILENCES, cancelled_clips, cancelled_words, silent_clips, silent_words
from edgekd.checks.two_labels import under_two_labels
from edgekd.config import DataConfig
from edgekd.data.clip_length import check_clip_length
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import SIDES, ClipIndex, Side, Split
from edgekd.data.load import load_index
from edgekd.data.splits import make_split
from edgekd.data.walk import Reason, reasons
from edgekd.errors import GateError
from edgekd.files.threads import threaded
from edgekd.number_formats import p_value
from edgekd.progress import Progress, silent
from edgekd.recordings import LOWEST_RATE

Rule = Literal["refuse", "warn", "off"]


@dataclass(frozen=True)
class Finding:
    """One thing found: what kind, a line for people, and what it is about for programs."""

    kind: Literal[
        "two labels", "group", "near-duplicate", "confounded", "silence", "cancelled", "groups", "folds", "labels"
    ]
    message: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """What was found in a split. `searched`: whether near-duplicates were looked for, and so levels measured.

    `contradictions`: the same samples under two labels. `left_out`: what lies in the data folder and is no clip.
    `notes`: of what clips were made.
    """

    clips: dict[Side, int]
    groups: int
    searched: bool
    leaks: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    attributes: tuple[Attribute, ...]
    contradictions: tuple[Finding, ...] = ()
    left_out: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit_data(config: DataConfig, progress: Progress = silent) -> tuple[Audit, ClipIndex]:
    """The audit of the split that `config` makes of its data set, and its clips. Raises as `load_index`,
    `check_clip_length`, `make_split` and `open_store` do."""
    index = load_index(config, progress)
    check_clip_length(index, config)
    split = make_split(index, config)
    return audit(index, split, open_store(index, config, progress), config, progress), index


def audit(index: ClipIndex, split: Split, store: ClipStore, config: DataConfig, progress: Progress = silent) -> Audit:
    """Look for audio with two labels, groups and audio on two sides, silence, and attributes that tell the class.

    With `config.near_duplicates = "warn"` audio on two sides is a warning; with "off" it is not looked for, and levels
    are not measured. What is slow is kept beside `store`, whatever the split.
    """
    side_of = {row: side for side in SIDES for row in split.side(side)}
    leaks = list(_shared_groups(index, side_of))
    warnings = [Finding(note.kind, note.message) for note in index.notes if note.kind != "windows"]
    contradictions: list[Finding] = []
    searched = config.near_duplicates != "off"
    level = None
    if searched:
        level = levels(store, progress)
        contradictions = [_two_labels(index, rows, clips) for rows, clips in under_two_labels(index, store, progress)]
        matches = near_duplicates(store, [clip.group for clip in index], progress)
        for match in sorted(matches, key=lambda match: not _labels_differ(index, match)):
            crosses = side_of[match.rows[0]] != side_of[match.rows[1]]
            found = leaks if crosses and config.near_duplicates != "warn" else warnings
            found.append(_shared_audio(index, side_of, match, crosses))
    warnings.extend(unheard(index, store))
    attributes, confounded = _attributes(index, config, store, level, progress)
    return Audit(
        clips={side: len(split.side(side)) for side in SIDES},
        groups=len({clip.group for clip in index}),
        searched=searched,
        leaks=tuple(leaks),
        warnings=(*warnings, *confounded),
        attributes=tuple(attributes),
        contradictions=tuple(contradictions),
        left_out=reasons(index),
        notes=tuple(note.message for note in index.notes if note.kind == "windows"),
    )


def rule(index: ClipIndex, config: DataConfig) -> Rule:
    """What training does about audio on two sides or under two labels: unless it is said, refuse a split of our making
    and warn of one that the data set brings along.

    Published folds do hold some (one recording of ESC-10 is in folds 3 and 5), and published figures are theirs.
    """
    if config.near_duplicates is not None:
        return config.near_duplicates
    given = any(clip.fold is not None or clip.side is not None for clip in index)
    return "warn" if given and config.given_split else "refuse"


def check_audit(found: Audit, index: ClipIndex, config: DataConfig) -> tuple[str, ...]:
    """Raises `GateError` for the first thing that `rule` does not let pass; returns lines about what it does."""
    refused = _refused(found, index, config)
    if refused:
        raise GateError(f"{index.root}: {_told(refused)} {_advice(refused[0])}")
    crossing = [each for each in (*found.leaks, *found.warnings) if each.about.get("crosses")]
    return tuple(_told(each) for each in (found.contradictions, crossing) if each)


def refuse(audited: Audit, index: ClipIndex, config: DataConfig) -> bool:
    """Raises `GateError`, with the number of places, where training would refuse; returns whether it would warn."""
    refused = _refused(audited, index, config)
    if refused:
        places = f"in {len(refused)} place(s)"
        what = f"the split leaks {places}" if refused[0].kind != "two labels" else f"audio has two labels {places}"
        raise GateError(f"{index.root}: {what}. {_advice(refused[0])}")
    return bool(check_audit(audited, index, config))


def _refused(found: Audit, index: ClipIndex, config: DataConfig) -> list[Finding]:
    """What training does not let pass: all of the kind that comes first."""
    groups = [leak for leak in found.leaks if leak.kind == "group"]
    if rule(index, config) != "refuse":
        return groups
    return [*found.contradictions] or groups or [*found.leaks]


def _told(findings: Sequence[Finding]) -> str:
    head = "audio has two labels" if findings[0].kind == "two labels" else "the split leaks"
    more = f" ({len(findings) - 1} more: see 'edgekd data audit'.)" if findings[1:] else ""
    return f"{head}: {findings[0].message}{more}"


def _advice(found: Finding) -> str:
    if found.kind == "group":
        return "Keep its clips together, or split by group: --set data.given_split=false."
    anyway = "or train all the same: --set data.near_duplicates=warn."
    if found.kind == "two labels":
        return f"Take out the one with the wrong label, {anyway}"
    return (
        "Put both into one group ('edgekd data audit --write-groups FILE' writes groups.csv; a manifest has the column "
        f"'group'), take one out, {anyway}"
    )


def unheard(index: ClipIndex, store: ClipStore) -> Iterator[Finding]:
    """The clips with nothing to hear, and those whose channels cancel each other."""
    silent, cancelled = (
        [index.name(index.clips[row]) for row in rows(store)] for rows in (silent_clips, cancelled_clips)
    )
    if silent:
        yield Finding("silence", silent_words(silent), {"files": silent})
    if cancelled:
        yield Finding("cancelled", cancelled_words(cancelled), {"files": cancelled})


# What is on two sides


def _shared_groups(index: ClipIndex, side_of: dict[int, Side]) -> Iterator[Finding]:
    sides: defaultdict[str, Counter[Side]] = defaultdict(Counter)
    for row, side in side_of.items():
        sides[index.clips[row].group][side] += 1
    for group, clips in sides.items():
        if len(clips) > 1:
            places = " and ".join(f"{side} ({count} clips)" for side, count in clips.items())
            yield Finding("group", f"group '{group}' is on {places}.", {"group": group, "clips": dict(clips)})


def _two_labels(index: ClipIndex, rows: Sequence[int], clips: int) -> Finding:
    """The finding about the clips in `rows`, one a file, of which so many `clips` of each file are the same."""
    files = [index.name(index.clips[row]) for row in rows]
    classes = [index.label_names[index.clips[row].label] for row in rows]
    named = " and ".join(f"{file} ('{name}')" for file, name in list(zip(files, classes, strict=True))[:3])
    more = f" and {len(rows) - 3} more" if rows[3:] else ""
    count = f", in {clips} clips" if clips > 1 else ""
    message = f"{named}{more} hold the same samples{count}: one label is wrong."
    return Finding("two labels", message, {"files": files, "classes": classes, "clips": clips})


def _labels_differ(index: ClipIndex, match: Match) -> bool:
    labels = {index.clips[row].label for row in match.rows}
    return len(labels) > 1 and min(labels) >= 0


def _shared_audio(index: ClipIndex, side_of: dict[int, Side], match: Match, crosses: bool) -> Finding:
    clips = [index.clips[row] for row in match.rows]
    sides = [side_of[row] for row in match.rows]
    starts = [round(clip.start / probe(clip.path).rate, 3) if clip.start else 0.0 for clip in clips]
    files = [index.name(clip) for clip in clips]
    classes = [index.label_names[clip.label] if clip.label >= 0 else None for clip in clips]
    named = [f"{file} at {start:g} s" if start else file for file, start in zip(files, starts, strict=True)]
    where = f"({sides[0]}) and {named[1]} ({sides[1]})" if crosses else f"and {named[1]} (both {sides[0]})"
    labels = "" if classes[0] == classes[1] or None in classes else f", labelled '{classes[0]}' and '{classes[1]}'"
    return Finding(
        "near-duplicate",
        f"{named[0]} {where} hold the same audio{labels} ({match.correlation:.0%} in phase).",
        {
            "files": files,
            "starts_s": starts,
            "sides": sides,
            "classes": classes,
            "groups": [clip.group for clip in clips],
            "offset_s": match.offset_s,
            "correlation": match.correlation,
            "clip_pairs": match.clips,
            "crosses": crosses,
        },
    )


# What tells the class


def _attributes(
    index: ClipIndex, config: DataConfig, store: ClipStore, level: NDArray[np.float32] | None, progress: Progress
) -> tuple[list[Attribute], list[Finding]]:
    """Every attribute with more than one value among labelled clips, and those that are confounded with the class."""
    headers = _headers(index, progress)
    of_clips: dict[str, tuple[list[Any], Callable[[float], str]]] = {
        "sample rate": ([headers[clip.path].rate for clip in index], "{:.0f} Hz".format),
        "channels": ([headers[clip.path].channels for clip in index], "{:.0f} channel(s)".format),
        "sample format": ([headers[clip.path].subtype for clip in index], str),
        "clip length": (
            [round(min(clip.length / headers[clip.path].rate, config.clip_seconds), 2) for clip in index],
            "{:.2f} s".format,
        ),
    }
    if level is not None:
        of_clips["level"] = ([float(each) if np.isfinite(each) else -120.0 for each in level], "{:.0f} dB".format)
    remedies = {"sample rate": _one_rate(of_clips["sample rate"][0], config)}  # with flags to paste
    for figure, name in SILENCES.items():
        of_clips[name] = (store.figures[figure].tolist(), "{:.2f} s".format)
        if figure != "silence":
            remedies[name] = " Leave it out: --set data.trim_silence=true."
    members: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for row, clip in enumerate(index):
        if clip.label >= 0:
            members[clip.group, clip.label].append(row)
    if not members:
        return [], []
    labels = np.array([label for _, label in members])
    attributes, findings = [], []
    for name, (values, shown) in of_clips.items():
        typical = [typical_value([values[row] for row in rows]) for rows in members.values()]
        codes, names = binned(typical, shown)
        if len(names) < 2:
            continue
        found = association(name, codes, labels)
        attributes.append(found)
        if found.confounded:
            findings.append(_confounded(found, codes, names, labels, index.label_names, remedies.get(name, "")))
    return attributes, findings


def _one_rate(rates: Sequence[int], config: DataConfig) -> str:
    """What makes recordings of several `rates` alike."""
    lowest = min(rates)
    if config.sample_rate <= lowest:
        return f" At data.sample_rate = {config.sample_rate} all have the same band."
    if lowest < LOWEST_RATE:
        return f" Nothing makes their bands alike: {lowest} Hz is below the {LOWEST_RATE} Hz that --sample-rate can be."
    return f" The lowest rate makes their bands alike: --sample-rate {lowest}."


def _headers(index: ClipIndex, progress: Progress) -> dict[Any, AudioInfo]:
    files = list(dict.fromkeys(clip.path for clip in index))
    headers = {}
    for done, (path, header) in enumerate(threaded(probe, files), 1):
        headers[path] = header
        progress("read headers", done, len(files))
    return headers


def _confounded(
    found: Attribute,
    codes: NDArray[np.intp],
    names: list[str],
    labels: NDArray[np.intp],
    classes: tuple[str, ...],
    remedy: str,
) -> Finding:
    """The warning, with the class and the value that go together most beyond chance, and what may be done about it."""
    table = cross_table(codes, labels)
    expected = expected_if_independent(table)
    value, label = np.unravel_index(np.argmax((table - expected) / np.sqrt(expected)), table.shape)
    inside = table[value, label] / table[:, label].sum()
    outside = (table[value].sum() - table[value, label]) / max(1, table.sum() - table[:, label].sum())
    message = (
        f"{found.name} goes with the class (Cramer's V {found.cramers_v:.2f}, p {p_value(found.p)}): {names[value]} in "
        f"{inside:.0%} of '{classes[label]}', in {outside:.0%} of the rest. It alone tells the class of "
        f"{found.share:.0%} of the groups (chance {found.chance:.0%}).{remedy}"
    )
    return Finding("confounded", message, {"attribute": found.name, "value": names[value], "class": classes[label]})

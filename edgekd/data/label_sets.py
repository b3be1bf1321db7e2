"""What the labels of a table say: a class a clip or, parted by `;`, several classes at once.

Names of classes may hold a `;` themselves, so it alone decides nothing. Where `data.labels` does not say, a clip is
taken to have several classes if a part of such a label also stands elsewhere, alone or in another label; what was
decided is told in a note whenever there is a `;`.

An empty label is refused in either case: whoever left it empty may not have listened. That nothing of the classes is
heard is said by `none`, or `background`, alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgekd.data.background import BACKGROUND
from edgekd.data.index import NOTHING, Note
from edgekd.errors import InputError, shown
from edgekd.files.csv_table import Line, check_names
from edgekd.files.spelling import alike
from edgekd.task import Labels

SEPARATOR = ";"


class LabelSets(NamedTuple):
    """The classes in alphabetical order, the sets of them that occur (none: a label is a class), the label of each
    line, and what a user should know."""

    classes: tuple[str, ...]
    combinations: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    notes: tuple[Note, ...]


def read_labels(table: Path, lines: Sequence[Line], labels: Labels | None, background: str | None = None) -> LabelSets:
    """What the column `label` of a table says, read as `labels` has it, or as the table asks for. `background`: how the
    table calls what is of no class, where it is not called so.

    Raises `InputError`, with the line, for a class without a name, named twice in a label, or spelled in two ways, for
    `none` beside a class, and for fewer than two classes, or one that every line has.
    """
    parted = [line for line in lines if SEPARATOR in line.text("label")]
    several = labels == "multi" or (labels is None and _several(parted, lines))
    of_nothing = {alike(NOTHING), alike(background or BACKGROUND)}
    quiet = sum(alike(line.text("label")) in of_nothing for line in lines)
    notes = tuple(_notes(table, lines, parted, several, labels, quiet))
    if several:
        return _of_several(table, lines, of_nothing, notes)
    check_names((line, line.values["label"]) for line in lines)
    classes = tuple(sorted({line.text("label") for line in lines}))
    _check_count(table, classes)
    number = {name: place for place, name in enumerate(classes)}
    return LabelSets(classes, (), tuple(number[line.text("label")] for line in lines), notes)


def _parts(line: Line) -> list[str]:
    return [part.strip() for part in line.text("label").split(SEPARATOR)]


def _several(parted: Iterable[Line], lines: Iterable[Line]) -> bool:
    """Whether a part of a label with a `;` also stands in another label."""
    texts = {alike(line.text("label")): {alike(part) for part in _parts(line)} for line in lines}
    stands_in = Counter(part for parts in texts.values() for part in parts if part)
    return any(stands_in[alike(part)] > 1 for line in parted for part in _parts(line))


def _notes(
    table: Path, lines: Sequence[Line], parted: Sequence[Line], several: bool, labels: Labels | None, quiet: int
) -> Iterable[Note]:
    """What was decided, and how many lines are `quiet`: of none of the classes."""
    if parted and several:
        first = parted[0]
        undo = "" if labels else " Where such a label is one class's name: --set data.labels=single."
        yield Note(
            "labels",
            f"{table}: {len(parted)} of {len(lines)} lines have several classes (line {first.number}: "
            f"{shown(first.text('label'))}) and {quiet} none: each class is answered for itself (multi-label).{undo}",
        )
    elif parted and labels is None:
        first = parted[0]
        yield Note(
            "labels",
            f"{table}: labels such as {shown(first.text('label'))} (line {first.number}) are taken for the name of one "
            "class. Where they are several classes: --set data.labels=multi.",
        )
    elif several:
        yield Note(
            "labels",
            f"{table}: no line has two classes, and data.labels = multi: each class is answered for itself all the "
            "same.",
        )


def _of_several(table: Path, lines: Sequence[Line], of_nothing: Collection[str], notes: tuple[Note, ...]) -> LabelSets:
    named = [(line, _named(line, of_nothing)) for line in lines]
    check_names((line, part) for line, parts in named for part in parts)
    classes = tuple(sorted({part for _, parts in named for part in parts}))
    _check_count(table, classes)
    number = {name: place for place, name in enumerate(classes)}
    members = [tuple(sorted(number[part] for part in parts)) for _, parts in named]
    for place, name in enumerate(classes):
        if all(place in each for each in members):
            raise InputError(
                f"{table}: class {shown(name)} is in every line, so nothing tells it from its absence. Add lines "
                f"without it ('{NOTHING}': of none of the classes), or take it out."
            )
    combinations = tuple(sorted(set(members)))
    label = {each: place for place, each in enumerate(combinations)}
    return LabelSets(classes, combinations, tuple(label[each] for each in members), notes)


def _named(line: Line, of_nothing: Collection[str]) -> list[str]:
    """The classes of a line, none where it says so."""
    text, parts = line.text("label"), _parts(line)
    if not text:
        raise line.error(f"has no label. Name its classes, or write '{NOTHING}' where it is of none of them.")
    if not all(parts):
        raise line.error(f"label {shown(text)}: an empty name beside a '{SEPARATOR}'. Write CLASS{SEPARATOR}CLASS.")
    plain = [alike(part) for part in parts]
    twice = next((part for part in parts if plain.count(alike(part)) > 1), None)
    if twice is not None:
        raise line.error(f"label {shown(text)}: {shown(twice)} is there twice.")
    nothing = next((part for part in parts if alike(part) in of_nothing), None)
    if nothing is None:
        return parts
    if len(parts) > 1:
        raise line.error(
            f"label {shown(text)}: {shown(nothing)} says that none of the classes is heard, and stands beside another."
        )
    return []


def _check_count(table: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        what = f"only one class ({classes[0]!r})" if classes else "no class"
        raise InputError(f"{table}: {what}; a classifier needs at least two.")

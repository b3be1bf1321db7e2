"""What is known of a data set, on a terminal: what is in it, whether its split leaks, what was decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.number_formats import NONE, decibels, interval, number, p_value, percent, ratio, setting, size
from edgekd.report.terminal import line, table, unlabelled_text

if TYPE_CHECKING:
    from edgekd.checks.audit import Audit
    from edgekd.checks.inspection import Inspection
    from edgekd.checks.prepare import Preparation
    from edgekd.checks.unlabelled_audit import UnlabelledAudit
    from edgekd.data.file_names import NamedFiles
    from edgekd.data.index import ClipIndex

LISTED = 5  # findings of a kind; --json has all


def print_inspection(inspection: Inspection) -> None:
    """Counts, formats and classes, then what may be wrong."""
    from edgekd.checks.inspection import QUIET_DB

    line(f"{inspection.dataset}: {inspection.root}")
    lengths = f"{number(inspection.median_s)} s"
    if inspection.longest_s - inspection.shortest_s >= 0.005:
        lengths = f"{interval(inspection.shortest_s, inspection.longest_s, number)} s, median {lengths}"
    table(
        ("", "found"),
        [
            ("clips", f"{inspection.clips} from {inspection.groups} groups (recordings or vessels)"),
            ("lengths", lengths),
            ("files", f"{inspection.files}, {number(inspection.hours)} hours"),
            ("rates", _counts(inspection.rates, " Hz")),
            ("channels", _counts(inspection.channels)),
            ("formats", _counts(inspection.formats)),
        ],
    )
    columns = ("clips", "groups", "minutes", "share", "level dB")
    minutes = sum(each.minutes for each in inspection.classes)
    table(
        ("class", *columns),
        [
            (
                each.name,
                str(each.clips),
                str(each.groups),
                number(each.minutes),
                percent(each.minutes / minutes),
                NONE if each.level_db is None else decibels(each.level_db),
            )
            for each in inspection.classes
        ],
        numbers=columns,
    )
    if inspection.imbalance is None:
        line("Balance: a class has nothing that can be read.")
    else:
        line(f"Balance: the largest class has {ratio(inspection.imbalance)} times the minutes of the smallest.")
    silent = f" ({_some(inspection.silent)})" if inspection.silent else ""
    quiet = f"{inspection.quiet} more below {setting(QUIET_DB)} dB"
    line(f"Silence: {len(inspection.silent)} clip(s) digital{silent}, {quiet}.")
    line(
        f"Clipping: {percent(inspection.clipped_share)} of all samples at full scale; files above 0.1%: "
        f"{len(inspection.clipped)}."
    )
    clipped = sorted(inspection.clipped.items(), key=lambda pair: -pair[1])
    _list([f"{name}: {percent(share)}" for name, share in clipped])
    line(f"Duplicates: {len(inspection.duplicates)} set(s) of files that decode to the same samples.")
    _list(
        [
            " = ".join(each.files) + (f"  LABELS DIFFER: {', '.join(each.classes)}" if each.labels_differ else "")
            for each in sorted(inspection.duplicates, key=lambda each: not each.labels_differ)
        ]
    )
    line(f"Unreadable: {len(inspection.unreadable)} file(s).")
    _list([f"{name}: {why}" for name, why in inspection.unreadable.items()])
    for note in inspection.notes:
        line(f"Note: {note}")


def print_audit(audit: Audit, index: ClipIndex) -> None:
    """The sides, what tells the classes besides the sound, and what leaks."""
    sides = ", ".join(f"{side} {count}" for side, count in audit.clips.items())
    line(f"{index.dataset}: {index.root}")
    line(f"Clips: {sides}; {audit.groups} groups (recordings or vessels).")
    if audit.attributes:
        columns = ("values", "Cramer's V", "p", "tells class", "chance")
        table(
            ("attribute", *columns),
            [
                (
                    each.name,
                    str(each.values),
                    number(each.cramers_v),
                    p_value(each.p),
                    percent(each.share),
                    percent(each.chance),
                )
                for each in audit.attributes
            ],
            numbers=columns,
        )
    for heading, findings in (("Leak", audit.leaks), ("Warning", audit.warnings)):
        for kind in dict.fromkeys(each.kind for each in findings):
            messages = [each.message for each in findings if each.kind == kind]
            for message in messages[:LISTED]:
                line(f"{heading}: {message}")
            if messages[LISTED:]:
                line(f"  and {len(messages) - LISTED} more of this kind (--json lists all)")
    searched = "no group and no near-duplicate audio" if audit.searched else "no group"
    if not audit.leaks:
        line(f"No leak: {searched} is on two sides.")


def print_unlabelled_audit(audit: UnlabelledAudit) -> None:
    """How much of the audio without labels may teach, and what is left out because it is scored."""
    line(unlabelled_text(audit.to_dict()))
    _list(
        [
            f"{each.file} at {each.start_s:g} s: {each.of} ({each.side}), "
            + ("the same group" if each.correlation is None else f"{percent(each.correlation)} in phase")
            for each in audit.shared
        ]
    )


def print_named_files(named: NamedFiles) -> None:
    """The first rows of a manifest, how much of each label there is, and what does not fit."""
    table(named.columns, [tuple(row[column] for column in named.columns) for row in named.rows[:LISTED]])
    line(f"Files: {len(named.rows)} in {named.groups} groups" + _ungrouped(named))
    line(f"Labels: {_counts(named.labels)}")
    if named.unfit:
        line(f"Left out: {len(named.unfit)} file(s) whose names do not fit.")
        _list(named.unfit)


def _ungrouped(named: NamedFiles) -> str:
    return "." if "group" in named.columns else ", each file its own: the pattern has no {group}."


def print_preparation(prepared: Preparation) -> None:
    """What is decoded, how fast that went, and where it is."""
    clips = f"{prepared.clips} clips of {setting(prepared.clip_seconds)} s at {prepared.sample_rate} Hz"
    factor = prepared.real_time_factor
    if factor is None:
        line(f"{clips}: all there already, checked in {number(prepared.seconds)} s.")
    else:
        speed = f"{number(1 / factor)} times as fast as they play"
        line(f"{clips}: {prepared.decoded} decoded in {number(prepared.seconds)} s, {speed}.")
    line(f"Cache: {prepared.folder} ({size(prepared.bytes)})")


def _counts(values: Mapping[Any, int], unit: str = "") -> str:
    if len(values) == 1:
        return f"{next(iter(values))}{unit}"
    common = sorted(values.items(), key=lambda pair: -pair[1])
    more = f" and {len(common) - LISTED} more" if common[LISTED:] else ""
    return ", ".join(f"{value}{unit} ({count})" for value, count in common[:LISTED]) + more


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if names[2:] else "")


def _list(lines: Sequence[str]) -> None:
    for entry in lines[:LISTED]:
        line(f"  {entry}")
    if lines[LISTED:]:
        line(f"  and {len(lines) - LISTED} more (--json lists all)")

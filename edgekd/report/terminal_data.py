"""What is known of a data set, on a terminal: what is in it, whether its split leaks, what was decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.number_formats import NONE, decibels, interval, number, p_value, percent, ratio, setting, size, span
from edgekd.report.terminal import line, table, unlabelled_text

if TYPE_CHECKING:
    from edgekd.checks.audit import Audit, Finding
    from edgekd.checks.inspection import Inspection
    from edgekd.checks.joined_groups import JoinedGroups
    from edgekd.checks.prepare import Preparation
    from edgekd.checks.unlabelled_audit import UnlabelledAudit
    from edgekd.data.deployments import Beginnings, Deployment
    from edgekd.data.file_names import NamedFiles
    from edgekd.data.index import ClipIndex
    from edgekd.data.walk import Reason

LISTED = 5  # findings of a kind; --json has all


def print_inspection(inspection: Inspection) -> None:
    """Counts, formats and classes, then what may be wrong."""
    from edgekd.checks.inspection import QUIET_DB

    line(f"{inspection.dataset}: {inspection.root}")
    differing = [zip(each.files, each.classes, strict=True) for each in inspection.duplicates if each.labels_differ]
    if differing:
        line(f"Two labels: {len(differing)} set(s) of files with the same audio; one label is wrong.")
        _list([" = ".join(f"{file} ({name})" for file, name in files) for files in differing])
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
    quiet = f"{inspection.quiet} more below {setting(QUIET_DB)} dB"
    line(f"Silence: {len(inspection.silent)} clip(s) digital{_named(inspection.silent)}, {quiet}.")
    line(f"Constant: {len(inspection.constant)} clip(s) of one value throughout{_named(inspection.constant)}.")
    if max(inspection.channels) > 1:
        channel = inspection.fitting.channel
        helps = "" if channel is None else f"; --set data.channel={channel} hears one"
        line(
            f"Channels: {len(inspection.cancelled)} clip(s) lost when they are averaged, in opposite phase"
            f"{_named(inspection.cancelled)}{helps}; files with a dead one: {len(inspection.dead_channels)}."
        )
        _list([f"{name}: {', '.join(map(str, dead))}" for name, dead in inspection.dead_channels.items()])
    line(
        f"Clipping: {percent(inspection.clipped_share)} of all samples at full scale; files above 0.1%: "
        f"{len(inspection.clipped)}."
    )
    clipped = sorted(inspection.clipped.items(), key=lambda pair: -pair[1])
    _list([f"{name}: {percent(share)}" for name, share in clipped])
    also = f" ({len(differing)} above)" if differing else ""
    line(f"Duplicates: {len(inspection.duplicates)} set(s) of files that decode to the same samples{also}.")
    _list([" = ".join(each.files) for each in inspection.duplicates if not each.labels_differ])
    line(f"Unreadable: {len(inspection.unreadable)} file(s).")
    _list([f"{name}: {why}" for name, why in inspection.unreadable.items()])
    _print_left_out(inspection.left_out)
    for note in inspection.notes:
        line(f"Note: {note}")


def print_audit(audit: Audit, index: ClipIndex) -> None:
    """The sides, what tells the classes besides the sound, and what leaks."""
    sides = ", ".join(f"{side} {count}" for side, count in audit.clips.items())
    line(f"{index.dataset}: {index.root}")
    line(f"Clips: {sides}; {audit.groups} groups (recordings or vessels).")
    _print_findings("Two labels", audit.contradictions)
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
    for note in audit.notes:
        line(f"Note: {note}")
    _print_findings("Leak", audit.leaks)
    _print_findings("Warning", audit.warnings)
    _print_left_out(audit.left_out)
    searched = "no group and no near-duplicate audio" if audit.searched else "no group"
    if not audit.leaks:
        line(f"No leak: {searched} is on two sides.")


def print_joined_groups(joined: JoinedGroups) -> None:
    """How many groups were written, where they are to lie, and whether they can still be split."""
    largest = f"the largest has {joined.largest} of {joined.clips} clips"
    line(f"Groups: {joined.file}: {joined.after}, of {joined.before} before; {largest}.")
    if joined.file.resolve() != joined.beside.resolve():
        line(f"  It counts as {joined.beside}: copy it there.")
    if joined.parted:
        line(
            f"  The data set's own split parts {joined.parted} of them: beside this file, training refuses a split "
            "that does. By group instead: --set data.given_split=false."
        )
    for name in joined.too_few:
        line(f"  Class '{name}' now has too few groups for a split: add recordings.")


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
    _print_left_out(audit.left_out)


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
    for warning in prepared.warnings:
        line(f"Warning: {warning}")


def _print_findings(heading: str, findings: Sequence[Finding]) -> None:
    for kind in dict.fromkeys(each.kind for each in findings):
        messages = [each.message for each in findings if each.kind == kind]
        for message in messages[:LISTED]:
            line(f"{heading}: {message}")
        if messages[LISTED:]:
            line(f"  and {len(messages) - LISTED} more of this kind (--json lists all)")


def _print_left_out(left_out: Sequence[Reason]) -> None:
    """What lies in the folder and is no clip, a line a reason."""
    if left_out:
        line(f"Left out: {sum(each.count for each in left_out)} file(s) or folder(s).")
    for each in left_out:
        line(f"  {each}")


def _counts(values: Mapping[Any, int], unit: str = "") -> str:
    if len(values) == 1:
        return f"{next(iter(values))}{unit}"
    common = sorted(values.items(), key=lambda pair: -pair[1])
    more = f" and {len(common) - LISTED} more" if common[LISTED:] else ""
    return ", ".join(f"{value}{unit} ({count})" for value, count in common[:LISTED]) + more


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:2])}{', ...' if names[2:] else ''})" if names else ""


def _list(lines: Sequence[str]) -> None:
    for entry in lines[:LISTED]:
        line(f"  {entry}")
    if lines[LISTED:]:
        line(f"  and {len(lines) - LISTED} more (--json lists all)")


def print_times(named: Beginnings, found: Sequence[Deployment]) -> None:
    """The deployments in a table, and what is odd about them."""
    if not found:
        line("No recording is named by a time. Say where it stands: --time-pattern '%Y%m%d_%H%M%S'.")
        return
    columns = ("files", "from", "to", "recorded")
    rows = []
    for each in found:
        first, last = (
            part.beginning.order.isoformat(" ", timespec="minutes") for part in (each.parts[0], each.parts[-1])
        )
        rows.append((each.name or NONE, str(len(each.parts)), first, last, span(each.seconds)))
    table(("deployment", *columns), rows, numbers=columns)
    known = {beginning.utc is not None for beginning in named.times.values()}
    zone = "UTC" if known == {True} else "as recorders' clocks had them" if known == {False} else "UTC where known"
    line(f"Times: {zone}.")
    for note in (*named.notes, *(note for each in found for note in each.notes())):
        line(f"Note: {note}")

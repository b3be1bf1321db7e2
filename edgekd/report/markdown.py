"""`report.md`: a profile for a pull request, in GitHub's Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from edgekd.escaping import html_text, markdown_command, markdown_text
from edgekd.number_formats import NONE, percent
from edgekd.report.figures import UNKNOWN_HEADS, class_rows, known_figures, of_classes, row, unknown_rows
from edgekd.report.machines import machine_rows
from edgekd.report.results import Profile


def report_markdown(profile: Profile) -> str:
    """The verdict, one table, notes, and the rest folded away."""
    parts = [f"## Profile{f' on {markdown_text(profile.dataset)}' if profile.dataset else ''}"]
    parts += [f"**{markdown_text(sentence)}**" for sentence in profile.verdict]
    parts.append(_figures(profile))
    scored = [subject for subject in profile.subjects if subject.scores]
    clips = f" Scored on {markdown_text(profile.clips)}." if scored else ""
    parts.append(f"★ best value of its row. Intervals are 95%.{clips}")
    if profile.notes:
        parts.append("\n".join(f"> - {markdown_text(note)}" for note in profile.notes))
    classes = class_rows(profile)
    if classes:
        rows = [[name, *(NONE if share is None else percent(share) for share in shares)] for name, shares in classes]
        parts.append(_folded(of_classes(profile)[0], _table(["class", *(subject.name for subject in scored)], rows)))
    unknown = unknown_rows(profile)
    if unknown:
        parts.append(_folded("Sounds of no class", _table(UNKNOWN_HEADS, unknown)))
    machines, rows = machine_rows(profile)
    parts.append(_folded("Where times were taken", _table(["", *machines], rows)))
    if profile.command:
        parts.append(markdown_command(shlex.join(profile.command)))
    parts.append(f"edgekd {markdown_text(profile.edgekd)}, {markdown_text(profile.created)}")
    return "\n\n".join(parts) + "\n"


def _figures(profile: Profile) -> str:
    """A row a figure, a column a subject."""
    rows = [row(subject) for subject in profile.subjects]
    lines = []
    for figures in known_figures(rows).values():
        for figure in figures:
            winners = figure.winners(rows)
            cells = []
            for index, values in enumerate(rows):
                interval = figure.interval(values)
                cells.append(
                    figure.value(values) + (f" ({interval})" if interval else "") + (" ★" if index in winners else "")
                )
            lines.append([figure.label, *cells])
    return _table(["", *(subject.name for subject in profile.subjects)], lines)


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{html_text(summary)}</summary>\n\n{content}\n\n</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    lines = [[markdown_text(cell) for cell in head], rule, *([markdown_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

"""Parts that the sections of `report.html` are put together from. Whatever they are given as text, they escape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.escaping import html_text
from edgekd.number_formats import NONE, percent
from edgekd.report.results import Profile
from edgekd.report.svg import SERIES, marker


def figure(title: str, caption: str, svg: str, behind: str, legend: str = "") -> str:
    """A chart and, folded away `behind` it, the table of its figures; "" without a chart."""
    if not svg:
        return ""
    return (
        f"<figure><figcaption><h3>{html_text(title)}</h3><p>{html_text(caption)}</p></figcaption>{svg}{legend}"
        f'<details><summary>Data table<span class="unseen"> of: {html_text(title)}</span></summary>{behind}</details>'
        "</figure>"
    )


def table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column heads its rows. `kind` "words" is set flush left, as it holds more than numbers."""
    head = "".join(f'<th scope="col">{html_text(cell)}</th>' if cell else "<td></td>" for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{html_text(name)}</th>{"".join(f"<td>{html_text(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in lines
    )
    opening = f'<table class="{kind}">' if kind else "<table>"
    return scrolled(
        caption, f"{opening}{captioned(caption)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def explained(caption: str, heads: Sequence[str], lines: Sequence[tuple[str, ...]]) -> str:
    """A table of lines whose last cell says how they came about; below it, once, where that is the same for all."""
    if not lines:
        return ""
    how = {line[-1] for line in lines}
    if len(how) > 1:
        return table(caption, (*heads, "how"), lines, "words")
    return f"{table(caption, heads, [line[:-1] for line in lines])}<p>{html_text(how.pop())}</p>"


def share_cell(share: float | None) -> str:
    """A cell with a share and a bar of its length."""
    if share is None:
        return f"<td>{NONE}</td>"
    return f'<td><span class="share" style="--v:{100 * share:.1f}%">{html_text(percent(share))}</span></td>'


def captioned(caption: str) -> str:
    """A `<caption>` that stays in sight while the table below it is scrolled."""
    return f"<caption><span>{html_text(caption)}</span></caption>"


def scrolled(label: str, content: str, kind: str = "") -> str:
    """A wide table scrolls by itself, with the keyboard too; the page does not."""
    classes = f"scroll {kind}".strip()
    return f'<div class="{classes}" role="region" aria-label="{html_text(label)}" tabindex="0">{content}</div>'


def legend(profile: Profile, series: Iterable[int], lines: bool = False) -> str:
    """What marks the subjects with the numbers `series` in a chart; with `lines`, in a chart of curves."""
    items = (
        f"<li>{key(number, lines)}<span>{html_text(profile.subjects[number].name)}</span></li>" for number in series
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def key(series: int, line: bool = False) -> str:
    """The marker of the subject with the number `series`, on its line in charts that have lines."""
    if not line:
        return f'<svg class="key alone" viewBox="-8 -8 16 16" aria-hidden="true">{marker(series, 0, 0)}</svg>'
    curve = f'<path d="M-16 0L16 0" class="curve s{series % SERIES}"/>'
    return f'<svg class="key" viewBox="-16 -8 32 16" aria-hidden="true">{curve}{marker(series, 0, 0, size=4)}</svg>'

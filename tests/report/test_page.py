"""`report.html`, as a parser of HTML sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgekd.report.page import report_html
from edgekd.report.page_style import DARK, LIGHT
from edgekd.report.results import Profile
from tests.report.profiles import HARD, crowded

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page. Fails where a tag is not closed, or closed out of order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []  # name, attributes, names of its ancestors
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], "not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}, [*self._open]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self._open, f"<{tag}/> closes itself in SVG alone"
        self.elements.append((tag, {name: value or "" for name, value in attrs}, [*self._open]))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def every(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("variant", ["whole", "bare", "crowded"])
def test_the_page_is_well_formed_and_its_references_lead_somewhere(
    variant: str, sample_profile: Profile, bare_profile: Profile
) -> None:
    profile = {"whole": sample_profile, "bare": bare_profile, "crowded": crowded(sample_profile)}[variant]
    page = Page(report_html(profile))
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in page.elements:
        for named in attributes.get("aria-labelledby", "").split():
            assert named in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert [one["lang"] for one in page.every("html")] == ["en"]
    levels = [int(tag[1]) for tag, _, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.every("main")) == 1
    assert all(one.get("scope") in {"col", "row", "rowgroup"} for one in page.every("th"))
    tables = len(page.every("table"))
    assert tables == len(page.every("caption"))
    for _, attributes, _ in page.elements:
        if "scroll" in attributes.get("class", "").split():
            assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]


def test_every_chart_is_named_and_has_its_table_behind_it(sample_profile: Profile) -> None:
    page = Page(report_html(sample_profile))
    for place, (tag, attributes, _) in enumerate(page.elements):
        if tag == "svg" and "aria-hidden" not in attributes:
            assert attributes["role"] == "img"
            assert [name for name, _, _ in page.elements[place + 1 : place + 3]] == ["title", "desc"]
    inside = [("figure" in around, "details" in around) for tag, _, around in page.elements if tag == "table"]
    figures = len(page.every("figure"))
    assert figures == 2 + 2 + 3 + 4  # two subjects share a confusion matrix
    assert inside.count((True, True)) == figures


def test_the_page_may_fetch_nothing_and_runs_nothing(sample_profile: Profile) -> None:
    text = report_html(sample_profile)
    page = Page(text)
    policy = next(one["content"] for one in page.every("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not page.every("script") and not page.every("img") and not page.every("iframe")
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert not [name for _, attributes, _ in page.elements for name in attributes if name.startswith("on")]


def test_what_users_named_is_escaped(sample_profile: Profile) -> None:
    subject = sample_profile.subjects[0]
    assert subject.scores
    named = {"name": HARD, "source": HARD, "host": HARD, "architecture": HARD, "runtime": HARD}
    layer = subject.layers[0].model_copy(update={"name": HARD, "operator": HARD, "precision": HARD})
    classes = (HARD, *subject.scores.classes[1:])
    scores = subject.scores.__class__(**{**subject.scores.__dict__, "classes": classes})
    hard = subject.model_copy(update=named | {"layers": (layer,), "scores": scores})
    changes: dict[str, Any] = {"dataset": HARD, "clips": HARD, "created": HARD, "edgekd": HARD, "noise": HARD}
    changes |= {"verdict": (HARD,), "notes": (HARD,), "command": ("edgekd", HARD), "environment": {HARD: HARD}}
    changes |= {"baseline": HARD, "clips_digest": HARD, "subjects": (hard,)}
    text = report_html(sample_profile.model_copy(update=changes))
    page = Page(text)
    assert not page.every("script") and "<script" not in text
    assert page.text.count(HARD) > 20


def test_what_is_not_there_gets_no_section(sample_profile: Profile, bare_profile: Profile) -> None:
    page = Page(report_html(bare_profile))
    headings = {"key-figures", "accuracy-and-time", "machine-and-environment", "make-this-report-again", "glossary"}
    assert {attributes["id"] for attributes in page.every("h2")} == headings
    assert "None" not in page.text and "nan" not in page.text
    unasked = bare_profile.model_copy(update={"command": ()})
    assert "make-this-report-again" not in report_html(unasked)
    whole = Page(report_html(sample_profile))
    assert headings < {attributes["id"] for attributes in whole.every("h2")}


def test_a_busy_machine_makes_the_notes_stand_out(sample_profile: Profile) -> None:
    assert '<section class="notes warn"' in report_html(sample_profile)
    calm = sample_profile.model_copy(
        update={"machine": sample_profile.machine.model_copy(update={"busy": False, "throttled": ()})}
    )
    assert '<section class="notes"' in report_html(calm)
    first, *rest = calm.subjects
    restless = first.model_copy(update={"latency": first.latency.model_copy(update={"settled": False})})
    assert '<section class="notes warn"' in report_html(calm.model_copy(update={"subjects": (restless, *rest)}))


def test_many_classes_get_a_list_of_mistakes_instead_of_a_table_of_cells(sample_profile: Profile) -> None:
    subject = sample_profile.subjects[0]
    assert subject.scores
    cells = np.eye(50, dtype=int) * 4
    cells[3, 7] = 2
    values = subject.scores.to_dict() | {"classes": [f"class {place}" for place in range(50)], "recall": [1.0] * 50}
    scores = subject.scores.from_dict(values | {"confusion": cells.tolist()})
    alone = sample_profile.model_copy(update={"subjects": (subject.model_copy(update={"scores": scores}),)})
    text = report_html(alone)
    Page(text)
    assert '<th scope="row">class 3</th><td>class 7</td><td>2</td>' in text


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_series_stand_out_from_what_is_behind_them(colours: dict[str, str]) -> None:
    for letters, behind in [
        *((letters, behind) for letters in ("ink", "quiet", "link") for behind in ("page", "card")),
        *(("ink", "warned"), ("warn", "warned")),
        *((f"on{shade}", f"h{shade}") for shade in range(1, 7)),
    ]:
        assert contrast(colours[letters], colours[behind]) >= 4.5, (letters, behind)
    for series in range(8):
        assert contrast(colours[f"s{series}"], colours["page"]) >= 3, series
    shades = [contrast(colours[f"h{shade}"], colours["page"]) for shade in range(1, 7)]
    assert shades == sorted(shades), "more clips, further from the page"


def test_no_control_character_is_in_the_page(sample_profile: Profile) -> None:
    hard = "a\x1b[31m\u202eb\nc"
    subject = sample_profile.subjects[0].model_copy(update={"name": hard, "source": hard})
    changes: dict[str, Any] = {
        "notes": (hard,),
        "verdict": (hard,),
        "subjects": (subject,),
        "command": ("edgekd", hard),
    }
    text = report_html(sample_profile.model_copy(update=changes))
    assert "\x1b" not in text and "\u202e" not in text
    assert "a\\x1b[31m\\u202eb c" in text
    assert "\nc" in text[text.index("<pre") :], "a command keeps its line breaks"

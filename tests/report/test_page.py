"""`report.html`, as a parser of HTML sees it and as a real browser shows it.

The browser is a headless Chromium, spoken to in its DevTools protocol over a pipe. It cannot look up any host.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.report.page import report_html
from edgekd.report.page_style import DARK, LIGHT
from edgekd.report.results import Profile, Subject

VOID = {"meta", "link", "br", "hr", "img", "input"}
HARD = "<script>document.title='taken'</script>&\"' | `é`"
LONG = "runs/a-very-long-name-of-a-run-2026-11-20-with-no-space-in-it/student-number-"


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


def crowded(profile: Profile) -> Profile:
    """Eight subjects with long names, one of them hard, of which two score and take the same."""
    subjects: list[Subject] = []
    for place in range(8):
        one = profile.subjects[place % 4]
        subjects.append(one.model_copy(update={"name": f"{HARD}{place}" if place == 1 else f"{LONG}{place}"}))
    return profile.model_copy(update={"subjects": tuple(subjects), "verdict": profile.verdict * 4})


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


class Browser:
    """A Chromium that is told what to do over a pipe. See https://chromedevtools.github.io/devtools-protocol/."""

    def __init__(self, program: str, profile: Path) -> None:
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        # The browser reads from descriptor 3 and writes to 4, which this process may use for something else.
        start = (
            "import os, sys; read, write = (os.dup2(int(one), 20 + i) for i, one in enumerate(sys.argv[1:3])); "
            "os.dup2(read, 3); os.dup2(write, 4); os.execv(sys.argv[3], sys.argv[3:])"
        )
        command = [sys.executable, "-c", start, str(there), str(back), program, *flags, "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(there, back), stdin=quiet, stdout=quiet, stderr=quiet)
        os.close(there)
        os.close(back)
        self.events: list[dict[str, Any]] = []
        self._unread, self._sent, self._session = b"", 0, ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: object) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        os.write(
            self._to, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            read = os.read(self._from, 1 << 20)
            assert read, "the browser ended"
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int = 1100, scheme: str = "light", media: str = "") -> None:
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=path.as_uri())
        while not self.of("Page.loadEventFired"):
            self.events.append(self._next())

    def of(self, method: str) -> list[dict[str, Any]]:
        """What the browser told of `method` since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def ask(self, expression: str) -> Any:
        answer = self("Runtime.evaluate", expression=f"JSON.stringify({expression}) ?? null", returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return json.loads(answer["result"]["value"] or "null")

    def picture(self, box: dict[str, float] | None = None) -> np.ndarray:
        """Pixels `(H, W, 3)` from 0 to 255 of the page, or of a part of it."""
        from matplotlib.image import imread

        more = {"clip": box | {"scale": 1}} if box else {}
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, **more)
        return np.round(255 * imread(io.BytesIO(base64.b64decode(shot["data"])))[..., :3]).astype(int)

    def close(self) -> None:
        os.close(self._to)  # it ends when nobody can talk to it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(names)} is installed")
    found = Browser(program, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(sample_profile: Profile, bare_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"whole": sample_profile, "crowded": crowded(sample_profile), "bare": bare_profile}
    for name, profile in made.items():
        (folder / f"{name}.html").write_text(report_html(profile), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["whole", "crowded", "bare"])
def test_it_loads_without_errors_and_nothing_is_fetched(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name])
    requests = [one["request"]["url"] for one in browser.of("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    for trouble in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed"):
        assert browser.of(trouble) == []
    assert browser.ask("document.compatMode") == "CSS1Compat"


def test_the_browser_keeps_to_the_policy(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    wanting = '<img src="https://example.invalid/x.png"><script>document.title = "taken"</script>'
    path = tmp_path / "wanting.html"
    path.write_text(pages["whole"].read_text(encoding="utf-8").replace("<main", f"{wanting}<main"), encoding="utf-8")
    browser.open(path)
    assert browser.ask("document.title") == "Profile of esc10"
    refused = [one["entry"]["text"] for one in browser.of("Log.entryAdded")]
    assert len(refused) == 2 and all("Content Security Policy" in text for text in refused)


BOXES = """[...document.querySelectorAll('figure > svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  return {x: box.x, y: box.y + scrollY, width: box.width, height: box.height};
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_in_the_colours_of_their_series(
    scheme: str, browser: Browser, pages: dict[str, Path], sample_profile: Profile
) -> None:
    browser.open(pages["whole"], scheme=scheme)
    colours = LIGHT if scheme == "light" else DARK
    pixels = browser.picture()
    boxes = browser.ask(BOXES)
    assert len(boxes) == 11
    for place, box in enumerate(boxes):
        x, y = int(box["x"]), int(box["y"])
        chart = pixels[y : y + int(box["height"]), x : x + int(box["width"])].reshape(-1, 3)
        page = rgb(colours["page"])
        assert (np.abs(chart - page).sum(axis=1) < 12).mean() > 0.3, "the page shows through"
        series = [f"s{one}" for one in range(4)] if place < 4 else ["h6"] if place < 7 else ["s0"]
        for name in series:
            assert (np.abs(chart - rgb(colours[name])).sum(axis=1) < 12).sum() > 20, (place, name)


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])


def test_dark_is_dark_and_paper_is_always_light(browser: Browser, pages: dict[str, Path]) -> None:
    ask = "[document.body, document.querySelector('figure > svg text')].map(one => getComputedStyle(one))"
    colours = f"{ask}.map(style => [style.backgroundColor, style.fill])"
    inks = {}
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        browser.open(pages["whole"], scheme=scheme, media=media)
        inks[scheme, media] = browser.ask(colours)
    assert inks["light", ""] == inks["dark", "print"] != inks["dark", ""]
    assert inks["dark", ""][0][0] == "rgb({}, {}, {})".format(*rgb(DARK["page"]))
    assert browser.ask("[...document.querySelectorAll('nav, figure details')].every(one => !one.offsetParent)")


@pytest.mark.parametrize("name", ["whole", "crowded", "bare"])
def test_a_phone_scrolls_tables_but_never_the_page_sideways(
    name: str, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name], width=360)
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") == 360
    assert browser.ask("[...document.querySelectorAll('figure > svg')].every(one => one.clientWidth >= 320)")
    letters = "parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.clientWidth / 400"
    assert browser.ask(f"Math.min(...[...document.querySelectorAll('figure > svg text')].map(one => {letters}))") >= 10
    wide = browser.ask(
        "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    )
    assert (wide > 5) == (name != "bare")


INK = """[...document.querySelectorAll('figure > svg')].map(svg => [...svg.querySelectorAll('text')].map(one => {
  const box = one.getBoundingClientRect(), all = svg.getBoundingClientRect(), unit = all.width / 400;
  return [(box.left - all.left) / unit, (box.top - all.top) / unit, (box.right - all.left) / unit,
          (box.bottom - all.top) / unit, one.textContent];
}))"""


@pytest.mark.parametrize("width", [1100, 360])
@pytest.mark.parametrize("name", ["whole", "crowded"])
def test_letters_stay_in_their_chart_and_off_each_other(
    name: str, width: int, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name], width=width)
    for chart in browser.ask(INK):
        for left, _, right, _, word in chart:
            assert left > -16 and right < 416, word  # the page has a margin
        for place, one in enumerate(chart):
            for other in chart[place + 1 :]:
                across = min(one[2], other[2]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[1], other[1])
                assert across < 2 or down < 4, (one, other)


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["whole"])
    count = browser.ask("document.querySelectorAll('a, summary, [tabindex=\"0\"]').length")
    hidden = browser.ask("document.querySelectorAll('details .scroll').length")
    seen = []
    for _ in range(count - hidden):
        for kind in ("keyDown", "keyUp"):
            browser("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(
            browser.ask(
                "(one => [one.className || one.tagName, one.getBoundingClientRect().top + scrollY, "
                "getComputedStyle(one).outlineStyle, one.getBoundingClientRect().left >= 0])(document.activeElement)"
            )
        )
    assert seen[0][0] == "skip" and seen[0][3], "the first stop leads past the links, and is seen"
    kinds = [kind for kind, _, _, _ in seen]
    assert kinds.count("A") == 10 and kinds.count("SUMMARY") == 11 and kinds.count("PRE") == 1
    assert "scroll long" in kinds
    assert {outline for _, _, outline, _ in seen} == {"solid"}


def test_a_screen_reader_gets_a_name_for_every_picture_table_and_region(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["whole"])
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    pictures = named.get("image", []) + named.get("img", [])
    assert len(pictures) == 11 and all(pictures)
    assert len(named["table"]) >= 18 and all(named["table"])
    assert all(named["region"]) and all(named["heading"]) and all(named["link"])
    assert named["RootWebArea"] == ["Profile of esc10"]
    assert "main" in named and "banner" in named and "contentinfo" in named and "navigation" in named


def test_it_prints_to_a_few_pages_without_pictures_of_patterns(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], scheme="dark")
    pdf = base64.b64decode(browser("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 12
    assert len(pdf) < 2_000_000

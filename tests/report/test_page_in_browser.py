"""`report.html` as a real browser shows it: on a screen, a phone and paper, to a keyboard and a screen reader."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd.report.page import report_html
from edgekd.report.page_style import DARK, LIGHT
from edgekd.report.results import Profile
from tests.report.browser import Browser
from tests.report.profiles import crowded


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

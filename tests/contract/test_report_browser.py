"""The report in a real browser: nothing is cut off, on a phone neither; light, dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from modelrollout.report.page import page
from traces import everything

CHROMIUM = Path("/usr/bin/chromium")
WIDTHS = (390, 1280)
HOSTILE = "</style></svg><script>alert(1)</script><img src=x onerror=alert(2)>" + "w" * 200
BEYOND = """() => [...document.querySelectorAll('body *')]
  .filter(it => it.checkVisibility() && !it.closest('thead'))
  .map(it => [it, it.closest('svg') && it.tagName != 'svg' ? it.closest('svg').getBoundingClientRect() : {left: 0, right: innerWidth}, it.getBoundingClientRect()])
  .filter(([it, room, box]) => box.width && ['text', 'svg', 'td', 'h1', 'h3', 'div', 'p', 'span', 'code'].includes(it.tagName)
    && (box.left < room.left - 1 || box.right > room.right + 1))
  .map(([it]) => it.outerHTML.slice(0, 120))"""
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(it => it / 255)
      .map(it => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('h1, p, td, th, dt, dd, .badge, .stable, .candidate, svg text')]
    .filter(it => it.checkVisibility())
    .map(it => [it, getComputedStyle(it)[it.tagName == 'text' ? 'fill' : 'color']])
    .map(([it, colour]) => [it.outerHTML.slice(0, 90), light(colour)])
    .map(([it, ink]) => [it, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)])
    .filter(([it, ratio]) => ratio < 4.5)
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"These tests need {CHROMIUM}: run `e2e/cluster/cluster build`.")
    with sync_playwright() as playwright:
        # As root, as in a container, there is no sandbox; the page is our own.
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    found = {}
    for name, text in (("plain", "ranker-v2"), ("hostile", HOSTILE)):
        file = folder / f"{name}.html"
        file.write_text(page(everything(text)), encoding="utf-8")
        found[name] = file.as_uri()
    return found


@pytest.fixture
def look(browser, files) -> Iterator:
    """Open a report; what its console said, and what it asked for, must be nothing."""
    opened: list[Page] = []
    said: list[str] = []

    def open_it(name: str = "plain", width: int = 1280, scheme: str = "light") -> Page:
        found = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(found)
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        found.on("request", lambda it: it.url != files[name] and said.append(it.url))
        found.goto(files[name])
        return found

    yield open_it
    for each in opened:
        each.close()
    assert said == []


@pytest.mark.parametrize("name", ["plain", "hostile"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(width, name, look):
    found = look(name, width)

    assert found.evaluate("document.documentElement.scrollWidth") <= width
    assert found.evaluate(BEYOND) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_seen_once_in_the_drawing_for_this_width(width, look):
    found = look(width=width)

    boxes = [each.bounding_box() for each in found.locator("svg").all() if each.is_visible()]
    assert len(boxes) == found.locator(".picture").count() >= 10
    assert all(
        each and each["height"] > 60 and each["width"] > 0.8 * min(width, 960) - 40
        for each in boxes
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme, look):
    assert look(scheme=scheme).evaluate(CONTRAST) == []


def test_dark_is_dark_and_versions_keep_their_colours(look):
    colours = {}
    for scheme in ("light", "dark"):
        found = look(scheme=scheme)
        paper = found.evaluate("getComputedStyle(document.body).backgroundColor")
        line = "getComputedStyle(document.querySelector('%s')).color"
        colours[scheme] = (
            paper,
            *(found.evaluate(line % each) for each in (".line.stable", ".line.candidate")),
        )

    assert colours["light"][0] == "rgb(255, 255, 255)"
    assert colours["dark"][0] == "rgb(20, 23, 26)"
    assert len(set(colours["light"])) == len(set(colours["dark"])) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_no_picture_is_torn(scheme, look):
    found = look(scheme=scheme)
    found.emulate_media(media="print", color_scheme=scheme)

    assert found.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.evaluate(CONTRAST) == []
    inside = "getComputedStyle(document.querySelector('.picture')).breakInside"
    assert found.evaluate(inside) == "avoid"
    assert found.pdf(format="A4").startswith(b"%PDF")


def test_letters_on_a_phone_are_as_large_as_they_should_be(look):
    found = look(width=390)

    sizes = "() => [...document.querySelectorAll('svg.narrow text')].map(it => it.getBoundingClientRect().height)"
    assert min(each for each in found.evaluate(sizes) if each) >= 8

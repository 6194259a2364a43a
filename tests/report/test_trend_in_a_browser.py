"""The trend page as a person sees it: narrow and wide, light and dark, by keyboard."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.report import write_trend
from tests.report.browser import Browser, Look, browsing, found
from tests.report.nights import hostile_nights, three_alarms, three_weeks
from tests.tiers import slow

LOOKS = [Look(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]
LEAST_CONTRAST = 4.5
"""Of a text of normal size to its ground. Source: WCAG 2.2, success criterion 1.4.3 (AA)."""

TEXTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    const own = rgba(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own.slice(0, 3);
    return over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]);
  };
  const opacity = (element) =>
    element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const details of document.querySelectorAll('details')) details.open = true;
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest('.heard, .skip')) continue;
    const style = getComputedStyle(element), below = ground(element);
    const top = rgba(element.closest('svg') ? style.fill : style.color);
    const shown = over([...top.slice(0, 3), top[3] * opacity(element)], below);
    const [a, b] = [light(shown), light(below)];
    const box = element.closest('svg') ? element.getBoundingClientRect() : null;
    found.push({text, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
                size: box ? box.height : parseFloat(style.fontSize)});
  }
  return found;
})()
"""
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, .heard, .skip'))
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 120))
"""
CUT = """
[...document.querySelectorAll('.box, .tile, figure, .chip')].filter((e) => e.checkVisibility())
  .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
  .map((e) => e.outerHTML.slice(0, 120))
"""
SVG_TEXT_OUTSIDE = """
[...document.querySelectorAll('svg text')].filter((t) => {
  const own = t.getBoundingClientRect(), around = t.closest('svg').getBoundingClientRect();
  return own.left < around.left - 1 || own.right > around.right + 1;
}).map((t) => t.textContent)
"""


@pytest.fixture(scope="module")
@slow("starts a real browser")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = found()
    if program is None:
        pytest.skip("no browser here: chromium or google-chrome has to be on the PATH")
    with browsing(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trend(three_weeks(), three_alarms(), tmp_path_factory.mktemp("trend"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trend(*hostile_nights(), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module", params=["page", "hostile"])
def any_page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_nothing_is_wider_than_the_window(browser: Browser, any_page: Path, look: Look) -> None:
    browser.open(any_page, look)
    root = "document.documentElement"
    assert browser.value(f"{root}.scrollWidth") <= browser.value(f"{root}.clientWidth")
    assert browser.value(TOO_WIDE) == []
    assert browser.value(CUT) == []
    assert browser.value(SVG_TEXT_OUTSIDE) == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_every_text_can_be_read(browser: Browser, page: Path, look: Look) -> None:
    browser.open(page, look)
    texts: list[dict[str, Any]] = browser.value(TEXTS)
    assert len(texts) > 500
    assert [text for text in texts if text["ratio"] < LEAST_CONTRAST] == []
    assert [text for text in texts if text["size"] < 9.5] == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_the_picture_is_no_empty_one(browser: Browser, page: Path, look: Look) -> None:
    """What is drawn, not what is computed: ground and ink are where the scheme wants them."""
    browser.open(page, look)
    picture = Image.open(io.BytesIO(browser.screenshot())).convert("L")
    assert picture.width == look.width
    shades = picture.histogram()
    bright, dark = sum(shades[200:]), sum(shades[:60])
    assert (bright > dark) == (look.scheme == "light")
    assert min(bright, dark) > 0.005 * picture.width * picture.height


def test_no_request_leaves_the_page(browser: Browser, any_page: Path) -> None:
    browser.open(any_page, Look(1400))
    browser.value("new Promise(r => setTimeout(r, 300))")
    assert browser.requests == [any_page.resolve().as_uri()]
    assert browser.complaints == []


def test_what_names_hold_is_never_run(browser: Browser, hostile: Path) -> None:
    browser.open(hostile, Look(1400))
    assert browser.value("window.ran") is None
    assert browser.value("document.querySelectorAll('script, img, iframe').length") == 0


def test_the_page_forbids_requests_itself(browser: Browser, page: Path) -> None:
    browser.open(page, Look(1400))
    browser.value(
        "new Promise(r => {const i = new Image(); i.onerror = r; i.onload = r;"
        "i.src = 'http://127.0.0.1:9/x.png'})"
    )
    assert any("Content Security Policy" in said for said in browser.complaints)


def test_without_colour_the_endings_still_differ(browser: Browser, page: Path) -> None:
    """Every ending has a sign of its own, and green is never without its word."""
    browser.open(page, Look(1400))
    boxes = browser.value(
        "[...document.querySelectorAll('.legend .box')].map((e) => "
        "[e.textContent, getComputedStyle(e).borderStyle])"
    )
    assert len({tuple(box) for box in boxes}) == len(boxes)


def test_a_keyboard_reaches_the_cells_and_the_numbers(browser: Browser, page: Path) -> None:
    browser.open(page, Look(400))
    browser.press("Tab")
    assert browser.value("document.activeElement.textContent") == "Skip to the cells"
    browser.press("Enter")
    browser.press("Tab")
    assert browser.value("document.activeElement.closest('#cells') !== null")
    browser.value("document.querySelector('summary').focus()")
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter")
    assert browser.value("document.querySelector('details').open")
    assert browser.value("document.querySelector('details .runs').checkVisibility()")


def test_what_has_to_be_scrolled_can_be_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, Look(400))
    out_of_reach = (
        "[...document.querySelectorAll('.scroll')].filter((e) => e.tabIndex < 0 || "
        "!e.getAttribute('aria-label')).length"
    )
    assert browser.value(out_of_reach) == 0

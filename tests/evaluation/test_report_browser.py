"""The report in Chromium, opened from disk: it asks for nothing else, and filters, search and keyboard work."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spacy_gemel.evaluation.report import write_report
from tests.evaluation.test_report import EVIL, mention, run

pytestmark = pytest.mark.slow

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred mentions, a quarter wrong; without the image half of all; the first one explained."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "images").mkdir()
    Image.new("RGB", (900, 600), "red").save(folder / "images" / "red.jpg")
    full = [mention(n, right=n % 4 != 0) for n in range(100)]
    known = {"features": {"score": -0.5, EVIL: 2.0}, "parts": {"score": -0.75, EVIL: 1.25}}
    candidates = [{**candidate, **known} for candidate in full[0].candidates]
    shown = [{**full[0].demonstrations[0], "similarity": 0.5}]
    full[0] = replace(full[0], explanation={"candidates": candidates, "demonstrations": shown, "nil": 0.125})
    blind = [mention(n, right=n % 2 != 0) for n in range(100)]
    paths = [run(folder, "full", full), run(folder, "no-image", blind, use_image=False)]
    return write_report(paths, folder / "report")


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, opened; afterwards it must have asked for nothing, and complained of nothing."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, events = context.new_page(), []
    page.on("request", lambda request: events.append(request.url))
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert [event for event in events if not event.startswith("data:")] == [report.as_uri()]


def count_of(page: Any) -> str:
    return str(page.locator("#count").text_content()).split(" mentions")[0]


def test_filters(page: Any) -> None:
    assert count_of(page) == "100 of 100"
    for name, value, count in (
        ("verdict", "right", 75),
        ("verdict", "wrong", 25),
        ("entity", "seen", 50),
        ("entity", "tail", 20),
        ("image", "changed", 25),
        ("image", "helped", 25),
        ("image", "hurt", 0),
        ("image", "same", 75),
        ("features", "known", 1),
    ):
        page.select_option(f"select[name={name}]", value)
        assert count_of(page) == f"{count} of 100", (name, value)
        assert page.locator("article").count() == min(count, 24)
        page.click("button[type=reset]")
        page.locator("#count").filter(has_text="100 of").wait_for()
    page.select_option("select[name=verdict]", "right")
    page.select_option("select[name=entity]", "seen")
    assert count_of(page) == "25 of 100"


def test_search_ignores_case_and_accents(page: Any) -> None:
    page.fill("input[name=query]", "GÓLD 42")
    assert count_of(page) == "1 of 100"
    assert page.locator("article dd").first.text_content() == "gold 42"
    page.fill("input[name=query]", "no such name")
    assert count_of(page) == "0 of 100"


def test_cards_are_drawn_as_one_scrolls(page: Any) -> None:
    assert page.locator("article").count() == 24
    page.locator("article").last.scroll_into_view_if_needed()
    page.locator("article").nth(24).wait_for(state="attached")


def test_what_stands_on_a_card(page: Any) -> None:
    first = page.locator("article").first
    assert first.locator("li").filter(has_text="NIL").text_content() == "NIL0.13"
    first.locator("summary").first.click()
    cells = first.locator("tbody tr").first
    assert (cells.locator("th").text_content(), cells.locator("td").first.text_content()) == (EVIL, "2.00+1.25")
    first.locator("summary").last.click()
    assert "similarity 0.50" in first.locator("details li").text_content()
    assert page.locator("article :is(script, i i, [onerror])").count() == 0
    assert all(page.eval_on_selector_all("img", "images => images.map(each => each.alt.startsWith('Picture of'))"))


def test_by_keyboard(page: Any) -> None:
    page.focus("input[name=query]")
    page.keyboard.type("gold 0")
    assert count_of(page) == "1 of 100"
    for _ in range(6):  # the four selects, Reset, and the first thing to open on the card
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("article details[open]").count() == 1


def test_a_phone_and_the_dark(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    rects = "numbers => numbers.map(each => each.getClientRects().length)"
    assert set(page.eval_on_selector_all(".number", rects)) == {1}  # no number is broken over two lines
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(251, 250, 247)", "rgb(22, 24, 28)"]

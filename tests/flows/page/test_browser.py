"""The page in a real Chromium: what people see, click, type, print, and hear."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from flows.page import report, routes
from observability.history.store import History
from power.policy import override_file
from tests.flows.api.makers import TOKEN, Learned, Running, running
from tests.flows.makers import NAME, make_pipeline
from tests.flows.page.makers import HOSTILE, add_hostile
from tests.observability.history.makers import make_decision

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Whatever would leave this machine finds no name.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PAGE = f"/pages/{NAME}"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that is installed; no test downloads one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here: apt install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def served(told_once: Learned) -> Iterator[Running]:
    """The service with its pages, for all tests that change nothing."""
    with running(told_once, token=TOKEN, more=routes.opened) as found:
        yield found


@contextmanager
def watched(browser: Browser, url: str, path: str = PAGE, **options: Any) -> Iterator[Page]:
    """A page that fails its test for an error, a dialog, or a request to elsewhere."""
    wrong: list[str] = []
    context: BrowserContext = browser.new_context(
        viewport={"width": 1280, "height": 900}, **options
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda asked: wrong.extend(_elsewhere(asked.url, url)))
    try:
        page.goto(f"{url}{path}")
        yield page
    finally:
        context.close()
    assert [] == wrong


def _elsewhere(asked: str, url: str) -> list[str]:
    ours = asked.startswith("data:") or urlsplit(asked).netloc == urlsplit(url).netloc
    return [] if ours else [asked]


@pytest.fixture
def opened(browser: Browser, served: Running) -> Iterator[Page]:
    """The page, with JavaScript, on a wide and light screen."""
    with watched(browser, served.url) as page:
        yield page


def test_all_ten_answers_are_on_the_first_screen(opened: Page) -> None:
    """Ten questions in ten seconds: nobody scrolls for them."""
    answers = opened.locator(".answer")
    expect(answers).to_have_count(10)
    for each in answers.all():
        box = each.locator(".short").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900


def test_the_figures_are_those_of_the_history(opened: Page, told_once: Learned) -> None:
    """What a person reads is what SQL answers."""
    sql = "SELECT version FROM champion_periods WHERE ended_at IS NULL"
    version = History(told_once.home).ask(sql)["version"].to_pylist()[0]
    expect(opened.locator("#answer-serves .short")).to_contain_text(version)
    expect(opened.locator("#status")).to_contain_text("at position 1,000")


def test_marks_lie_at_their_moments(opened: Page, served: Running) -> None:
    """The share of the width is the share of the time, for every mark."""
    with served.client() as client:
        story = client.get(f"{PAGE}/story.json").json()
    places: dict[str, float] = opened.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("div.wide a[data-decision]")]
            .map((each) => [each, each.querySelector("circle").cx.baseVal.value])
            .map(([each, x]) => [each.dataset.decision, x]))"""
    )
    since, until = (_seconds(story[each]) for each in ("since", "until"))
    drawn = [each for each in story["marks"] if each["key"] in places]
    assert len(places) == len(drawn) > 5
    left, right = 72, 880
    for each in drawn:
        share = (_seconds(each["decided_at"]) - since) / (until - since)
        assert pytest.approx(left + share * (right - left), abs=1.0) == places[each["key"]]


def _seconds(moment: str) -> float:
    """A moment of the document, in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def test_a_click_on_a_mark_opens_its_sentence_numbers_and_sql(opened: Page) -> None:
    """Escape closes it, and the focus is where it was."""
    mark = opened.locator("div.wide a.mark.champion.yes").first
    mark.click()
    dialog = opened.get_by_role("dialog", name="promotion: yes")
    expect(dialog).to_contain_text("the first champion")
    expect(dialog).to_contain_text("holdout rows")
    expect(dialog).to_contain_text("question = 'promotion'")
    opened.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(mark).to_be_focused()


def test_all_of_it_can_be_reached_by_keyboard(opened: Page) -> None:
    """From the skip link to a mark, and into its decision."""
    opened.keyboard.press("Tab")
    expect(opened.get_by_role("link", name="Skip to the content")).to_be_focused()
    opened.keyboard.press("Enter")
    expect(opened.locator("main")).to_be_focused()
    for _ in range(60):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.matches('a.mark')"):
            break
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("dialog")).to_be_visible()


def test_the_focus_can_be_seen(opened: Page) -> None:
    """Of a link by its outline, and of a mark by its ring."""
    opened.locator("nav a").first.focus()
    opened.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert "solid" == opened.evaluate(outline)


def test_everything_has_a_name_and_headings_have_an_order(opened: Page) -> None:
    """What a screen reader goes by: landmarks, headings, names, tables with heads."""
    assert [1, 1, 1] == [
        opened.get_by_role(each).count() for each in ("banner", "main", "contentinfo")
    ]
    unnamed: list[str] = opened.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, summary, section, nav")]
            .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.length
                || each.getAttribute("aria-labelledby")))
            .map((each) => each.outerHTML)"""
    )
    assert [] == unnamed
    levels: list[int] = opened.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))"
    )
    assert 1 == levels[0]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    bare = "[...document.querySelectorAll('table')].filter((t) => !t.querySelector('th')).length"
    assert 0 == opened.evaluate(bare)


def test_a_table_stands_beside_each_picture(opened: Page) -> None:
    """With the same numbers, for who does not see it."""
    for name in ("scores", "margins", "marks"):
        summary = opened.locator("summary", has_text=f"The {name} as a table")
        summary.press("Enter")
        details = opened.locator(f"details[data-keep={name}]")
        assert details.locator("tbody tr").count() > 1
        expect(details.locator("tbody tr").first).to_be_visible()


CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, i) => sum + each * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const found = parts(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const each = node.parentElement;
    if (!node.textContent.trim() || !each.checkVisibility() || each.closest("title")) continue;
    const style = getComputedStyle(each);
    const ink = luminance(parts(each.closest("svg") ? style.fill : style.color));
    const paper = luminance(ground(each));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${node.textContent.trim().slice(0, 40)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, served: Running, scheme: str) -> None:
    """A contrast of 4.5 at the least, on light and on dark."""
    with watched(browser, served.url, color_scheme=scheme) as page:
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert [] == page.evaluate(CONTRAST)


def test_a_telephone_needs_no_scrolling_sideways(browser: Browser, served: Running) -> None:
    """And has a picture of its own, whose letters can be read."""
    with watched(browser, served.url) as page:
        page.set_viewport_size({"width": 390, "height": 800})
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert page.evaluate(wide)
        expect(page.locator("div.wide")).to_be_hidden()
        expect(page.locator("div.narrow svg")).to_be_visible()
        height = "document.querySelector('div.narrow svg text').getBoundingClientRect().height"
        assert page.evaluate(height) >= 10


def test_the_longest_name_of_a_pipeline_fits_a_telephone(browser: Browser, tmp_path: Path) -> None:
    """Also before its first run."""
    name = "a-" + 61 * "b"
    new = Learned(make_pipeline(tmp_path, name=name), tmp_path / "home")
    with (
        running(new, more=routes.opened) as served,
        watched(browser, served.url, f"/pages/{name}") as page,
    ):
        page.set_viewport_size({"width": 390, "height": 800})
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert page.evaluate(wide)


def test_a_print_has_the_answers_and_the_picture_and_no_forms(opened: Page) -> None:
    """What a person takes to a meeting."""
    opened.emulate_media(media="print")
    expect(opened.locator("form").first).to_be_hidden()
    expect(opened.locator("div.wide svg")).to_be_visible()
    clamp = "getComputedStyle(document.querySelector('.answer .why.clamp')).display"
    assert "block" == opened.evaluate(clamp)


def test_a_picture_to_zoom_into_is_drawn_by_the_services_own_plotly(opened: Page) -> None:
    """Under a policy without inline styles, and with the lines of the document."""
    opened.get_by_role("button", name="Zoom and compare").click()
    expect(opened.locator("#explore .main-svg").first).to_be_visible()
    names = opened.locator("#explore .legendtext").all_text_contents()
    assert {"served", "baseline", "batch", "online", "GPU-a"} <= set(names)


def test_without_javascript_all_can_be_read_and_decided(browser: Browser, told: Learned) -> None:
    """A mark leads to a page of its own, and a form works."""
    with (
        running(told, token=TOKEN, more=routes.opened) as served,
        watched(browser, served.url, java_script_enabled=False) as page,
    ):
        page.locator("div.wide a.mark.champion.yes").first.click()
        expect(page.get_by_role("heading", name="promotion: yes")).to_be_visible()
        page.goto(f"{served.url}{PAGE}")
        form = page.locator("form", has=page.get_by_label("Because"))
        form.get_by_label("Because").fill("work on the cooling")
        form.get_by_label("Token").fill(TOKEN)
        form.get_by_role("button", name="Override").click()
        expect(page.locator("main")).to_contain_text("The gate is closed until")
    found = override_file.read(told.places.override)
    assert found is not None
    assert "work on the cooling" == found.because


def test_the_page_shows_what_is_new_by_itself(browser: Browser, told: Learned) -> None:
    """But leaves alone what somebody has open."""
    with (
        running(told, token=TOKEN, more=routes.opened) as served,
        watched(browser, served.url) as page,
    ):
        page.locator("#decisions summary").first.click()
        before = page.locator("#state").inner_text()
        row = make_decision(pipeline=NAME, question="override", yes=True, because="by a person")
        History(told.home).commit([row], "one")
        expect(page.locator("#answer-people")).to_contain_text("by a person", timeout=WAIT_MS)
        expect(page.locator("#decisions details[open]")).to_have_count(1)
        assert before != page.locator("#state").inner_text()


def test_a_page_says_that_the_history_is_busy_and_when_it_is_not_any_more(
    browser: Browser, told: Learned
) -> None:
    """It keeps its answers meanwhile; a commit that waits makes it look."""
    with (
        running(told, token=TOKEN, more=routes.opened) as served,
        watched(browser, served.url) as page,
    ):
        history = History(told.home)
        with history.exclusive():
            history.commit([make_decision(pipeline=NAME)], "one")
            expect(page.locator("#connection")).to_contain_text(
                "cannot be read now", timeout=WAIT_MS
            )
            expect(page.locator("#answer-good .short")).not_to_contain_text("Not known")
        expect(page.locator("#connection")).to_be_empty(timeout=WAIT_MS)


def test_hostile_values_do_nothing(browser: Browser, told: Learned) -> None:
    """They are shown as they are, also in a dialog and in plotly's names."""
    add_hostile(told)
    with (
        running(told, token=TOKEN, more=routes.opened) as served,
        watched(browser, served.url) as page,
    ):
        page.locator("#decisions a[data-decision]").first.click()
        expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Zoom and compare").click()
        expect(page.locator("#explore .main-svg").first).to_be_visible()
        assert 0 == page.locator("img").count()


def test_a_report_needs_no_network_and_no_script(
    browser: Browser, told_once: Learned, tmp_path: Path
) -> None:
    """Opened as a file: a mark leads to its decision, which opens."""
    now = datetime.now(UTC)
    file = tmp_path / "report.html"
    file.write_text(report.html(report.collect(told_once.places, [NAME], now), now))
    with watched(browser, file.as_uri(), "", java_script_enabled=False) as page:
        expect(page.locator(".answer")).to_have_count(10)
        page.locator("a.mark.champion.yes").first.click()
        expect(page.get_by_role("heading", name="promotion: yes")).to_be_visible()

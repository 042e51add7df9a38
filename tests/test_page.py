"""The HTML report in a real browser: it sorts, filters, unfolds and links, fetches nothing, and fits narrow screens."""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

from experiments.reporting.findings import Findings
from experiments.reporting.page import ASSETS, Picture, page
from experiments.runs.record import read
from tests.runs import DENSE, PPL, losses, metrics, put

HOSTILE = "<script>window.broken = true</script> <img src=x onerror='window.broken = true'> & NaN"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1280" height="480" viewBox="0 0 640 240"></svg>'
FIRST = PPL  # title of the first metric's column
NAMES = (
    "[...document.querySelectorAll('#table > tbody')].filter(b => !b.hidden).map(b => b.rows[0].cells[%d].innerText)"
)


def write(top: Path) -> Path:
    """Runs of one model, three seeds of a method among them, and the page over them."""
    put(top, "dense", metrics=DENSE, sparsity=0.0)
    for name, value in (("magnitude", 101.0), ("besa", 9.5), ("random", float("inf")), ("owl", float("nan"))):
        put(top, name, metrics=metrics(value))
    for seed, value in ((10, 24.0), (2, 26.0), (1, 22.0)):
        config = {"model": {"path": "demo"}, "seed": seed, "data": {"seed": seed}}
        losses(put(top, "wanda", metrics=metrics(value), identity=f"{seed:010}", config=config), [3.0, 3.2, 3.1])
    put(top, "wanda", "2of4", metrics(30.0), retries=[{"error": HOSTILE, "batch": 4}])
    put(top, "magnitude", "2of4", metrics(40.0))
    put(top, "gblm", "2of4", metrics={})  # done, but nothing was measured
    put(top, HOSTILE.replace("/", "\\"), metrics=metrics(50.0))
    put(top, "slow", status="failed", error=HOSTILE, traceback=f"Traceback\n{HOSTILE}", command=f"run {HOSTILE}")
    put(top, "half", metrics={}).joinpath("results.json").write_text(HOSTILE)
    (top / "figures").mkdir()
    for ending in ("svg", "png", "pdf"):
        (top / "figures" / f"curve.{ending}").write_text(SVG)
    picture = Picture("curve", "A curve", "What it shows.")
    to = top / "report.html"
    to.write_text(page(Findings(read([top])), [picture], top), encoding="utf-8")
    return to


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"))


@pytest.fixture
def show(browser, written):
    """Opens the page; whatever the console says, and every request but the one for the page, is kept and refused."""
    said, opened = [], []

    def visit(hash="", width=1280, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url) if not request.is_navigation_request() else None)
        tab.goto(written.as_uri() + hash)
        opened.append(context)
        return tab

    yield visit
    urls = [line for line in said if not line.startswith("data:")]
    for context in opened:
        context.close()
    assert not urls


def open_all(tab) -> None:
    """Every run and whatever folds in it, whose details are written only then."""
    unfold = "document.querySelectorAll('details').forEach(d => d.open = true)"
    tab.evaluate(unfold)
    tab.locator("details.run:not(:has(> :nth-child(2)))").first.wait_for(state="detached")
    tab.evaluate(unfold)


def header(tab, name: str):
    return tab.locator("#table thead button").filter(has_text=re.compile(f"^{re.escape(name)}$"))


def test_a_column_of_numbers_sorts_by_value_both_ways_and_missing_ones_come_last(show):
    tab = show()
    header(tab, FIRST).click()
    methods = tab.evaluate(NAMES % 1)
    known = ["besa", "dense", "wanda", "wanda", "magnitude"]
    hostile = HOSTILE.replace("/", "\\")
    assert methods == ["besa", "dense", "wanda", "wanda", "magnitude", hostile, "magnitude", "random", "gblm", "owl"]
    assert len(known) < len(methods)
    assert tab.evaluate("[...document.querySelectorAll('[aria-sort]')].map(h => [h.innerText, h.ariaSort])") == [
        [FIRST, "ascending"]
    ]
    header(tab, FIRST).click()
    assert tab.evaluate(NAMES % 1)[:3] == ["random", "magnitude", hostile]
    assert tab.evaluate(NAMES % 1)[-2:] == ["gblm", "owl"]
    assert tab.locator("#table [aria-sort]").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_rows_that_are_equal_keep_their_order(show):
    tab = show()
    rows = lambda: list(zip(*(tab.evaluate(NAMES % place) for place in (2, 1, 5)), strict=True))
    header(tab, "method").focus()
    tab.keyboard.press("Enter")
    by_method = rows()
    assert [method for _, method, _ in by_method] == sorted((row[1] for row in by_method), key=str.lower)
    header(tab, "pattern").focus()
    tab.keyboard.press("Space")
    assert rows() == sorted(by_method, key=lambda row: (row[0] == "", row[0])), "the dense model has no pattern"


def test_the_filter_leaves_the_rows_with_all_words_and_counts_them(show):
    tab = show()
    tab.fill("#filter", "WANDA 2of4")
    assert (tab.evaluate(NAMES % 1), tab.evaluate(NAMES % 2)) == (["wanda"], ["2of4"])
    assert tab.inner_text("#shown") == "1 of 10 rows"
    tab.fill("#filter", "nothing has this")
    assert tab.evaluate(NAMES % 1) == []
    tab.fill("#filter", "")
    assert tab.inner_text("#shown") == "10 rows"


def test_seeds_are_one_row_that_unfolds_in_order(show):
    tab = show()
    members = tab.locator("tr.member")
    assert members.count() == 3 and not any(row.is_visible() for row in members.all())
    fold = tab.locator("button.fold")
    fold.focus()
    tab.keyboard.press("Enter")
    assert fold.get_attribute("aria-expanded") == "true"
    assert [row.locator("th").inner_text() for row in members.all()] == ["seed 1", "seed 2", "seed 10"]
    assert all(row.is_visible() for row in members.all())
    tab.click("#unfold")
    tab.click("#unfold")
    assert not any(row.is_visible() for row in members.all())


def test_a_row_leads_to_its_run_in_one_click_and_the_run_leads_back(show):
    tab = show()
    tab.locator("#table tbody", has_text="besa").locator("a").click()
    run = tab.locator("details.run:target")
    assert run.evaluate("found => found.open") and "besa-unstructured" in run.inner_text()
    run.get_by_text("Measured", exact=True).wait_for()
    assert "back to its row" in run.inner_text() and "The command again" not in run.inner_text()
    assert tab.locator("details.run > *:not(summary)").count() == run.locator("> *:not(summary)").count() > 1
    tab.click("button.fold")
    tab.locator("tr.member a").first.click()
    run = tab.locator("details.run:target")
    run.get_by_text("Measured", exact=True).wait_for()
    assert run.evaluate("found => found.open") and "seed: 1" in run.text_content()
    tab.click("button.fold")
    tab.fill("#filter", "magnitude")
    run.locator(".back a").first.click()
    assert tab.locator("tr.member:target").is_visible(), "it was folded and filtered out"


def test_an_address_with_a_run_opens_it(show):
    name = "#run-demo-wanda-unstructured-0.5-0000000002"
    assert show(name).locator(name.replace(".", r"\.")).evaluate("found => found.open")


def test_every_link_leads_somewhere_and_every_id_is_there_once(show, written):
    tab = show()
    open_all(tab)
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    links = tab.evaluate("[...document.querySelectorAll('a')].map(e => e.getAttribute('href'))")
    assert len(set(ids)) == len(ids)
    assert {unquote(link[1:]) for link in links if link.startswith("#")} <= set(ids)
    files = [link for link in links if not link.startswith("#")]
    assert files == ["figures/curve.png", "figures/curve.pdf"] and all(
        (written.parent / file).exists() for file in files
    )


def test_text_of_runs_is_shown_as_text(show):
    tab = show()
    open_all(tab)
    assert tab.get_by_text("The command again").count() == 1, "only where the run knows its command"
    assert HOSTILE in tab.inner_text("#unfinished .reason >> nth=1")
    assert [HOSTILE in found for found in tab.locator("#unfinished pre").all_inner_texts()] == [True, False, True]
    assert tab.locator(".warnings").filter(has_text=HOSTILE).count() == 1
    assert tab.evaluate("window.broken") is None
    assert tab.locator("script").count() == 2 and tab.locator("img").count() == 1


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(show, width, scheme):
    tab = show(width=width, color_scheme=scheme)
    open_all(tab)
    tab.click("#unfold")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    picture = tab.locator("figure img")
    tab.evaluate("document.querySelector('figure img').decode()")
    assert picture.bounding_box()["width"] <= picture.bounding_box()["height"] * 1280 / 480 + 1


def test_the_best_and_how_sure_that_is_are_seen_without_scrolling_on_a_desktop(show):
    box = show().locator("#summary .box")
    assert HOSTILE.replace("/", "\\") in box.inner_text(), "a long name"
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_without_scripts_every_row_is_there(show):
    tab = show(java_script_enabled=False)
    assert all(row.is_visible() for row in tab.locator("tr.member").all())
    assert not tab.locator(".tools").is_visible()
    assert tab.locator("noscript p").is_visible()


def test_headings_are_in_order_and_tables_say_what_they_are(show):
    tab = show()
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert tab.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.length > 3)"
    )


def test_letters_stand_out_from_their_ground_in_both_schemes():
    def light(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    schemes = (ASSETS / "report.css").read_text().split("prefers-color-scheme: dark")
    for scheme in schemes[:2]:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        pairs = [(ink, paper) for ink in ("text", "quiet", "link") for paper in ("ground", "raised", "faint")]
        for ink, paper in [*pairs, ("flag", "flag-ground"), ("flag", "ground")]:
            low, high = sorted((light(colours[ink]), light(colours[paper])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


def test_the_same_runs_give_the_same_page(written):
    records = read([written.parent])
    pages = {page(Findings(order), [], written.parent) for order in (records, records)}
    assert len(pages) == 1

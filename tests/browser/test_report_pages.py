"""The report as people meet it: in a real Chromium, light and dark, wide, narrow and on paper."""

import re
import struct
import zlib
from dataclasses import replace
from functools import cache

import pytest

from rollout.features.demo.catalog import MAIL_ROOM, build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.report_version import FigureChange
from rollout.features.reports.inputs.pictures import embed_picture
from rollout.features.reports.pages.html_report import render_html_report
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.tick_passes import Ticker
from tests.browser.chromium import (
    LARGE,
    OPENED,
    PHONE,
    SMALLEST,
    TOO_WIDE,
    WIDE,
    needs_chromium,
)
from tests.browser.looks import find_violations
from tests.browser.test_drawings_in_a_browser import COLLISIONS
from tests.engine.slots.facts import compute_replay_facts
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field
from tests.features.reports.conftest import BEARS, inputs_of, story
from tests.features.reports.test_inputs import keep, of_store
from tests.features.review_room import MINUTE

pytestmark = needs_chromium

SCHEMES = ("light", "dark")
FIRST_ROWS = "document.querySelectorAll('tbody tr:nth-child(n+9)').forEach(row => row.remove())"
CUT = """
Array.from(document.querySelectorAll('main *')).filter(part => {
  const box = part.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !part.closest('.wide, .hidden-words, caption')
}).map(part => part.outerHTML.slice(0, 120))
"""
SCROLLED = """
Array.from(document.querySelectorAll('.wide')).filter(part =>
  part.scrollWidth > part.clientWidth + 1 && !part.querySelector('table.matrix')
).map(part => part.getAttribute('aria-label'))
"""
VISIBLE_READERS = """
Array.from(document.querySelectorAll('.reader'))
  .filter(part => part.offsetHeight).map(part => part.id)
"""
READERS = ("operator", "engineer", "auditor")
TIMELINES = """
Array.from(document.querySelectorAll('#engineer details:has(> ol.plain)')).map(part => [
  Array.from(part.querySelectorAll('.legend li')).map(sign => sign.innerText.trim()),
  getComputedStyle(part.querySelector('ol.plain')).listStyleType,
])
"""
CUT_TEXTS = """
Array.from(document.querySelectorAll('svg text')).filter(text => {
  const box = text.getBoundingClientRect(), svg = text.ownerSVGElement.getBoundingClientRect();
  return box.width && (box.left < svg.left - 1 || box.right > svg.right + 1
    || box.top < svg.top - 4 || box.bottom > svg.bottom + 4);
}).map(text => text.textContent)
"""
REPORT_PHONE = 400
THREE_SCREENS = 3 * 900
PAGE = re.compile(rb"/Type\s*/Page\b")
A4 = (595, 842)


def pictures(keys):
    """Return a picture of 60 by 40 points for two of three cases, and a link for the third."""
    drawn = [embed_picture(small_png(60, 40)), "https://pictures.example/7.jpg"]
    return {key: (drawn[not place % 3],) for place, key in enumerate(sorted(keys))}


def small_png(width, height):
    """Return a picture of one colour."""
    rows = zlib.compress((b"\0" + bytes((40, 90, 160)) * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + made


@cache
def facts_told(name):
    if name == "mail room":
        return compute_replay_facts(replay_files(build_replay_request(find_example(MAIL_ROOM))))
    inputs = inputs_of(story(), parse_policy(BEARS))
    if name == "pictures":
        return compute_report_facts(replace(inputs, media=pictures))
    facts = compute_report_facts(inputs)
    if name == "bears":
        return facts
    edition = replace(
        facts.report_version,
        live=True,
        state="provisional",
        uncounted_units=3,
        withheld_cases=1,
        version=2,
        due=facts.identity.last,
        changed=(FigureChange("model_cost.cases", "1", None),),
    )
    return replace(facts, report_version=edition)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def written(name, view=None):
        path = folder / f"{name} {view}.html"
        path.write_text(render_html_report(facts_told(name), view), encoding="utf-8")
        return path

    return written


@pytest.fixture
def opened(browser):
    """Return a function that opens a file; what the page says or asks for is noted in `heard`."""
    contexts = []

    def of(path, width=WIDE, scheme="light", reader=None):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(path.as_uri() + (f"#{reader}" if reader else ""))
        page.evaluate(OPENED)
        return page

    yield of
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("name", "reader", "width", "scheme"),
    [
        *(
            ("mail room", "operator", width, scheme)
            for width in (WIDE, PHONE)
            for scheme in SCHEMES
        ),
        ("mail room", "engineer", WIDE, "light"),
        ("mail room", "engineer", PHONE, "dark"),
        ("mail room", "auditor", WIDE, "dark"),
        ("mail room", "auditor", PHONE, "light"),
        ("provisional bears", "operator", PHONE, "dark"),
    ],
)
def test_the_accessibility_checker_finds_nothing(opened, page_file, name, reader, width, scheme):
    page = opened(page_file(name), width, scheme, reader)
    page.evaluate(FIRST_ROWS)  # later rows of a table are made like these: half a minute saved
    assert find_violations(page) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_report_of_a_service_that_still_waits_is_as_good_a_page(database, opened, tmp_path):
    field.set_up_field(database, NOON - DAY)
    keep(database, "late", NOON)
    keep(database, "early", NOON - DAY + MINUTE)
    Ticker(database, "bears", "one").tick(NOON + HOUR)
    path = tmp_path / "service.html"
    facts = compute_report_facts(of_store(database, "bears", at=NOON + HOUR))
    path.write_text(render_html_report(facts), encoding="utf-8")
    page = opened(path, PHONE, "dark")
    assert "PROVISIONAL" in page.locator(".edition").inner_text()
    assert find_violations(page) == []
    assert page.evaluate(TOO_WIDE) == 0


@pytest.mark.parametrize("view", ["operator", "engineer", "auditor"])
def test_a_view_alone_is_as_accessible_as_the_whole(opened, page_file, view):
    assert find_violations(opened(page_file("bears", view))) == []


def test_the_checker_sees_what_is_wrong(opened, page_file, tmp_path):
    worse = tmp_path / "worse.html"
    text = page_file("bears", "operator").read_text(encoding="utf-8")
    worse.write_text(text.replace("--ink-2: #495663", "--ink-2: #c0bcb4"), encoding="utf-8")
    assert "color-contrast" in [rule for rule, _, _ in find_violations(opened(worse))]


@pytest.mark.parametrize("name", ["mail room", "bears", "provisional bears"])
def test_a_page_says_nothing_to_the_console_and_asks_for_nothing(opened, page_file, name):
    path = page_file(name)
    assert opened(path).heard == [path.as_uri()]


@pytest.mark.parametrize("width", [WIDE, REPORT_PHONE, SMALLEST])
@pytest.mark.parametrize("reader", READERS)
def test_a_page_never_scrolls_sideways_and_only_matrices_do_in_their_region(
    opened, page_file, reader, width
):
    page = opened(page_file("mail room"), width, reader=reader)
    assert page.evaluate(TOO_WIDE) == 0
    assert page.evaluate(CUT) == []
    assert page.evaluate(SCROLLED) == []


def test_the_operator_needs_at_most_three_screens_with_every_section_open(opened, page_file):
    page = opened(page_file("mail room"), WIDE, reader="operator")
    assert page.evaluate("document.documentElement.scrollHeight") <= THREE_SCREENS * 1.01


@pytest.mark.parametrize("width", [WIDE, 2 * SMALLEST])
def test_text_of_twice_the_size_still_fits(opened, page_file, width):
    page = opened(page_file("mail room"), width)
    page.evaluate(LARGE)
    assert page.evaluate(TOO_WIDE) == 0
    assert page.evaluate(CUT) == []


def test_a_table_that_is_too_wide_is_scrolled_by_keys(opened, page_file):
    page = opened(page_file("mail room", "engineer"), SMALLEST)
    region = page.get_by_role("region", name="Labels, v1").first
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0", timeout=2000)


def test_dark_and_light_are_two_pages_and_paper_is_light(opened, page_file):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(page_file("bears"), scheme=scheme) for scheme in SCHEMES)
    assert light.evaluate(ground) == "rgb(244, 246, 248)"
    assert dark.evaluate(ground) == "rgb(16, 22, 27)"
    dark.emulate_media(media="print", color_scheme="dark")
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"


def test_a_tab_shows_its_reader_alone_and_paper_shows_all(opened, page_file):
    page = opened(page_file("bears"))
    assert page.evaluate(VISIBLE_READERS) == ["operator"]
    for reader in READERS:
        page.locator(f"nav.readers a.to-{reader}").click()
        assert page.evaluate(VISIBLE_READERS) == [reader]
        heading = page.locator(f"#{reader} .tile h3").first
        assert 0 <= heading.bounding_box()["y"] < 900
    page.emulate_media(media="print")
    assert page.evaluate(VISIBLE_READERS) == list(READERS)


def test_each_timeline_has_the_key_of_its_own_colours_and_its_events_one_number(opened, page_file):
    """Seen: one key for all cells, with v1 in two colours, and events numbered twice."""
    timelines = opened(page_file("mail room"), reader="engineer").evaluate(TIMELINES)
    assert len(timelines) == 7
    for key, marker in timelines:
        versions = [sign.partition(":")[0] for sign in key if ": one day" in sign]
        assert versions in (["v1"], ["v1", "v2"], ["v2", "v1"])
        assert marker == "none"


@pytest.mark.parametrize("width", [WIDE, REPORT_PHONE])
def test_no_text_of_a_drawing_is_cut_off_or_lies_over_another(opened, page_file, width):
    """Seen: an axis of "share of the cases decided, most confident firs"."""
    page = opened(page_file("mail room"), width)
    for reader in READERS:
        page.locator(f"nav.readers a.to-{reader}").click()
        assert page.evaluate(CUT_TEXTS) == []
        assert page.evaluate(COLLISIONS) == []


def test_a_finding_leads_to_its_section_and_opens_it(browser, page_file):
    page = browser.new_context(viewport={"width": WIDE, "height": 900}).new_page()
    page.goto(page_file("mail room").as_uri())
    page.locator("#operator .more", has_text="Simple rules").click()
    section = page.locator("#engineer #rules table")
    section.wait_for(timeout=2000)
    assert 0 <= section.bounding_box()["y"] < 900
    page.context.close()


def test_four_cells_are_one_sheet_for_an_operator(opened, page_file):
    assert len(facts_told("bears").stages) == 4
    paper = opened(page_file("bears", "operator")).pdf(prefer_css_page_size=True)
    assert len(PAGE.findall(paper)) == 1
    box = re.search(rb"/MediaBox\s*\[([\d. ]+)\]", paper)
    assert tuple(round(float(side)) for side in box[1].split()[2:]) == A4


def test_pictures_of_the_worst_cases_are_drawn_and_leave_one_sheet(opened, page_file):
    page = opened(page_file("pictures", "operator"))
    widths = "Array.from(document.querySelectorAll('img')).map(one => one.naturalWidth)"
    assert page.evaluate(widths) == [60] * 3
    assert [address for address in page.heard if not address.startswith("file:")] == []
    assert find_violations(page) == []
    assert len(PAGE.findall(page.pdf(prefer_css_page_size=True))) == 1
    small = opened(page_file("pictures", "operator"), width=PHONE)
    assert small.evaluate(TOO_WIDE) == 0


def test_on_paper_no_table_is_wider_than_the_sheet(opened, page_file):
    page = opened(page_file("mail room"), width=718)  # A4 without its margins, in pixels
    page.emulate_media(media="print")
    assert page.evaluate(TOO_WIDE) == 0
    assert page.evaluate(CUT.replace(".wide, ", "")) == []
    assert len(PAGE.findall(page.pdf(prefer_css_page_size=True))) < 40

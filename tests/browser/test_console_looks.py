"""How the console looks to people who see, move or print otherwise: the rest of console.md §10.

Forced colours, reduced motion, print in grey, thumbs instead of a mouse, no script; and the ratios
of contrast that the drawings promise, computed from the tokens that the pages are served with.
"""

import base64
import re
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from rollout.features.reports.pages.page_templates import LOSS_SHADES
from tests.browser.chromium import OPENED, PHONE, needs_chromium
from tests.browser.console_pages import residents
from tests.browser.test_console_pages import PAGES

R = "/rollouts/bears"
CSS = Path(__file__).parents[2] / "rollout/features/reports/templates/tokens.css"
RATIOS = [
    # text or edge, ground, light, dark: the table of console.md §3
    ("stage-0-line", "surface", 4.0, 4.8),
    ("ink", "stage-0", 16.5, 14.0),
    ("stage-1-line", "stage-1", 4.5, 5.7),
    ("stage-1-line", "surface", 5.7, 6.9),
    ("stage-2", "surface", 8.1, 8.6),
    ("stage-2-ink", "stage-2", 8.1, 9.1),
    ("line-strong", "surface", 4.0, 4.8),
    ("bad", "bad-bg", 7.0, 7.8),
    ("warn", "warn-bg", 7.0, 9.3),
    ("note", "note-bg", 7.0, 7.8),
    ("good", "good-bg", 7.2, 8.3),
    ("mute", "mute-bg", 6.3, 6.4),
    ("ink", "bg", 15.2, 15.4),
    ("ink-2", "bg", 6.9, 8.9),
    ("link", "bg", 7.5, 9.5),
    ("primary-ink", "primary", 8.1, 9.1),
    ("focus", "bg", 7.5, 12.6),
]
A4 = 688  # px between the margins
SWATCHES = ".legend svg"
MOVES = """
Array.from(document.querySelectorAll('*')).filter(part => {
  const style = getComputedStyle(part);
  return style.transitionDuration.split(', ').some(span => parseFloat(span) > 0)
    || style.animationName !== 'none' || style.scrollBehavior !== 'auto';
}).map(part => part.outerHTML.slice(0, 80))
"""
SMALL_FOR_THUMBS = """
Array.from(document.querySelectorAll('.btn, button:not(.as-link), .nav a')).filter(part => {
  const box = part.getBoundingClientRect();
  return box.width && (box.height < 40 || box.width < 24);
}).map(part => part.outerHTML.slice(0, 120))
"""
UNMARKED = """
Array.from(document.querySelectorAll('.btn, .tag, input, select, textarea')).filter(part => {
  const style = getComputedStyle(part), box = part.getBoundingClientRect();
  return box.width && part.type !== 'hidden'
    && !part.matches('[type=checkbox], [type=radio]')
    && (style.borderTopStyle === 'none' || parseFloat(style.borderTopWidth) < 1
        || style.borderTopColor === style.backgroundColor);
}).map(part => part.outerHTML.slice(0, 120))
"""
CUT_OFF = """
Array.from(document.querySelectorAll('main table')).filter(table => {
  const room = table.parentElement.getBoundingClientRect();
  return table.getBoundingClientRect().right > room.right + 1;
}).map(table => table.innerText.slice(0, 80))
"""
GREY = """
async picture => {
  const image = new Image();
  image.src = 'data:image/png;base64,' + picture;
  await image.decode();
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [64, 40];
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, 64, 40);
  const dots = pen.getImageData(0, 0, 64, 40).data;
  return Array.from({length: 64 * 40}, (_, i) =>
    Math.round(.2126 * dots[4 * i] + .7152 * dots[4 * i + 1] + .0722 * dots[4 * i + 2]));
}
"""
WITH_SCRIPT = "document.querySelectorAll('noscript').forEach(part => part.remove())"
needs_browser = [needs_chromium, pytest.mark.enable_socket]


def tokens(*, dark):
    """Return the colours of the style sheet by name; dark ones fall back on the light."""
    css = CSS.read_text()
    light, _, rest = css.partition("@media screen and (prefers-color-scheme: dark)")
    text = light + rest.partition("/* ---- tags")[0] if dark else light
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))


def luminance(colour):
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """Return the ratio of contrast of two colours (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("front", "ground", "light", "dark"), RATIOS)
def test_the_colours_differ_as_much_as_the_drawings_promise(front, ground, light, dark):
    by_day, by_night = tokens(dark=False), tokens(dark=True)
    assert contrast(by_day[front], by_day[ground]) == pytest.approx(light, abs=0.06)
    assert contrast(by_night[front], by_night[ground]) == pytest.approx(dark, abs=0.06)


@pytest.mark.parametrize("dark", [False, True])
def test_each_step_of_a_difference_stands_out_more_than_the_one_before(dark):
    """Seen in dark mode: differences below 1 % darker than the table's ground."""
    colours = tokens(dark=dark)
    steps = [colours["surface"], *(colours[f"loss-{step}"] for step in range(1, LOSS_SHADES + 1))]
    lights = list(map(luminance, steps))
    assert lights == sorted(lights, reverse=not dark)
    assert all(contrast(*pair) > 1.08 for pair in pairwise(steps))
    assert all(contrast(colours["ink"], step) > 4.5 for step in steps[:-1])
    assert contrast(colours["surface"], steps[-1]) > 4.5
    assert contrast(steps[-1], colours["shade-2"]) > 2  # the diagonal stays behind


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    with residents(tmp_path_factory.mktemp("town")) as made:
        yield made


def looked(hall, page, **how):
    name, path = PAGES[page]
    window = hall(name, **how)
    window.page.goto(f"{window.address}/console{path}")
    return window


def greys(window, pictures):
    """Return each picture as 64 by 40 levels of grey, read by the browser itself."""
    blank = window.context.new_page()
    try:
        return [blank.evaluate(GREY, base64.b64encode(one).decode()) for one in pictures]
    finally:
        blank.close()


def beside_its_code(grey):
    """Return the levels outside the two letters: a pattern has to be told apart without them."""
    return [
        level for at, level in enumerate(grey) if not (14 <= at % 64 < 50 and 6 <= at // 64 < 34)
    ]


def drawn_apart(window):
    """Return by which share of its dots each stage of the legend differs from the others."""
    swatches = window.page.locator(SWATCHES).all()
    pictures = greys(window, [swatch.screenshot() for swatch in swatches])
    kept = [beside_its_code(grey) for grey in pictures]
    assert len(kept) >= 4
    return [
        sum(abs(a - b) > 48 for a, b in zip(one, other, strict=True)) / len(one)
        for one, other in combinations(kept, 2)
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
class TestOtherEyes:
    """What is seen where colours are not ours."""

    pytestmark = needs_browser

    def test_stages_differ_in_a_print_in_grey(self, hall, scheme):
        window = looked(hall, "rollout", scheme=scheme)
        window.page.emulate_media(media="print")
        try:
            assert min(drawn_apart(window)) > 0.1
            assert not window.page.locator(".bar").is_visible()
            ground = "getComputedStyle(document.body).backgroundColor"
            assert window.page.evaluate(ground) == "rgb(255, 255, 255)"
        finally:
            window.page.emulate_media(media="null")

    def test_a_print_on_a4_cuts_no_table_off_and_holds_no_form(self, hall, scheme):
        for page in ("rollout", "cell", "proposal", "ledger", "incident"):
            window = looked(hall, page, width=A4, scheme=scheme)
            window.page.emulate_media(media="print")
            try:
                assert window.page.evaluate(CUT_OFF) == [], page
                assert not any(form.is_visible() for form in window.page.locator("form").all())
            finally:
                window.page.emulate_media(media="null")

    def test_stages_differ_and_everything_has_an_edge_in_forced_colours(self, hall, scheme):
        for page in ("rollout", "overview", "proposal", "incident", "stop, step 1"):
            window = looked(hall, page, scheme=scheme)
            window.page.emulate_media(forced_colors="active")
            try:
                assert window.page.evaluate("matchMedia('(forced-colors: active)').matches")
                assert window.page.evaluate(UNMARKED) == [], page
                if page == "rollout":
                    assert min(drawn_apart(window)) > 0.1
            finally:
                window.page.emulate_media(forced_colors="none")

    def test_the_page_that_one_is_on_is_marked_in_forced_colours(self, hall, scheme):
        window = looked(hall, "overview", scheme=scheme)
        window.page.emulate_media(forced_colors="active")
        edge = "part => getComputedStyle(part).borderBottomColor"
        try:
            here = window.page.locator(".nav a[aria-current]").evaluate(edge)
            others = {link.evaluate(edge) for link in window.page.locator(".nav a").all()[1:]}
            assert here not in others
        finally:
            window.page.emulate_media(forced_colors="none")


class TestOtherHands:
    """What moves, what a thumb hits, what is there without a script."""

    pytestmark = needs_browser

    @pytest.mark.parametrize("page", ["overview", "rollout", "proposal", "review"])
    def test_nothing_moves_for_who_asks_for_less_motion(self, hall, page):
        window = looked(hall, page)
        window.page.emulate_media(reduced_motion="reduce")
        assert window.page.evaluate(MOVES) == []
        window.page.emulate_media(reduced_motion="no-preference")
        moves = window.page.evaluate(MOVES)
        assert [part for part in moves if "btn" not in part] == []
        assert moves

    @pytest.mark.parametrize("page", PAGES)
    def test_a_phone_has_targets_for_thumbs_and_says_the_same_without_the_script(self, hall, page):
        loud = looked(hall, page, width=PHONE)
        said = loud.page.inner_text("body")
        loud.page.evaluate(OPENED)
        assert loud.page.evaluate(SMALL_FOR_THUMBS) == []
        quiet = hall(PAGES[page][0], width=PHONE, script=False)
        zone = [one for one in loud.context.cookies() if one["name"] == "rollout-zone"]
        quiet.context.add_cookies(zone)  # the script told it, and times follow it
        quiet.page.goto(f"{loud.address}/console{PAGES[page][1]}")
        quiet.page.evaluate(WITH_SCRIPT)
        assert quiet.page.inner_text("body") == said

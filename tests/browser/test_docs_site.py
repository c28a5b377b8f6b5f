"""The site of the docs in Chromium: readable at two widths, and no request to another host."""

from tests.browser.chromium import TOO_WIDE, WIDE, chromium, needs_chromium
from tests.docs.site import CONFIG, build_site, html_of, pages_of

pytestmark = needs_chromium
NARROW = 400
HIDDEN_DIAGRAMS = """
Array.from(document.querySelectorAll('.diagram svg')).filter(svg => svg.clientHeight < 40).length
"""


def test_every_page_is_readable_and_asks_no_other_host(tmp_path):
    site = build_site(tmp_path)
    asked = []

    def answer(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    faults = []
    with chromium() as browser:
        page = browser.new_page()
        page.route("**/*", answer)
        for name in pages_of(CONFIG["nav"]):
            page.goto((site / html_of(name)).as_uri())
            for width in (WIDE, NARROW):
                page.set_viewport_size({"width": width, "height": 900})
                faults += [f"{name} at {width}"] if page.evaluate(TOO_WIDE) > 0 else []
            faults += [f"{name}: diagram"] if page.evaluate(HIDDEN_DIAGRAMS) else []
    assert asked == []
    assert faults == []

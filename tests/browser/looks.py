"""A page in each size and colour scheme, and what the accessibility checker finds there."""

import pytest

from tests.browser.chromium import HEIGHT, PHONE, WIDE
from tests.samples import choose_look

axe = pytest.importorskip(
    "axe_playwright_python.base",
    reason="axe-core is not installed; it comes with the extra dev",
)

SCHEMES = ("light", "dark")
IS_THERE = "typeof axe !== 'undefined'"
RUN = "axe.run({resultTypes: ['violations']}).then(found => found.violations)"


def each_look(page, widths=(WIDE, PHONE)):
    """Show a page in each width and scheme, and yield them; it is loaded once.

    Style sheets alone know of both, no script does. Without motion colours change at once. A
    sampled run (tests/samples.py) shows one.
    """
    looks = [(width, scheme) for width in widths for scheme in SCHEMES]
    for width, scheme in choose_look(looks, page.url.partition("?")[0].rpartition("/")[2]):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        yield width, scheme


def find_violations(page):
    """Return the rules of axe-core that a page breaks, with where it breaks each first."""
    if not page.evaluate(IS_THERE):
        page.evaluate(axe.AXE_SCRIPT)
    return [
        (rule["id"], rule["impact"], [node["html"][:160] for node in rule["nodes"][:3]])
        for rule in page.evaluate(RUN)
    ]

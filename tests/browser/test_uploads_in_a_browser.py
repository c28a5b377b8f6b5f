"""Two files in a real Chromium: chosen, sent, run and read, without scripts and on any screen."""

import pytest

from tests.browser.chromium import (
    OPENED,
    PHONE,
    SMALLEST,
    TOO_WIDE,
    WIDE,
    chromium,
    needs_chromium,
)
from tests.browser.console_pages import served_town, windows
from tests.recorded import write_records

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-core is not installed; it comes with the extra dev",
)
pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

LOOKS = [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")]
LONGEST = 240_000  # ms; a run of low priority on a busy machine


def test_files_are_sent_and_read_without_scripts(tmp_path):
    write_records(tmp_path, cases=400)
    with (
        chromium() as browser,
        served_town(tmp_path, 30) as made,
        windows(browser, made.address) as opened,
    ):
        page = opened(script=False).as_("ana").open("/files")
        for name in ("predictions", "decisions"):
            page.set_input_files(f"#{name}", tmp_path / f"{name}.csv")
        page.fill("#name", "ramps")
        page.click("button:has-text('Send and run')")
        assert "You can leave this page" in page.inner_text("main")
        page.wait_for_selector("#replay", timeout=LONGEST)  # the page reloads itself
        assert "Plan of ramps" in page.inner_text("main")
        for width, scheme in LOOKS:
            window = opened(width=width, scheme=scheme).as_("ana")
            window.open("/files").evaluate(OPENED)
            found = axe.Axe().run(window.page).response["violations"]
            said = [(v["id"], v["nodes"][0]["html"][:160]) for v in found]
            assert said == [], (width, scheme)
            assert window.heard == []
        smallest = opened(width=SMALLEST).as_("ana").open("/files")
        smallest.evaluate(OPENED)
        assert smallest.evaluate(TOO_WIDE) <= 0
        page.click("text=Read the whole report")
        assert "ramps" in page.inner_text("h1")

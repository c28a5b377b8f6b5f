"""Two files in a real Chromium: chosen, sent, run and read, without scripts and on any screen."""

import pytest

from tests.browser.chromium import (
    HEIGHT,
    OPENED,
    SMALLEST,
    TOO_WIDE,
    chromium,
    needs_chromium,
)
from tests.browser.console_pages import served_town, windows
from tests.browser.looks import each_look, find_violations
from tests.recorded import write_records

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

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
        window = opened().as_("ana")
        window.open("/files").evaluate(OPENED)
        for look in each_look(window.page):
            assert find_violations(window.page) == [], look
            assert window.heard == []
        window.page.set_viewport_size({"width": SMALLEST, "height": HEIGHT})
        assert window.page.evaluate(TOO_WIDE) <= 0
        page.click("text=Read the whole report")
        assert "ramps" in page.inner_text("h1")

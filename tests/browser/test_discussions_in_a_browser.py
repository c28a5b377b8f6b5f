"""A discussion in Chromium: asked without scripts, seen to come in, fit for a phone."""

import pytest

from tests.browser.chromium import OPENED, TOO_WIDE, chromium, needs_chromium
from tests.browser.console_pages import served_town, windows
from tests.browser.looks import each_look, find_violations
from tests.browser.test_cause_pages import WIDTHS
from tests.browser.town import busy

pytestmark = [needs_chromium, pytest.mark.enable_socket]
PATH = "/rollouts/bears/incidents/I-1"
QUESTION = "Was the lens wet? <b>" + "w" * 300 + "</b>\nIt rained."
PATIENCE = 10_000  # milliseconds: machines are busy


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Serve the busy town; give a function that opens windows."""
    with (
        served_town(tmp_path_factory.mktemp("town")) as made,
        chromium() as browser,
        windows(browser, made.address) as of,
    ):
        busy(made)
        yield of


def add_comment(page, text, **fields):
    page.fill("#comment", text)
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.click("button:has-text('Add comment')")


def test_a_question_without_scripts_comes_in_elsewhere_and_fits_in_each_look(opened):
    watching = opened().as_("ana").open(PATH)
    watching.fill("#comment", "half an answ")
    asking = opened(script=False).as_("vic").open(PATH)
    add_comment(asking, QUESTION, comment_case="nowhere")
    assert "There is a problem" in asking.inner_text("#problem")
    assert asking.input_value("#comment") == QUESTION
    asking.fill("#comment_case", "creek-0206")
    asking.click("button:has-text('Add comment')")
    assert asking.url.endswith(f"{PATH}#discussion")
    assert QUESTION in asking.inner_text(".comments li")
    watching.wait_for_selector(".comments li:has-text('It rained.')", timeout=PATIENCE)
    assert watching.input_value("#comment") == "half an answ"
    window = opened().as_("vic")
    window.heard.clear()
    window.open(PATH).evaluate(OPENED)
    for look in each_look(window.page, WIDTHS):
        assert find_violations(window.page) == [], look
        assert window.page.evaluate(TOO_WIDE) <= 0
        assert window.heard == []

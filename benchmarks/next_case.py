"""How soon the next review case appears after the key, in Chromium, of 20 keys.

From the key's event to the frame that shows the next case, which was held ahead; the answer is
stored meanwhile. The service, the browser and this script share the machine.

Example:
    PYTHONPATH=. python benchmarks/next_case.py
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from reported_figures import report_figure

KEYS, WARM_UP = 20, 2
GOAL = 100.0  # milliseconds
WATCH = """
window.appeared = [];
document.addEventListener('keydown', (event) => { window.pressed = event.timeStamp; }, true);
document.addEventListener('review:shown', () => requestAnimationFrame(() => setTimeout(() => {
  window.appeared.push(performance.now() - window.pressed);
})));
"""


def measure() -> list[float]:
    """Return the milliseconds of each key but the first ones, all on one page."""
    from tests.browser.console_pages import windows
    from tests.browser.test_held_reviews_in_a_browser import AHEAD, fill
    from tests.browser.test_review_in_a_browser import SEEN, SETTLED, chromium, served_hall
    from tests.console.reading_room import REVIEW

    with TemporaryDirectory() as folder, served_hall(Path(folder)) as hall, chromium() as browser:
        fill(hall, KEYS + WARM_UP + 4)
        with windows(browser, hall.address) as open_window:
            window = open_window().as_("rita")
            with window.page.expect_response(AHEAD):
                page = window.open(REVIEW)
            page.evaluate(WATCH)
            for number in range(KEYS + WARM_UP):
                page.wait_for_timeout(SEEN)
                page.keyboard.press("b")
                page.wait_for_function("n => window.appeared.length > n", arg=number)
                page.wait_for_function(SETTLED)
            times: list[float] = page.evaluate("window.appeared")
    return times[WARM_UP:]


def main() -> None:
    """Print least, median and most, or why nothing was measured."""
    if find_spec("playwright") is None or not any(
        map(shutil.which, ("chromium", "chromium-browser"))
    ):
        print("0 keys: no Chromium with playwright")
        return
    print(report_figure(f"next case after a key, {KEYS} keys", "ms", measure(), GOAL))


if __name__ == "__main__":
    main()

"""How soon the next review case appears after the key, in Chromium, of 20 keys.

From the key to the page of the next case: the answer is stored first. The service, the browser and
this script share the machine.

Example:
    PYTHONPATH=. python benchmarks/next_case.py
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from reported_figures import report_figure

KEYS, WARM_UP = 20, 2
GOAL = 300.0  # milliseconds


def measure() -> list[float]:
    """Return the milliseconds of each key but the first ones."""
    from tests.browser.chromium import chromium
    from tests.browser.console_pages import windows
    from tests.browser.test_review_in_a_browser import (
        SEEN,
        fill,
        leading_on,
        served_hall,
    )
    from tests.console.reading_room import REVIEW

    times = []
    with TemporaryDirectory() as folder, served_hall(Path(folder)) as hall, chromium() as browser:
        fill(hall, KEYS + WARM_UP + 4)
        with windows(browser, hall.address) as open_window:
            page = open_window().as_("rita").open(REVIEW)
            for _ in range(KEYS + WARM_UP):
                page.wait_for_timeout(SEEN)
                with leading_on(page):
                    pressed = perf_counter()
                    page.keyboard.press("b")
                times.append(1000 * (perf_counter() - pressed))
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

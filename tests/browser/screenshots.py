"""The pictures of docs/images/console, one of each page: `python -m tests.browser.screenshots`.

They show the plain town; look at them before they are kept.
"""

import tempfile
from pathlib import Path

from tests.browser.chromium import WIDE
from tests.browser.console_pages import residents
from tests.browser.test_console_pages import PAGES

FOLDER = Path(__file__).parents[2] / "docs/images/console"
TALLEST = 2_400  # pixels: what is below is more of the same


def file_of(page):
    """Return where the picture of a page is kept."""
    return FOLDER / f"{page.replace(',', '').replace(' ', '-')}.jpg"


def main():
    """Write all of them anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.jpg"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder, residents(Path(folder), odd=False) as of:
        for page, (name, path) in PAGES.items():
            window = of(name)
            window.page.goto(f"{window.address}/console{path}")
            tall = min(TALLEST, window.page.evaluate("document.documentElement.scrollHeight"))
            clip = {"x": 0, "y": 0, "width": WIDE, "height": tall}
            window.page.screenshot(
                path=file_of(page), type="jpeg", quality=60, full_page=True, clip=clip
            )


if __name__ == "__main__":
    main()

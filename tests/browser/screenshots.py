"""The pictures of docs/images: the README's report, and each page of the console.

`python -m tests.browser.screenshots` writes them anew. The console's show the plain town, some the
live demo. Look at them before they are kept.
"""

import tempfile
from pathlib import Path

from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.story import play_example
from tests.api.test_serve import free_port
from tests.browser.chromium import WIDE, chromium
from tests.browser.console_pages import residents
from tests.browser.test_console_pages import PAGES
from tests.first_hour.demo_visit import start_demo
from tests.first_hour.terminals import terminals_in

IMAGES = Path(__file__).parents[2] / "docs/images"
FOLDER = IMAGES / "console"
TALLEST = 1_800  # pixels: what is below is more of the same
QUALITY = 50  # of a JPEG: letters stay sharp enough, and all pictures together below 5 MB
DRAFT = ("days: 7", "days: 5")
RUN_SECONDS = 300


def file_of(page):
    """Return where the picture of a page is kept."""
    return FOLDER / f"{page.replace(',', '').replace(' ', '-')}.jpg"


def write_report_picture(folder):
    """Write the README's picture: the operator's page of the mail room, folded."""
    page_file = folder / "report.html"
    page_file.write_bytes(play_example(find_example(MAIL_ROOM))[1]["report.html"])
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDE, "height": 900})
        page.goto(page_file.as_uri())
        page.screenshot(path=IMAGES / "report.png", full_page=True)


def compare_draft(page):
    """Run a draft on the page of a what-if and wait for its result."""
    page.fill("#text", page.input_value("#text").replace(*DRAFT))
    page.click("button:has-text('Run what if')")
    page.wait_for_selector("#cells", timeout=RUN_SECONDS * 1000)


DEMO = {
    "cause": ("ana", "/rollouts/mail-room/cause?site=lisbon&window=night"),
    "what if": ("ada", "/rollouts/mail-room/settings/what-if"),
    "search": ("ana", "/search?q=lisbon"),
}
"""Pages of which the live demo has more to show than a town of two days."""


def take_picture(page, name):
    """Write the picture of a page that is open."""
    if name == "what if":
        compare_draft(page)
    tall = min(TALLEST, page.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": WIDE, "height": tall}
    page.screenshot(path=file_of(name), type="jpeg", quality=QUALITY, full_page=True, clip=clip)


def write_demo_pictures(folder):
    """Write the pictures of the live demo's pages."""
    with terminals_in(folder) as terminals, chromium() as browser:
        port = str(free_port())
        links = start_demo(terminals, port, "--speed 1")
        for name, (user, path) in DEMO.items():
            page = browser.new_context(viewport={"width": WIDE, "height": 900}).new_page()
            page.goto(links[user])
            page.goto(f"http://127.0.0.1:{port}/console{path}")
            take_picture(page, name)


def main():
    """Write all of them anew."""
    with tempfile.TemporaryDirectory() as folder:
        write_report_picture(Path(folder))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.jpg"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder, residents(Path(folder), odd=False) as of:
        for name, (user, path) in PAGES.items():
            if name not in DEMO:
                window = of(user)
                window.page.goto(f"{window.address}/console{path}")
                take_picture(window.page, name)
    with tempfile.TemporaryDirectory() as folder:
        write_demo_pictures(Path(folder))


if __name__ == "__main__":
    main()

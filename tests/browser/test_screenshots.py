"""The pictures in docs are of the pages that there are, small, and where readers look for them."""

import re
from pathlib import Path

from tests.browser.screenshots import FOLDER, IMAGES, file_of
from tests.browser.test_console_pages import PAGES

DOCS = Path(__file__).parents[2] / "docs"
MAX_BYTES = 5_000_000
READ_ABOUT = ("overview", "rollout", "proposal", "cause", "what if", "uploaded files",
              "search", "review")  # fmt: skip


def test_docs_show_each_page_of_the_console_and_none_that_is_gone():
    """Else write them anew, `python -m tests.browser.screenshots`, and look at them."""
    assert {file_of(page) for page in PAGES} == set(FOLDER.glob("*.jpg"))
    assert sum(picture.stat().st_size for picture in IMAGES.rglob("*.*")) < MAX_BYTES


def test_a_page_that_docs_tell_of_is_shown_there():
    texts = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    shown = set(re.findall(r"!\[[^\]]+\]\(\.\./images/console/([^)]+)\)", texts))
    shown |= set(re.findall(r"!\[[^\]]+\]\(images/console/([^)]+)\)", texts))
    assert {file_of(page).name for page in READ_ABOUT} <= shown

"""The pictures in docs are of the pages that there are."""

from tests.browser.screenshots import FOLDER, file_of
from tests.browser.test_console_pages import PAGES


def test_docs_show_each_page_of_the_console_and_none_that_is_gone():
    """Else write them anew, `python -m tests.browser.screenshots`, and look at them."""
    assert {file_of(page) for page in PAGES} == set(FOLDER.glob("*.jpg"))

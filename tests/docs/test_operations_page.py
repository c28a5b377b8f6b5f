"""docs/how-to/clients.md says what clients get in an outage; docs/operations.md links to it."""

import re

from api.answer_deadline import NO_ANSWER_TEXT
from tests.docs.pages import text_of

PAGE, CLIENTS = "docs/operations.md", "docs/how-to/clients.md"


def contract_of(page):
    """Return the quoted lines of a page as one text."""
    lines = re.findall(r"^> ?(.*)$", text_of(page), flags=re.MULTILINE)
    return " ".join(lines)


def test_clients_are_told_the_contract_of_the_service():
    contract = contract_of(CLIENTS)
    assert "(how-to/clients.md#the-answer)" in text_of(PAGE)
    (seconds,) = re.findall(r"within (\d+ s)", NO_ANSWER_TEXT)
    assert f"`human` within {seconds}" in contract
    assert "503" in contract
    assert "`Retry-After`" in contract

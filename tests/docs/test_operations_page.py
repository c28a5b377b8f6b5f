"""docs/operations.md has the contract of an outage; docs/how-to/clients.md quotes it."""

import re

from api.answer_deadline import NO_ANSWER_TEXT
from tests.docs.pages import text_of

PAGE, CLIENTS = "docs/operations.md", "docs/how-to/clients.md"


def contract_of(page):
    """Return the quoted lines of a page as one text."""
    lines = re.findall(r"^> ?(.*)$", text_of(page), flags=re.MULTILINE)
    return " ".join(lines)


def test_clients_are_told_the_contract_of_the_service():
    contract = contract_of(PAGE)
    assert contract_of(CLIENTS) == contract
    (seconds,) = re.findall(r"within (\d+ s)", NO_ANSWER_TEXT)
    assert f"`human` within {seconds}" in contract
    assert f"get 503 within {seconds}, all others" in contract
    assert "`Retry-After`" in contract


def test_the_quotation_links_to_the_contract():
    assert "(../operations.md#what-happens-when-something-breaks)" in text_of(CLIENTS)

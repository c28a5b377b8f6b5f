"""docs/operations.md: what it promises of an outage, and clients are told in the same words."""

import re

from api.answer_deadline import ASSIGNMENT_SECONDS
from tests.docs.pages import text_of

PAGE, CLIENTS = "docs/operations.md", "docs/how-to/clients.md"


def contract_of(page):
    """Return the quoted lines of a page as one text."""
    lines = re.findall(r"^> ?(.*)$", text_of(page), flags=re.MULTILINE)
    return " ".join(lines)


def test_clients_are_told_the_contract_of_the_service():
    contract = contract_of(PAGE)
    assert contract == contract_of(CLIENTS)
    assert f"`human` within {ASSIGNMENT_SECONDS:.0f} s" in contract
    assert "503" in contract
    assert "`Retry-After`" in contract

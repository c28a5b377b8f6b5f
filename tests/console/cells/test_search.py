"""The search finds what somebody may open, and nothing else, not even that it is there."""

import re

import pytest

from tests.api.bears import scope_of
from tests.console.told_cases import case, mia, some, tell
from tests.factories import DAY, NOON
from tests.features.cells.test_overview import append_counts

ON_BOTH_ENGINES = True


def found(browser, typed, name=None):
    """Return kind and name of each hit, as somebody sees them."""
    if name is not None:
        browser.as_(name)
    text = browser.page(f"/search?q={typed}").split("<main")[1]
    return [tuple(hit.split(" ", 1)) for hit in re.findall(r"<li>.*?<a [^>]*>([^<]*)</a>", text)]


def newest_hash(browser):
    """Return the beginning of the newest entry's hash, as the ledger's page shows it."""
    page = browser.page("/rollouts/bears/ledger?kind=all")
    return re.search(r'<code class="nowrap">([0-9a-f ]+)', page)[1].strip().replace(" ", "+")


@pytest.fixture
def filled(service, raised):
    some(service.database)
    return service


@pytest.mark.slow
def test_each_kind_is_found_by_who_may_open_its_page(browser, filled):
    browser.as_("vic")
    assert found(browser, "missed") == [("Case", "missed")]
    assert found(browser, "p-1") == [("Proposal", "P-1")]
    assert found(browser, "CREE") == [("Cell", "creek · day"), ("Cell", "creek · night")]
    evidence = scope_of(filled.database).proposals["P-1"].evidence_hash
    assert found(browser, evidence[:8]) == [("Proposal", "P-1")]
    revision = scope_of(filled.database).revision
    assert found(browser, newest_hash(browser)) == [("Ledger", f"entry {revision}")]
    assert found(browser, "bo") == []
    assert found(browser, "BO", "ada") == [("User", "bo")]


@pytest.mark.slow
def test_each_hit_leads_to_a_page(browser, filled):
    append_counts(filled.database, NOON + DAY, 1)  # an entry that the ledger hides by default
    browser.as_("ada")
    for typed in ("missed", "P-1", "creek", "bo", newest_hash(browser)):
        text = browser.page(f"/search?q={typed}").split("<main")[1]
        hrefs = re.findall(r'<li>.*?href="/console([^"]*)"', text)
        assert hrefs
        for href in hrefs:
            page = browser.page(href.replace("&amp;", "&").partition("#")[0])
            assert href.partition("#")[2] in page


@pytest.mark.parametrize("typed", ["missed", "P-1", "creek", "bo", "lake"])
def test_a_reviewer_finds_nothing(browser, filled, typed):
    assert found(browser, typed, "rita") == []
    assert "Nothing found" in browser.page(f"/search?q={typed}")


def test_who_reads_one_site_finds_nothing_of_another(browser, filled):
    assert found(browser, "lake-1", "cleo") == []
    assert found(browser, "lake") == []
    assert found(browser, "missed") == [("Case", "missed")]
    lake = next(p for p in scope_of(filled.database).proposals.values() if p.cell.site == "lake")
    assert found(browser, lake.id) == []
    assert found(browser, lake.evidence_hash) == []
    assert len(found(browser, lake.evidence_hash, "vic")) == 1


def test_a_hit_shows_nothing_of_a_case_and_is_no_reading_of_it(browser, service, filled):
    mia(service)
    tell(service.database, case("open"))
    browser.as_("mia")
    text = browser.page("/search?q=missed").split("<main")[1].split("</main>")[0]
    assert "v1" not in text
    assert "bear" not in text.replace("bears", "")


@pytest.mark.parametrize("typed", ["", "%20", "%00", "x" * 300, "%22%3E%3Cscript%3E", "..", "%25"])
def test_whatever_is_typed_has_a_page(browser, service, typed):
    text = browser.as_("vic").page(f"/search?q={typed}")
    assert "<script>" not in text.split("<main")[1]
    assert found(browser, typed) == []

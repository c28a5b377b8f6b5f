"""Pages of a renewal that weighs audits say so, and by what the e-value is computed."""

from dataclasses import replace
from html import unescape

from rollout.core.policy.audit_readings import WeightedCounts
from rollout.reports.text.value_text import AUDITS_NOTE
from tests.api.bears import CREEK, scope_of, tick, widened
from tests.console.raised_proposals import LIST
from tests.console.told_cases import mia
from tests.factories import AGREEMENT, DAY, MET, NOON, build_evidence, counted

AUDITS = (WeightedCounts(1.0, (200, 2)), WeightedCounts(0.1, (90, 12)))
WEIGHED = replace(
    counted(290, 14), counts={AGREEMENT.key: (210, 4)}, audits={AGREEMENT.key: AUDITS}
)


def read_page(browser, path):
    return " ".join(unescape(browser.page(path)).replace("\xa0", " ").split())


def propose_renewal(database, evidence):
    """Widen a cell and raise its renewal; return the renewal's page."""
    widened(database, NOON, CREEK)
    tick(database, NOON + 80 * DAY, of=evidence)
    (renewal,) = scope_of(database).proposals.values()
    assert renewal.kind == "renewal"
    return f"{LIST}/{renewal.id}"


def test_a_renewals_page_says_that_audits_are_weighted(service, browser):
    path = propose_renewal(service.database, build_evidence(WEIGHED))
    page = read_page(browser.as_("ana"), path)
    assert page.count(AUDITS_NOTE) == 1
    assert 'data-label="Counted">210 of 214, in all 304 audits' in page
    assert 'data-label="So far">98.5 %' in page  # (200 + 9) of (202 + 10.2)
    assert "over audits 1 200+2 0.1 90+12 (risk 1)" in page
    overview = read_page(browser, LIST)
    assert "210 of 214 and, weighted by the audits' shares, 98.5 % of 304 audits" in overview
    mia(service)
    reviewer_page = read_page(browser.as_("mia"), path)
    assert "over audits of 2 weights (risk 1)" in reviewer_page  # one may have a single unit
    assert "over audits 1 200" not in reviewer_page


def test_other_renewals_say_nothing_of_it(service, browser):
    page = read_page(browser.as_("ana"), propose_renewal(service.database, MET))
    assert AUDITS_NOTE not in page
    assert "over audits" not in page

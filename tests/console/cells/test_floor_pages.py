"""Pages of a cell that opens floor by floor say for which cases a stage holds."""

import re
from dataclasses import replace
from html import unescape

import pytest

from rollout.engine.decide.commands import Actor
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.live.policy_application import apply_policy
from tests.api import bears
from tests.factories import MET, MINUTE, NOON

FLOORS = bears.POLICY.replace(
    "outside: blind}", "outside: blind, confidence_floors: [0%, 80%, 97%]}"
)
STRICT = replace(MET, floors=(VersionEvidence(), MET, MET))
WHOLE = replace(MET, floors=(MET, MET, MET))
HIGH = "cases of confidence 0.8 or more"
OPERATORS = (Actor("dan", ("operator", "safety")), Actor("eve", ("operator", "safety")))


def visible(page):
    """Return the words of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
def floored(service):
    """Return a service whose policy has three floors."""
    apply_policy(service.database, FLOORS, Actor("zoe"), NOON + MINUTE)
    bears.approved(service.database, NOON + 2 * MINUTE, *OPERATORS)
    return service


def raise_proposal(service, evidence, minutes):
    """Raise a proposal; return its id."""
    bears.tick(service.database, NOON + minutes * MINUTE, of=evidence)
    (proposal,) = bears.scope_of(service.database).proposals
    return proposal


@pytest.mark.slow
def test_a_cell_opens_at_a_floor_and_then_for_all_cases(floored, browser, clock):
    clock.advance(60 * MINUTE)
    proposal = raise_proposal(floored, STRICT, 3)
    page = visible(browser.as_("ana").page(f"/rollouts/bears/proposals/{proposal}"))
    assert f"Let v1 act under supervision at creek by day for {HIGH}?" in page
    assert "Humans decide cases of confidence below 0.8." in page
    bears.approved(floored.database, NOON + 4 * MINUTE, *OPERATORS)
    cell = visible(browser.page("/rollouts/bears/cells/creek/day"))
    assert f"Supervised for {HIGH}; humans decide the others." in cell
    assert f"v1, {HIGH}" in cell  # its grant
    assert f"The gate to autonomous for {HIGH}." in cell
    proposal = raise_proposal(floored, WHOLE, 5)  # the next stage comes first
    page = visible(browser.page(f"/rollouts/bears/proposals/{proposal}"))
    assert f"Let v1 decide by itself at creek by day for {HIGH}?" in page
    bears.approved(floored.database, NOON + 6 * MINUTE, *OPERATORS)
    proposal = raise_proposal(floored, WHOLE, 7)
    page = visible(browser.page(f"/rollouts/bears/proposals/{proposal}"))
    assert "Let v1 decide by itself at creek by day for all cases that have a confidence?" in page
    assert "Humans decide cases of confidence below 0.8." in page  # now
    assert "Humans decide cases that have no confidence." in page  # then
    bears.approved(floored.database, NOON + 8 * MINUTE, *OPERATORS)
    cell = visible(browser.page("/rollouts/bears/cells/creek/day"))
    assert "v1 is allowed autonomous" in cell
    assert "humans decide the others" not in cell

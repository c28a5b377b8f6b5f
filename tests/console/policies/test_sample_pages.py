"""Pages of a cell and its proposal say on which part of the cases a version runs."""

import pytest

from rollout.engine.decide.commands import Actor
from rollout.live.policy_application import apply_policy
from tests.api import bears
from tests.console.cells.test_floor_pages import OPERATORS, raise_proposal, visible
from tests.factories import MET, MINUTE, NOON

SAMPLED = f"{bears.POLICY.rstrip()}\nversions: [{{id: v1, sample: 10%}}]\n"


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "says"), [(SAMPLED, True), (bears.POLICY, False)])
def test_a_cell_and_its_proposal_name_the_part_of_the_cases(service, browser, clock, policy, says):
    apply_policy(service.database, policy, Actor("zoe"), NOON + MINUTE)
    bears.approved(service.database, NOON + 2 * MINUTE, *OPERATORS)
    clock.advance(60 * MINUTE)
    proposal = raise_proposal(service, MET, 3)
    page = visible(browser.as_("ana").page(f"/rollouts/bears/proposals/{proposal}"))
    assert ("v1 runs on 10 % of the cases; humans decide the others." in page) is says
    cell = visible(browser.page("/rollouts/bears/cells/creek/day"))
    assert ("v1 runs on 10 % of the cases; its gates count no others." in cell) is says

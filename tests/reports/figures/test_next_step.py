"""What decides next in a cell is said with its time, and by whose clock."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope import CellState, Grant, ProposalState, Scope
from rollout.reports.figures.evidence_facts import describe_next_step
from rollout.reports.inputs.gate_progress import StatePeriod
from tests.reports.conftest import NOON

CREEK = Cell("creek", "day")
SOON = NOON + timedelta(days=7)
SUMMER = NOON + timedelta(days=30)  # Vienna's clocks go forward on 29 March
BEGUN = CellState(NOON, NOON)


@pytest.fixture
def says(bears):
    """Return what is said of a version that stands as a state says, the policy's gates aside."""

    def said(state, *, policy=bears, rung=0, **scope):
        leg = StatePeriod(NOON, NOON, state, rung, other_stage_level=0)
        made = Scope(**scope).replace_cell_state(CREEK, "v1", state)
        return describe_next_step((CREEK, "v1"), leg, None, None, made, policy, NOON)

    return said


@pytest.mark.parametrize(
    ("until", "told"), [(SOON, "Mon 9 Mar 12:00 CET"), (SUMMER, "Wed 1 Apr 13:00 CEST")]
)
def test_after_a_rejection_it_says_by_which_clock_nothing_is_raised(says, until, told):
    quiet = replace(BEGUN, quiet_until=until)
    assert says(quiet) == f"a proposal was rejected: nothing is raised before {told}"


def test_a_proposal_is_open_until_a_time_with_its_zone(says):
    waits = ProposalState(
        "P-3", "widening", NOON, "policy", SOON, "e", ("operator",), CREEK, "v1", "up"
    )
    says_so = says(replace(BEGUN, proposal="P-3"), proposals={"P-3": waits})
    assert says_so.endswith("waits for people: 0 of 1 approvals, open until Mon 9 Mar 12:00 CET")


def test_a_grant_ends_at_a_time_with_its_zone_and_the_first_of_two_counts(says):
    ends = (SUMMER, SOON + timedelta(days=365))
    grants = tuple(Grant(f"stage-{n}", NOON, end, f"P-{n}", NOON) for n, end in enumerate(ends))
    told = says(replace(BEGUN, grants=grants), rung=2)
    assert told == "nothing above this stage; the grant ends Wed 1 Apr 13:00 CEST unless renewed"


def test_another_year_is_said_and_a_zone_of_no_letters_by_its_hours(says, bears):
    creek, *others = bears.sites
    elsewhere = replace(bears, sites=(replace(creek, timezone="Asia/Dubai"), *others))
    quiet = replace(BEGUN, quiet_until=NOON + timedelta(days=365))
    assert says(quiet, policy=elsewhere).endswith("before Tue 2 Mar 2027 15:00 +04")

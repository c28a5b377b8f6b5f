"""What decides next in a cell is said with its time, and by whose clock."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.decide.scope import CellState, Grant, ProposalState, Scope
from rollout.features.reports.figures.evidence_facts import (
    GateOutlook,
    describe_next_step,
)
from rollout.features.reports.inputs.cell_facts import ConditionFacts, GateFacts
from rollout.features.reports.inputs.evidence_inputs import StatePeriod
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import DAYS, MISSING, UNITS, UnmetRequirement
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.words import say_requirement
from tests.factories import replace_cell_state
from tests.features.reports.conftest import NOON

CREEK = Cell("creek", "day")
SOON = NOON + timedelta(days=7)
SUMMER = NOON + timedelta(days=30)  # Vienna's clocks go forward on 29 March
BEGUN = CellState(NOON, NOON)


@pytest.fixture
def says(bears):
    """Return what is said of a version that stands as a state says, the policy's gates aside."""

    def said(state, *, policy=bears, rung=0, began=None, progress=GateOutlook(None), **scope):  # noqa: B008
        leg = StatePeriod(NOON, NOON, began or state, rung, other_stage_level=0)
        made = replace_cell_state(Scope(**scope), CREEK, "v1", state)
        return describe_next_step((CREEK, "v1"), leg, progress, made, policy, NOON)

    return said


@pytest.mark.parametrize(
    ("until", "told"), [(SOON, "Mon 9 Mar 12:00 CET"), (SUMMER, "Wed 1 Apr 13:00 CEST")]
)
def test_after_a_rejection_it_says_by_which_clock_nothing_is_raised(says, until, told):
    quiet = replace(BEGUN, quiet_until=until)
    start = "a proposal was rejected; the next one is raised after"
    assert says(quiet) == f"{start} {told} at the earliest"


def test_a_proposal_is_open_until_a_time_with_its_zone(says):
    waits = ProposalState(
        "P-3", "widening", NOON, "policy", SOON, "e", ("operator",), CREEK, "v1", "up"
    )
    says_so = says(replace(BEGUN, proposal="P-3"), proposals={"P-3": waits})
    assert says_so.endswith("needs 1 more approval; open until Mon 9 Mar 12:00 CET")


def test_an_approved_proposal_may_be_held_by_anything(says):
    needs_none = ProposalState("P-3", "widening", NOON, "policy", SOON, "e", (), CREEK, "v1", "up")
    says_so = says(replace(BEGUN, proposal="P-3"), proposals={"P-3": needs_none})
    assert (
        says_so == "widening to up (P-3) is approved; the engine applies it once nothing holds it"
    )


def test_a_grant_ends_at_a_time_with_its_zone_and_the_first_of_two_counts(says):
    ends = (SUMMER, SOON + timedelta(days=365))
    stages = zip(("supervised", "autonomous"), ends, strict=True)
    grants = tuple(Grant(stage, NOON, end, "P-1", NOON) for stage, end in stages)
    told = says(replace(BEGUN, grants=grants), rung=2)
    assert told == "this is the highest stage; the grant ends Wed 1 Apr 13:00 CEST unless renewed"


def test_a_renewed_grant_ends_at_its_new_time(says):
    grants = tuple(Grant(stage, NOON, SOON, "P-1", NOON) for stage in ("supervised", "autonomous"))
    renewed = tuple(replace(grant, until=SUMMER) for grant in grants)
    told = says(replace(BEGUN, grants=renewed), rung=2, began=replace(BEGUN, grants=grants))
    assert told == "this is the highest stage; the grant ends Wed 1 Apr 13:00 CEST unless renewed"


def test_another_year_is_said_and_a_zone_of_no_letters_by_its_hours(says, bears):
    creek, *others = bears.sites
    elsewhere = replace(bears, sites=(replace(creek, timezone="Asia/Dubai"), *others))
    quiet = replace(BEGUN, quiet_until=NOON + timedelta(days=365))
    assert says(quiet, policy=elsewhere).endswith("after Tue 2 Mar 2027 15:00 +04 at the earliest")


def share(measure="agreement", agreed=0, n=0, **more):
    """Return a share's condition with a threshold of 80 %."""
    rest = {"label": None, "lever": None, "log_e": 0.0, "log_e_needed": 3.0, "bound": 0.5}
    outlook = {"met": False, "records_needed_min": None, "probability_below": 0.1}
    outlook |= {"records_needed_p50": None, "records_needed_p90": None}
    counts = {"n": n, "counts": (agreed, n - agreed), "estimate": agreed / n if n else None}
    name = measure.split(" ")[0]
    of = {"condition": f"{measure} at least 80 %", "name": measure, "unit": ""}
    of |= {"measure": name, "threshold": 0.8}
    return ConditionFacts(**{**rest, **outlook, **counts, **of, "at_least": True, **more})


def progress(*conditions, closed, missing=0, lacks=(), **more):
    texts = tuple(map(say_requirement, lacks))
    gate = GateFacts("supervised", 0.05, not conditions, texts, lacks, ("operator",), conditions)
    return GateOutlook(gate, EvidenceCounts(closed=closed, missing=missing), **more)


def test_cells_without_a_counted_decision_show_reasons_and_never_a_share(says):
    reasons = {"reviewer unsure": 3, "exposure unknown": 9617}
    lacks = (
        UnmetRequirement(UNITS, 0, 100),
        UnmetRequirement(MISSING, 9620, 9620, share_at_most=0.05),
    )
    text = says(
        BEGUN,
        progress=progress(
            share(n=9620), closed=9620, missing=9620, lacks=lacks, missing_reasons=reasons
        ),
    )
    assert text == (
        "supervised: no decision counts as evidence yet;"
        " not counted: exposure unknown (9,617), reviewer unsure (3)"
    )
    live = says(BEGUN, progress=progress(share(n=9620), closed=9620, missing=9620, lacks=lacks))
    assert live.endswith("not counted: missing units (9,620)")


def test_a_forecast_is_rounded_and_in_days_at_the_present_rate(says):
    on_course = share(agreed=95, n=100, records_needed_p50=9194, records_needed_p90=19889)
    text = says(BEGUN, progress=progress(on_course, closed=100, per_day=102.0))
    assert text == (
        "supervised: agreement at least 80 %: 95 of 100 (95.0\xa0%), about 9,200 more decisions,"
        " 90 days at the present rate"
    )


def test_a_rare_label_takes_as_many_more_days_as_it_is_rarer(says):
    rare = share("recall of bear", agreed=9, n=10, records_needed_p50=20)
    text = says(BEGUN, progress=progress(rare, closed=100, per_day=10.0))
    assert text.endswith("about 20 more decisions, 20 days at the present rate")


def test_no_date_is_given_for_planted_cases_which_come_as_users_plant_them(says):
    planted = share(
        "recall of bear of planted cases", agreed=9, n=10, records_needed_p50=20, is_planted=True
    )
    text = says(BEGUN, progress=progress(planted, closed=100, per_day=10.0))
    assert text.endswith("about 20 more decisions")


def test_without_a_rate_no_date_is_given(says):
    text = says(BEGUN, progress=progress(share(agreed=1, n=1, records_needed_min=16), closed=1))
    assert text.endswith("at least 16 more decisions, if the model is right in all")


def test_minimums_of_a_later_span_than_the_shares_say_so(says):
    lacks = (
        UnmetRequirement(UNITS, 0, 1000),
        UnmetRequirement(DAYS, 0, 7),
        UnmetRequirement(MISSING, 70, 1000, share_at_most=0.05),
    )
    condition = share(agreed=10, n=1000, probability_below=0.9)
    text = says(
        BEGUN,
        progress=progress(
            condition, closed=1000, missing=70, lacks=lacks, is_minimum_newer=True, per_day=10.0
        ),
    )
    assert text == (
        "supervised: needs 1,000 decided units at this stage, 0 so far (100 days at the present"
        " rate); needs 7 days at this stage, 0 so far; 70 of 1,000 units are missing"
        " (at most 5 % allowed);"
        " agreement at least 80 %: 10 of 1,000 (1.0\xa0%), below the threshold; missing"
        " units count as disagreements"
    )


def test_a_met_gate_is_told_as_met(says, bears):
    gate = bears.find_gate(1, CREEK)
    met = GateFacts(gate.to, gate.risk, True, (), (), ("operator",), (share(met=True),))
    assert says(BEGUN, progress=GateOutlook(met)) == f"the gate to {gate.to} is met"

"""What is allowed where: grants, stops, suspensions and the one function that reads them."""

from dataclasses import replace
from datetime import date, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import (
    FIRST_SHARE,
    CellState,
    GivenApproval,
    Grant,
    ProposalState,
    Scope,
    compute_held_level,
    compute_stage_level,
    count_filled_needs,
    find_acting_version,
)
from rollout.engine.events import Widened
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.policy import Limit
from tests.factories import (
    CREEK,
    CREEK_NIGHT,
    DAY,
    HEARTBEAT,
    HOUR,
    LAKE,
    NOON,
    RolloutDriver,
    alarm,
    autonomous,
    policy,
    replace_cell_state,
    supervised,
)

MOMENT = timedelta(microseconds=1)


def grant(stage: str, since=NOON, until=NOON + DAY) -> Grant:
    return Grant(stage, since, until, "P-1", held_since=since)


def state(*grants: Grant) -> CellState:
    return CellState(attempt_since=NOON, changed_at=NOON, grants=grants)


# Approvals


def yes(name: str, *groups: str) -> GivenApproval:
    return GivenApproval(name, groups, NOON)


@pytest.mark.parametrize(
    ("needs", "approvals", "count"),
    [
        ((), (yes("a", "operator"),), 0),
        (("operator",), (), 0),
        (("operator", "operator"), (yes("a", "operator"),), 1),
        (("operator", "operator"), (yes("a", "operator"), yes("b", "operator")), 2),
        (("operator", "safety"), (yes("a", "operator"), yes("b", "operator")), 1),
        (("operator", "safety"), (yes("a", "operator", "safety"),), 1),
        (("operator", "safety"), (yes("a", "operator", "safety"), yes("b", "operator")), 2),
        (
            ("finance", "operator", "safety"),
            (yes("a", "finance", "operator"), yes("b", "operator"), yes("c", "safety", "finance")),
            3,
        ),
    ],
)
def test_one_person_fills_one_need_and_the_best_matching_counts(needs, approvals, count):
    for order in permutations(approvals):
        assert count_filled_needs(needs, order) == count


@given(st.lists(st.sets(st.sampled_from("osf")), max_size=4), st.text("osf", max_size=4))
def test_filling_agrees_with_trying_every_pairing(people, needs):
    approvals = tuple(yes(str(n), *sorted(groups)) for n, groups in enumerate(people))
    seats = [None] * len(needs)
    best = max(
        sum(a is not None and need in a.groups for need, a in zip(needs, order, strict=False))
        for order in permutations((*approvals, *seats))
    )
    assert count_filled_needs(tuple(needs), approvals) == best


def test_a_proposal_is_approved_when_everybody_asked_has_said_yes():
    asked = ProposalState("P-1", "widening", NOON, "policy", NOON + DAY, "", ("operator", "safety"))
    assert not replace(asked, approvals=(yes("a", "operator"),)).is_approved
    assert replace(asked, approvals=(yes("a", "operator"), yes("b", "safety"))).is_approved


# Grants


def test_a_grant_is_valid_from_its_beginning_until_before_its_end():
    one = grant("supervised")
    assert [one.is_valid(NOON + d) for d in (-MOMENT, 0 * DAY, DAY - MOMENT, DAY)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("grants", "rung"),
    [
        ((), 0),
        ((grant("supervised"),), 1),
        ((grant("supervised"), grant("autonomous")), 2),
        ((grant("autonomous"),), 0),
        ((grant("supervised", until=NOON), grant("autonomous")), 0),
        ((grant("supervised"), grant("autonomous", until=NOON)), 1),
        ((grant("supervised"), grant("autonomous", since=NOON + HOUR)), 1),
    ],
    ids=["none", "one", "two", "gap", "lower ended", "upper ended", "upper not begun"],
)
def test_a_rung_stands_on_every_rung_below(grants, rung):
    assert compute_held_level(policy(), state(*grants), NOON) == rung


# Stage


def test_in_doubt_everything_is_shadow():
    scope, rules = autonomous().scope, policy()
    at = scope.at
    assert compute_stage_level(scope, rules, CREEK, "v1", at) == 2
    assert compute_stage_level(Scope(), rules, CREEK, "v1", at) == 0
    assert compute_stage_level(scope, rules, CREEK, "v9", at) == 0
    assert compute_stage_level(scope, rules, Cell("moon", "day"), "v1", at) == 0
    assert compute_stage_level(scope, rules, Cell("creek", "other"), "v1", at) == 0
    assert compute_stage_level(scope, rules, LAKE, "v1", at) == 0


def test_a_cell_that_the_policy_does_not_know_is_shadow_whatever_it_holds():
    scope = autonomous().scope
    without = policy(sites=policy().sites[1:])
    assert compute_stage_level(scope, without, CREEK, "v1", scope.at) == 0


def test_the_stage_is_cut_to_the_ceiling():
    scope = autonomous().scope
    capped = policy(limits=(Limit(never_above="supervised"),))
    assert compute_stage_level(scope, capped, CREEK, "v1", scope.at) == 1


def test_a_trial_ends_by_itself_at_the_end_of_its_last_local_day():
    scope = autonomous().scope
    trial = policy(limits=(Limit(ends=date(2027, 6, 1)),))
    midnight = NOON + 12 * HOUR
    assert compute_stage_level(scope, trial, CREEK, "v1", midnight - MOMENT) == 2
    assert compute_stage_level(scope, trial, CREEK, "v1", midnight) == 0


def test_a_clock_set_back_brings_no_permission_back():
    rollout = autonomous()
    rollout.at = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until
    rollout.stop(LAKE)  # an entry in the ledger after the end, and no tick that notes it
    assert rollout.stage(at=rollout.at - 10 * DAY) == "shadow"


def test_a_retired_version_is_shadow_even_if_it_were_given_a_grant():
    rollout = autonomous()
    gone = rollout.retire()
    granted = [e for e in rollout.events if isinstance(e, Widened)]
    scope = apply_events([*gone, *granted], RolloutDriver().scope)
    assert len(scope.get_cell_state(CREEK, "v1").grants) == 2
    assert compute_stage_level(scope, rollout.policy, CREEK, "v1", rollout.at) == 0


@pytest.mark.parametrize("how", ["stop", "suspension", "retirement"])
def test_withheld_grants_give_nothing(how):
    rollout = autonomous()
    match how:
        case "stop":
            rollout.stop()
        case "suspension":
            rollout.tick({CREEK: alarm(HEARTBEAT)})
        case "retirement":
            rollout.retire()
    assert rollout.stage() == "shadow"


# Who acts


def test_one_version_acts_above_shadow_in_a_cell():
    rollout = supervised(policy(), "v1", "v2")
    assert find_acting_version(rollout.scope, rollout.policy, CREEK, rollout.at) == ("v1", 1)
    assert find_acting_version(rollout.scope, rollout.policy, LAKE, rollout.at) is None


def test_a_version_that_is_stopped_holds_its_grants_but_does_not_act():
    rollout = supervised()
    rollout.stop()
    assert rollout.scope.get_holder(CREEK) == "v1"
    assert find_acting_version(rollout.scope, rollout.policy, CREEK, rollout.at) is None


def test_a_state_without_grants_takes_the_place_of_nobody():
    scope = supervised(policy(), "v1", "v2").scope
    scope = replace_cell_state(scope, CREEK, "v2", scope.get_cell_state(CREEK, "v2"))
    assert scope.get_holder(CREEK) == "v1"
    scope = replace_cell_state(
        scope, CREEK, "v1", replace(scope.get_cell_state(CREEK, "v1"), grants=())
    )
    assert scope.get_holder(CREEK) is None


def test_a_version_that_was_never_widened_counts_from_when_it_was_seen():
    rollout = RolloutDriver()
    fresh = rollout.scope.get_cell_state(CREEK_NIGHT, "v1")
    assert fresh == CellState(attempt_since=NOON, changed_at=NOON, risk_share=FIRST_SHARE)


def test_a_scope_is_a_value_that_nothing_changes():
    scope = supervised().scope
    with pytest.raises(TypeError):
        scope.cells[CREEK, "v1"] = state()
    with pytest.raises(AttributeError):
        scope.revision = 9

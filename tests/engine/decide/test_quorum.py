"""Whether enough people are there: against every way to send them to their places."""

from collections import Counter
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.approvals import (
    find_eligible_requesters,
    find_group_memberships,
    find_groups,
    find_missing_for_resume,
    find_unfilled_needs,
    list_resume_needs,
)
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.scope import (
    CellState,
    GivenApproval,
    Grant,
    Scope,
    Stop,
    Version,
    count_filled_needs,
)
from rollout.engine.decide.stops import find_resume_needs
from rollout.kernel.policy.policy import Gate, Where
from tests.factories import (
    AGREEMENT,
    CREEK,
    CREEK_NIGHT,
    DAY,
    LAKE,
    NOON,
    policy,
    replace_cell_state,
)

GROUPS = ("operator", "safety", "finance")
needs = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=4).map(tuple)
people = st.lists(st.sets(st.sampled_from(GROUPS), max_size=3), max_size=5).map(
    lambda held: {f"p{n}": tuple(sorted(groups)) for n, groups in enumerate(held)}
)


def can_be_taken_back(asked, there):
    """Try each order of people: the first asks, each of the next fills one need."""
    return any(
        "operator" in there[first]
        and all(group in there[name] for group, name in zip(asked, others, strict=True))
        for first, *others in permutations(there, len(asked) + 1)
    )


@given(needs, people)
def test_a_resume_lacks_somebody_exactly_when_no_assignment_of_people_does(asked, there):
    assert (find_missing_for_resume(asked, there) == ()) == can_be_taken_back(asked, there)


@given(needs, people)
def test_whom_a_resume_lacks_is_enough_and_one_less_is_not(asked, there):
    lacks = find_missing_for_resume(asked, there)
    added = {f"new{n}": (group,) for n, group in enumerate(lacks)}
    assert can_be_taken_back(asked, there | added)
    if lacks:
        added.popitem()
        assert not can_be_taken_back(asked, there | added)


@given(needs, people)
def test_as_many_needs_are_filled_as_the_engine_counts_approvals(asked, there):
    yes = tuple(GivenApproval(name, groups, NOON) for name, groups in there.items())
    assert len(asked) - len(find_unfilled_needs(asked, there)) == count_filled_needs(asked, yes)


@given(needs, people)
def test_whoever_asks_is_an_operator_and_leaves_enough_others(asked, there):
    def leaves(name):
        others = tuple(GivenApproval(n, g, NOON) for n, g in there.items() if n != name)
        return "operator" in there[name] and count_filled_needs(asked, others) == len(asked)

    assert find_eligible_requesters(asked, there) == tuple(
        sorted(name for name in there if leaves(name))
    )


def test_an_operator_is_what_is_missing_where_one_would_do():
    there = {"ana": ("operator", "safety"), "bo": ("operator",)}
    assert find_missing_for_resume(("operator", "safety"), there) == ("operator",)
    assert find_missing_for_resume(("operator", "safety"), {"bo": ("operator",)}) == (
        "safety",
        "operator",
    )


# What a resume may ask

SAFETY = ("operator", "safety")
GATES = (
    Gate("supervised", (AGREEMENT,), 0.05, approvals=("operator",)),
    Gate("autonomous", (AGREEMENT,), 0.05, approvals=SAFETY, where=Where(windows=("day",))),
    Gate("autonomous", (AGREEMENT,), 0.05, approvals=("operator", "finance")),
)
HERE = (CREEK, CREEK_NIGHT)


def engine_asks(made, rungs):
    """Return what the engine asks of a resume of cells that come back to these stages."""
    scope = Scope(versions={"v1": Version("v1", NOON)})
    for cell, rung in rungs.items():
        stages = made.stages[:rung]
        grants = tuple(Grant(stage.id, NOON, NOON + DAY, "P-1", NOON) for stage in stages)
        scope = replace_cell_state(scope, cell, "v1", CellState(NOON, NOON, grants=grants))
    stop = Stop("S-1", frozenset(rungs), "ana", NOON)
    return tuple(sorted(find_resume_needs(scope, made, stop, NOON)))


def test_what_a_resume_may_ask_is_what_the_engine_asks():
    made = policy(gates=GATES)
    told = list_resume_needs(made, HERE)
    found = [
        engine_asks(made, dict(zip(HERE, rungs, strict=True)))
        for rungs in product(range(3), repeat=2)
    ]
    assert set(told) <= set(found)
    assert all(any(Counter(one) <= Counter(asked) for asked in told) for one in found)
    assert told[("operator", "operator")] == ("",)
    assert told[("finance", "operator", "safety")] == ("autonomous",)


def test_a_resume_to_a_stage_without_a_gate_asks_the_people_of_the_highest():
    made = policy(gates=GATES[1:2])
    assert list_resume_needs(made, HERE)["operator", "safety"] == ("supervised", "autonomous")
    assert engine_asks(made, {CREEK_NIGHT: 1}) == ("operator", "safety")


def test_stages_that_ask_the_same_people_are_told_together():
    assert list_resume_needs(policy(gates=GATES), (CREEK, LAKE))["operator", "safety"] == (
        "autonomous",
    )
    both = policy(gates=(GATES[0], Gate("autonomous", (AGREEMENT,), 0.05, approvals=("operator",))))
    assert list_resume_needs(both, HERE)["operator",] == ("supervised", "autonomous")


# Who stands where

places = st.sampled_from(["", "creek", "lake"])
rights = st.builds(
    lambda group, rollout, site: AssignedRole(
        "operator" if group == "operator" else "approver",
        rollout or ("ramps" if site else ""),
        site,
        "" if group == "operator" else group,
    ),
    st.sampled_from(GROUPS[:2]),
    st.sampled_from(["", "ramps", "doors"]),
    places,
)
callers = st.lists(st.lists(rights, max_size=3), max_size=4).map(
    lambda held: [Caller(f"p{n}", role_assignments=tuple(own)) for n, own in enumerate(held)]
)


@given(callers, st.sampled_from([("creek",), ("creek", "lake"), ("creek", "lake", "pond")]))
def test_staff_stand_where_their_rights_say(everybody, sites):
    staff = find_group_memberships(everybody, "ramps", sites)
    assert dict(staff.by_site) == {site: find_groups(everybody, "ramps", (site,)) for site in sites}
    assert staff.at_all_sites == find_groups(everybody, "ramps", sites)


@pytest.mark.parametrize("role", ["viewer", "reviewer", "admin"])
def test_whoever_neither_operates_nor_approves_stands_nowhere(role):
    staff = find_group_memberships(
        [Caller("vic", role_assignments=(AssignedRole(role),))], "ramps", ("creek",)
    )
    assert staff.by_site == {"creek": {}}

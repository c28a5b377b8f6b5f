"""What held when: attempts, shares and stages belong to the slot in which a unit occurred."""

from dataclasses import replace
from datetime import timedelta

import numpy as np

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import (
    Narrowed,
    PolicyApplied,
    Resumed,
    RolloutCreated,
    Stopped,
    Suspended,
    VersionFirstUsed,
    Widened,
)
from rollout.kernel.calendar.instants import Cell, Site, find_slot_after
from rollout.kernel.policy.policy import Stage
from rollout.kernel.policy.record_definition import compute_definition
from rollout.kernel.units import CostRule, Lever
from rollout.live.evidence.stage_history import RolloutHistory
from tests.engine.evidence.histories import HOUR, a_policy, hour
from tests.factories import begin_attempt

SITES = (Site("creek", "UTC"), Site("lake", "UTC"))
CREEK, LAKE = Cell("creek", "always"), Cell("lake", "always")
HALF = replace(a_policy(sites=SITES), hash="half")
MOST = replace(HALF, stages=(Stage("supervised", blind=0.8), HALF.stages[1]), hash="most")
POLICIES = {policy.hash: policy for policy in (HALF, MOST)}


def slot(number):
    return find_slot_after(hour(number), HALF.tick)


def applied(at, policy, number=1, **more):
    return PolicyApplied(at=hour(at), by="ana", number=number, policy_hash=policy.hash, **more)


def widened(at, to="supervised", cell=CREEK, lasts=100):
    until = hour(at) + lasts * HOUR
    return Widened(
        at=hour(at), by="policy", cell=cell, version="v1", to_stage=to, until=until, proposal="P"
    )


def narrowed(at, to="shadow", from_stage="supervised", **more):
    own = {"cell": CREEK, "version": "v1", "from_stage": from_stage, "to_stage": to}
    return Narrowed(at=hour(at), by="policy", **own, **more)


def begun(*events, policies=POLICIES):
    start = (
        RolloutCreated(at=hour(0), by="policy", salt_hash=""),
        applied(0, HALF),
        VersionFirstUsed(at=hour(0), by="policy", version="v1"),
    )
    past = RolloutHistory()
    past.add_events((*start, *events), policies.__getitem__)
    return past


def rungs(past, cell=CREEK, until=60):
    past.advance_to(slot(until))
    return [
        int(row)
        for row in past.get_stage_history(cell).find_levels(
            np.array([slot(n) for n in range(until)])
        )
    ]


def test_a_unit_belongs_to_the_attempt_in_which_it_occurred():
    past = begun(widened(5), narrowed(10.5, restart=True), narrowed(20, restart=True))
    found = [past.find_attempt(CREEK, "v1", slot(n)) for n in (0, 10, 11, 19, 20, 30)]
    assert found == [1, 1, 2, 2, 3, 3]
    assert past.find_attempt(LAKE, "v1", slot(30)) == past.find_attempt(CREEK, "v2", slot(30)) == 1


def test_a_policy_that_clears_or_restarts_a_cell_begins_an_attempt_of_the_versions_seen():
    edited = applied(10, MOST, 2, cleared=(CREEK,), restarted=(CREEK, LAKE))
    past = begun(begin_attempt("v1", LAKE, at=hour(0)), edited)
    assert [past.find_attempt(cell, "v1", slot(10)) for cell in (CREEK, LAKE)] == [2, 2]
    assert begun(edited).find_attempt(LAKE, "v1", slot(10)) == 1  # nothing could be looked at
    assert past.find_attempt(CREEK, "v1", slot(9)) == 1
    assert past.find_attempt(CREEK, "v2", slot(10)) == 1


def shown(past, occurred, draws):
    """Return which of the units that occurred in a slot the engine is shown."""
    at = np.full(len(draws), slot(occurred))
    levels = past.get_stage_history(CREEK).find_levels(at)
    buckets = past.find_buckets(at, np.array(draws), np.ones(len(draws)))
    return past.stage_shares.find_reviewed(buckets, levels).tolist()


def test_units_are_shown_under_the_shares_that_were_in_force_when_they_occurred():
    past = begun(widened(10), applied(20, MOST, 2))
    past.advance_to(slot(40))
    draws = [0.3, 0.6, 0.9]
    assert shown(past, 5, draws) == [True, True, True]
    assert shown(past, 15, draws) == [True, False, False]
    assert shown(past, 20, draws) == [True, True, False]


def test_policies_that_show_the_same_share_their_rows():
    past = begun(widened(10), applied(20, MOST, 2), applied(30, replace(HALF, hash="half"), 3))
    assert len(past.stage_shares.blind_buckets) == 1 + 2 * len(HALF.stages)
    assert rungs(past)[15] == rungs(past)[35] != rungs(past)[25]


def test_stages_follow_events_of_their_cell_and_the_end_of_grants():
    past = begun(widened(10), widened(12, "autonomous", lasts=8), widened(30, cell=LAKE, lasts=5))
    found = rungs(past)
    assert [found[n] for n in (9, 10, 11, 12, 19, 20, 59)] == [0, 1, 1, 2, 2, 1, 1]
    lake = rungs(past, LAKE)
    assert [lake[n] for n in (29, 30, 34, 35)] == [0, 1, 1, 0]


def test_what_happens_between_two_slots_holds_from_the_later_on():
    past = begun(widened(10), narrowed(10.5), widened(20.2))
    found = rungs(past)
    assert [found[n] for n in (10, 11, 20, 21)] == [1, 0, 0, 1]


def test_a_stop_a_resume_and_a_suspension_are_seen():
    stop = Stopped(at=hour(12), by="bo", stop="S-1", cells=(CREEK,))
    resume = Resumed(at=hour(15), by="policy", stop="S-1", proposal="P-9")
    off = Suspended(at=hour(18), by="policy", cell=CREEK, version="v1", guard="latency")
    found = rungs(begun(widened(10), stop, resume, off))
    assert [found[n] for n in (11, 12, 14, 15, 17, 18)] == [1, 0, 0, 1, 1, 0]


def test_marking_in_steps_is_marking_at_once():
    events = (widened(10, lasts=25), narrowed(20), widened(22.5), applied(30, MOST, 2))
    steps, once = begun(*events), begun(*events)
    for number in range(60):
        steps.advance_to(slot(number))
    once.advance_to(slot(59))
    assert steps.get_stage_history(CREEK) == once.get_stage_history(CREEK)
    assert once.get_stage_history(CREEK).slots == tuple(slot(n) for n in (10, 20, 23, 30))


def test_a_scope_that_is_known_is_gone_on_from_and_shows_the_same():
    events = (widened(10, lasts=25), narrowed(20), widened(22.5), applied(30, MOST, 2))
    known, folded = begun(*events), begun(*events)
    start = RolloutCreated(at=hour(0), by="policy", salt_hash="")
    seen = VersionFirstUsed(at=hour(0), by="policy", version="v1")
    scope = apply_events((start, applied(0, HALF), seen, *events))
    assert known.advance_to(slot(59), scope) == folded.advance_to(slot(59))
    assert known.get_stage_history(CREEK) == folded.get_stage_history(CREEK)
    assert known._scope is scope == folded._scope


def test_a_scope_that_lacks_what_was_taken_is_not_gone_on_from():
    past, begins = begun(widened(10)), begun()
    begins.advance_to(slot(59))
    past.advance_to(slot(59), begins._scope)
    assert past.get_stage_history(CREEK).slots == (slot(10),)


def test_marking_costs_what_happened_and_not_the_slots_between():
    past = begun(widened(10, lasts=200_000))
    assert past.advance_to(slot(10)) == {CREEK}
    assert past.advance_to(slot(100_000)) == set()


LEVER = Lever(
    "alarm",
    ("bear", "none"),
    ("ring", "wait"),
    costs=(CostRule(5, did="wait", right="ring"), CostRule(1)),
)
FOX = replace(
    LEVER,
    labels=(*LEVER.labels, "fox"),
    actions=(*LEVER.actions, "film"),
    costs=(CostRule(3, did="film"), *LEVER.costs),
)
OTHER = replace(
    FOX, costs=(CostRule(3, did="film"), CostRule(4, did="wait", right="ring"), CostRule(1))
)


def test_evidence_goes_on_under_a_definition_with_labels_added_at_the_end():
    two, three, other = (
        replace(HALF, levers=(lever,), hash=name)
        for lever, name in ((LEVER, "two"), (FOX, "three"), (OTHER, "other"))
    )
    policies = {p.hash: p for p in (two, three, other)}
    past = RolloutHistory()
    past.add_events((applied(0, two), applied(9, three, 2)), policies.__getitem__)
    assert past.find_equivalent_definitions(CREEK) == {
        compute_definition(three, CREEK): (0.0, 1.0, 3.0, 5.0),
        compute_definition(two, CREEK): (0.0, 1.0, 5.0),
    }
    past.add_events((applied(20, other, 3),), policies.__getitem__)
    assert set(past.find_equivalent_definitions(CREEK)) == {compute_definition(other, CREEK)}


def test_grants_end_in_the_slot_after_their_time():
    found = rungs(begun(widened(10, lasts=5.5)))
    assert [found[n] for n in (15, 16)] == [1, 0]
    assert timedelta(hours=1) == HALF.tick

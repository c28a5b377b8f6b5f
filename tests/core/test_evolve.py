"""The fold of events into a scope: it applies what happened and never refuses."""

from dataclasses import replace

import pytest

from rollout.core.events import (
    KINDS,
    Approved,
    Cleared,
    Event,
    IncidentOpened,
    Lapsed,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    RolloutCreated,
    Suspended,
    TakenOver,
    VersionRetired,
    VersionSeen,
    Widened,
)
from rollout.core.evolve import evolve, fold
from rollout.core.scope import Scope
from tests.factories import (
    CREEK,
    DAY,
    HOUR,
    LAKE,
    NOON,
    eventful,
    kinds,
)

SEEN = VersionSeen(at=NOON, by="policy", version="v1")


def widened(to: str, *, at=NOON, version: str = "v1") -> Widened:
    return Widened(
        at=at, by="policy", cell=CREEK, version=version, to=to, until=at + 90 * DAY, proposal=""
    )


CLIMBED = fold([SEEN, widened("supervised"), widened("autonomous", at=NOON + HOUR)])


def cell(scope: Scope, version: str = "v1"):
    return scope.state(CREEK, version)


def of_cell(kind: type[Event], **fields):
    return kind(**{"at": NOON + DAY, "by": "policy", "cell": CREEK, "version": "v1", **fields})


def test_every_event_moves_revision_and_time_on_and_time_never_back():
    scope = fold([SEEN, replace(SEEN, version="v2", at=NOON - DAY)])
    assert (scope.revision, scope.at) == (2, NOON)


def test_what_is_history_alone_changes_no_scope():
    after = evolve(CLIMBED, RolloutCreated(at=NOON + DAY, by="policy", salt="0"))
    assert replace(after, at=CLIMBED.at, revision=CLIMBED.revision) == CLIMBED


def test_an_event_changes_no_scope_before_it():
    before = fold([SEEN, widened("supervised")])
    kept = repr(before)
    evolve(before, of_cell(Narrowed, came_from="supervised", to="shadow", restart=True))
    assert repr(before) == kept


def test_a_version_is_first_seen_once():
    scope = fold([SEEN, replace(SEEN, at=NOON + DAY)])
    assert scope.versions["v1"].first_seen == NOON


def test_widening_pushes_a_grant_and_starts_minimums_and_detectors_anew():
    scope = fold([SEEN, widened("supervised")])
    state = cell(scope)
    assert [g.stage for g in state.grants] == ["supervised"]
    assert (state.changed_at, state.attempt_since, scope.widened_at[CREEK]) == (NOON, NOON, NOON)
    assert cell(CLIMBED).changed_at == NOON + HOUR


@pytest.mark.parametrize(("to", "left"), [("supervised", 1), ("shadow", 0)])
def test_narrowing_pops_to_the_stage_named(to, left):
    scope = evolve(CLIMBED, of_cell(Narrowed, came_from="autonomous", to=to))
    assert (len(cell(scope).grants), cell(scope).changed_at) == (left, NOON + DAY)
    assert (cell(scope).attempt, cell(scope).attempt_since) == (1, NOON)
    assert scope.holder(CREEK) == ("v1" if left else None)


def test_an_alarm_of_quality_begins_the_next_attempt_now():
    event = of_cell(Narrowed, came_from="autonomous", to="shadow", guard="g", restart=True)
    state = cell(evolve(CLIMBED, event))
    assert (state.attempt, state.attempt_since, state.alarms) == (2, NOON + DAY, {"g": NOON + DAY})


def test_the_next_widening_forgets_neither_attempts_nor_alarms():
    event = of_cell(Narrowed, came_from="autonomous", to="shadow", guard="g", restart=True)
    state = cell(fold([event, widened("supervised", at=NOON + 2 * DAY)], CLIMBED))
    assert (state.attempt, set(state.alarms)) == (2, {"g"})


def test_a_lapse_takes_what_stood_on_it_and_dates_it_back_to_the_end():
    event = of_cell(Lapsed, stage="supervised", until=NOON + 2 * HOUR)
    state = cell(evolve(CLIMBED, event))
    assert (state.grants, state.changed_at) == ((), NOON + 2 * HOUR)
    top = cell(evolve(CLIMBED, of_cell(Lapsed, stage="autonomous", until=NOON + 2 * HOUR)))
    assert [g.stage for g in top.grants] == ["supervised"]


def test_a_lapse_of_what_is_not_held_changes_nothing():
    once = evolve(CLIMBED, of_cell(Lapsed, stage="supervised", until=NOON))
    again = evolve(once, of_cell(Lapsed, stage="supervised", until=NOON))
    assert cell(again) == cell(once)


def test_a_suspension_withholds_until_each_guard_is_cleared():
    scope = fold([of_cell(Suspended, guard="a"), of_cell(Suspended, guard="b")], CLIMBED)
    assert cell(scope).suspended_by == {"a", "b"}
    scope = evolve(scope, of_cell(Cleared, guard="a"))
    assert cell(scope).suspended_by == {"b"}
    assert [g for g, _ in cell(scope).suspensions] == ["a", "b"]


def test_the_last_ten_suspensions_are_kept():
    scope = fold([of_cell(Suspended, guard=str(n)) for n in range(12)], CLIMBED)
    assert [g for g, _ in cell(scope).suspensions] == [str(n) for n in range(2, 12)]


def test_losing_every_grant_ends_suspensions_and_reports():
    told = IncidentOpened(
        at=NOON, by="policy", incident="I-1", kind="alarm", did="reported", reason="", guard="r"
    )
    told = replace(told, cell=CREEK, version="v1")
    scope = fold([of_cell(Suspended, guard="a"), told], CLIMBED)
    assert (cell(scope).reported, cell(scope).alarms) == ({"r"}, {"r": NOON})
    for gone in (
        of_cell(Narrowed, came_from="autonomous", to="shadow"),
        VersionRetired(at=NOON, by="bo", version="v1"),
        PolicyApplied(at=NOON, by="bo", number=2, policy="x", cleared=(CREEK,)),
    ):
        state = cell(evolve(scope, gone))
        assert (state.grants, state.suspended_by, state.reported) == ((), frozenset(), frozenset())


def test_a_takeover_moves_the_place_and_keeps_since_when_it_is_held():
    taken = TakenOver(
        at=NOON + DAY,
        by="policy",
        cell=CREEK,
        version="v2",
        replaced="v1",
        to="supervised",
        stages=("supervised",),
        untils=(NOON + 30 * DAY,),
        proposal="",
    )
    scope = fold([replace(SEEN, version="v2"), taken], CLIMBED)
    (grant,) = cell(scope, "v2").grants
    assert (grant.since, grant.held_since, grant.until) == (NOON + DAY, NOON, NOON + 30 * DAY)
    assert (cell(scope).grants, scope.holder(CREEK)) == ((), "v2")
    assert scope.widened_at[CREEK] == NOON + DAY


def test_a_policy_starts_the_next_attempt_of_every_version_in_its_cells():
    scope = evolve(CLIMBED, replace(SEEN, version="v2"))
    applied = PolicyApplied(
        at=NOON + DAY, by="bo", number=2, policy="x", restarted=(CREEK, LAKE), cleared=(CREEK,)
    )
    scope = evolve(scope, applied)
    assert {(c, v): s.attempt for (c, v), s in scope.cells.items()} == {
        (c, v): 2 for c in (CREEK, LAKE) for v in ("v1", "v2")
    }
    assert cell(scope).grants == ()
    assert (scope.policy_number, scope.policy_hash) == (2, "x")


def test_a_proposal_is_the_open_one_of_its_cell_until_it_is_closed():
    raised = ProposalRaised(
        at=NOON,
        by="policy",
        proposal="P-1",
        kind="widening",
        expires_at=NOON + DAY,
        needs=("operator",),
        evidence="e",
        cell=CREEK,
        version="v1",
        to="supervised",
    )
    yes = Approved(at=NOON, by="bo", proposal="P-1", groups=("operator",), evidence="e")
    scope = fold([SEEN, raised, yes])
    assert (cell(scope).proposal, scope.raised) == ("P-1", 1)
    assert [a.by for a in scope.proposals["P-1"].approvals] == ["bo"]
    scope = evolve(scope, replace(widened("supervised"), proposal="P-1"))
    assert (cell(scope).proposal, dict(scope.proposals)) == (None, {})


def test_folding_the_whole_history_again_gives_the_same_scope():
    rollout = eventful()
    assert fold(rollout.events) == rollout.scope
    assert repr(fold(rollout.events)) == repr(rollout.scope)


def test_the_history_holds_every_kind_there_is():
    happened = set(kinds(tuple(eventful().events)))
    assert set(KINDS) - happened == {"RolloutCreated"}  # the service's or the replay's own


def test_a_fold_may_go_on_from_any_point():
    events = eventful().events
    for cut in range(0, len(events), 7):
        assert fold(events[cut:], fold(events[:cut])) == fold(events)

"""The fold of events into a scope: it applies what happened and never refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.engine.decide.projection import apply_event, apply_events
from rollout.engine.decide.scope import Scope, compute_stage_level
from rollout.engine.events import (
    EVENT_TYPES,
    Approved,
    ClockCorrected,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    ProposalRejected,
    RolloutCreated,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
    build_registry,
)
from tests.factories import (
    CREEK,
    DAY,
    HOUR,
    LAKE,
    NOON,
    begin_attempt,
    eventful,
    kinds,
    policy,
)

SEEN = VersionFirstUsed(at=NOON, by="policy", version="v1")


def widened(to: str, *, at=NOON, version: str = "v1") -> Widened:
    return Widened(
        at=at,
        by="policy",
        cell=CREEK,
        version=version,
        to_stage=to,
        until=at + 90 * DAY,
        proposal="",
    )


CLIMBED = apply_events([SEEN, widened("supervised"), widened("autonomous", at=NOON + HOUR)])


def cell(scope: Scope, version: str = "v1"):
    return scope.get_cell_state(CREEK, version)


def of_cell(kind: type[LedgerEvent], **fields):
    return kind(**{"at": NOON + DAY, "by": "policy", "cell": CREEK, "version": "v1", **fields})


def test_every_event_moves_revision_and_time_on_and_time_never_back():
    scope = apply_events([SEEN, replace(SEEN, version="v2", at=NOON - DAY)])
    assert (scope.revision, scope.at) == (2, NOON)


def test_what_is_history_alone_changes_no_scope():
    after = apply_event(CLIMBED, RolloutCreated(at=NOON + DAY, by="policy", salt_hash="0"))
    times = {"at": CLIMBED.at, "effective_at": CLIMBED.effective_at}
    assert replace(after, **times, revision=CLIMBED.revision) == CLIMBED


def test_an_event_changes_no_scope_before_it():
    before = apply_events([SEEN, widened("supervised")])
    kept = repr(before)
    apply_event(before, of_cell(Narrowed, from_stage="supervised", to_stage="shadow", restart=True))
    assert repr(before) == kept


def test_a_version_is_first_seen_once():
    scope = apply_events([SEEN, replace(SEEN, at=NOON + DAY)])
    assert scope.versions["v1"].first_seen == NOON


def test_widening_pushes_a_grant_and_starts_minimums_and_detectors_anew():
    scope = apply_events([SEEN, widened("supervised")])
    state = cell(scope)
    assert [g.stage for g in state.grants] == ["supervised"]
    assert (state.changed_at, state.attempt_since, scope.widened_at[CREEK]) == (NOON, NOON, NOON)
    assert cell(CLIMBED).changed_at == NOON + HOUR


@pytest.mark.parametrize(("to", "left"), [("supervised", 1), ("shadow", 0)])
def test_narrowing_pops_to_the_stage_named(to, left):
    scope = apply_event(CLIMBED, of_cell(Narrowed, from_stage="autonomous", to_stage=to))
    assert (len(cell(scope).grants), cell(scope).changed_at) == (left, NOON + DAY)
    assert (cell(scope).attempt, cell(scope).attempt_since) == (1, NOON)
    assert scope.get_holder(CREEK) == ("v1" if left else None)


def test_an_alarm_of_quality_begins_the_next_attempt_now():
    event = of_cell(Narrowed, from_stage="autonomous", to_stage="shadow", guard="g", restart=True)
    state = cell(apply_event(CLIMBED, event))
    assert (state.attempt, state.attempt_since, state.last_alarms) == (
        2,
        NOON + DAY,
        {"g": NOON + DAY},
    )


def test_the_next_widening_forgets_neither_attempts_nor_alarms():
    event = of_cell(Narrowed, from_stage="autonomous", to_stage="shadow", guard="g", restart=True)
    state = cell(apply_events([event, widened("supervised", at=NOON + 2 * DAY)], CLIMBED))
    assert (state.attempt, set(state.last_alarms)) == (2, {"g"})


def test_a_lapse_takes_what_stood_on_it_and_dates_it_back_to_the_end():
    event = of_cell(GrantExpired, stage="supervised", until=NOON + 2 * HOUR)
    state = cell(apply_event(CLIMBED, event))
    assert (state.grants, state.changed_at) == ((), NOON + 2 * HOUR)
    top = cell(
        apply_event(CLIMBED, of_cell(GrantExpired, stage="autonomous", until=NOON + 2 * HOUR))
    )
    assert [g.stage for g in top.grants] == ["supervised"]


def test_a_lapse_of_what_is_not_held_changes_nothing():
    once = apply_event(CLIMBED, of_cell(GrantExpired, stage="supervised", until=NOON))
    again = apply_event(once, of_cell(GrantExpired, stage="supervised", until=NOON))
    assert cell(again) == cell(once)


def test_a_suspension_withholds_until_each_guard_is_cleared():
    scope = apply_events([of_cell(Suspended, guard="a"), of_cell(Suspended, guard="b")], CLIMBED)
    assert cell(scope).suspended_by == {"a", "b"}
    scope = apply_event(scope, of_cell(SuspensionCleared, guard="a"))
    assert cell(scope).suspended_by == {"b"}
    assert [g for g, _ in cell(scope).suspensions] == ["a", "b"]


def test_the_last_ten_suspensions_are_kept():
    scope = apply_events([of_cell(Suspended, guard=str(n)) for n in range(12)], CLIMBED)
    assert [g for g, _ in cell(scope).suspensions] == [str(n) for n in range(2, 12)]


def test_losing_every_grant_ends_suspensions_and_reports():
    told = IncidentOpened(
        at=NOON, by="policy", incident="I-1", kind="alarm", effect="reported", reason="", guard="r"
    )
    told = replace(told, cell=CREEK, version="v1")
    scope = apply_events([of_cell(Suspended, guard="a"), told], CLIMBED)
    last = NOON + DAY  # an entry of a clock behind holds no earlier than the one before
    assert (cell(scope).reported_guards, cell(scope).last_alarms) == ({"r"}, {"r": last})
    for gone in (
        of_cell(Narrowed, from_stage="autonomous", to_stage="shadow"),
        VersionRetired(at=NOON, by="bo", version="v1"),
        PolicyApplied(at=NOON, by="bo", number=2, policy_hash="x", cleared=(CREEK,)),
    ):
        state = cell(apply_event(scope, gone))
        assert (state.grants, state.suspended_by, state.reported_guards) == (
            (),
            frozenset(),
            frozenset(),
        )


def test_a_takeover_moves_the_place_and_keeps_since_when_it_is_held():
    taken = TakenOver(
        at=NOON + DAY,
        by="policy",
        cell=CREEK,
        version="v2",
        replaced_version="v1",
        to_stage="supervised",
        stages=("supervised",),
        grant_ends=(NOON + 30 * DAY,),
        proposal="",
    )
    scope = apply_events([replace(SEEN, version="v2"), taken], CLIMBED)
    (grant,) = cell(scope, "v2").grants
    assert (grant.since, grant.held_since, grant.until) == (NOON + DAY, NOON, NOON + 30 * DAY)
    assert (cell(scope).grants, scope.get_holder(CREEK)) == ((), "v2")
    assert scope.widened_at[CREEK] == NOON + DAY


def test_a_policy_starts_the_next_attempt_of_every_version_in_its_cells():
    scope = apply_event(CLIMBED, replace(SEEN, version="v2"))
    scope = apply_events([begin_attempt(v, LAKE) for v in ("v1", "v2")], scope)
    applied = PolicyApplied(
        at=NOON + DAY, by="bo", number=2, policy_hash="x", restarted=(CREEK, LAKE), cleared=(CREEK,)
    )
    scope = apply_event(scope, applied)
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
        evidence_hash="e",
        cell=CREEK,
        version="v1",
        to_stage="supervised",
    )
    yes = Approved(at=NOON, by="bo", proposal="P-1", groups=("operator",), evidence_hash="e")
    scope = apply_events([SEEN, raised, yes])
    assert (cell(scope).proposal, scope.proposal_count) == ("P-1", 1)
    assert [a.by for a in scope.proposals["P-1"].approvals] == ["bo"]
    scope = apply_event(scope, replace(widened("supervised"), proposal="P-1"))
    assert (cell(scope).proposal, dict(scope.proposals)) == (None, {})


def test_folding_the_whole_history_again_gives_the_same_scope():
    rollout = eventful()
    assert apply_events(rollout.events) == rollout.scope
    assert repr(apply_events(rollout.events)) == repr(rollout.scope)


def test_the_history_holds_every_kind_there_is():
    happened = set(kinds(tuple(eventful().events)))
    rare = {
        "RolloutCreated",
        "RecordsPurged",
        "CasesErased",
        "NameErased",
        "RecordsImported",
        "CasesPlanted",
        "TrainingCutoffSet",
        "CalendarDataSet",
        "ReportSealed",
        "ClockCorrected",
        "RecordsCounted",
        "FamiliarityChanged",
        "EraBegan",
        "DamageCleared",
        "VersionRenamed",
        "ProposalHeld",
    }  # of service or replay, or not written yet
    assert set(EVENT_TYPES) - happened == rare


def test_a_fold_may_go_on_from_any_point():
    events = eventful().events
    for cut in range(0, len(events), 7):
        assert apply_events(events[cut:], apply_events(events[:cut])) == apply_events(events)


# A clock that is set right


def corrected(*, to: datetime, was: datetime) -> ClockCorrected:
    return ClockCorrected(at=to, by="policy", previous_time=was)


def test_a_correction_is_the_one_event_that_sets_the_time_back():
    far = NOON + 900 * DAY
    scope = apply_event(CLIMBED, replace(SEEN, at=far, version="v2"))
    scope = apply_event(scope, corrected(to=NOON + DAY, was=far))
    assert scope.at == NOON + DAY
    assert scope.versions["v2"].first_seen == NOON + DAY


@pytest.mark.parametrize(
    ("ahead", "left"), [(30 * DAY, 2), (90 * DAY, 0), (90 * DAY - timedelta(microseconds=1), 2)]
)
def test_what_lapsed_on_a_clock_that_was_ahead_stays_lapsed(ahead, left):
    was = NOON + ahead
    scope = apply_event(CLIMBED, replace(SEEN, at=was, version="v2"))
    scope = apply_event(scope, corrected(to=NOON + 2 * HOUR, was=was))
    assert len(cell(scope).grants) == left
    assert compute_stage_level(scope, policy(), CREEK, "v1", NOON + 3 * HOUR) == left
    assert scope.get_holder(CREEK) == ("v1" if left else None)


def test_a_grant_given_on_a_clock_that_was_ahead_never_wakes_up():
    far = NOON + 900 * DAY
    seen = apply_events([SEEN, widened("supervised", at=far)])
    scope = apply_event(seen, corrected(to=NOON + DAY, was=far))
    assert cell(scope).grants == ()
    assert compute_stage_level(scope, policy(), CREEK, "v1", far) == 0


def test_after_a_correction_nothing_of_a_cell_lies_ahead():
    far, to = NOON + 900 * DAY, NOON + DAY
    raised = ProposalRaised(
        at=far,
        by="policy",
        proposal="P-1",
        kind="widening",
        expires_at=far,
        needs=(),
        evidence_hash="e",
        cell=CREEK,
        version="v1",
    )
    no = ProposalRejected(at=far, by="bo", proposal="P-1", quiet_until=far + 7 * DAY)
    alarm = of_cell(
        Narrowed, at=far, from_stage="autonomous", to_stage="shadow", guard="g", restart=True
    )
    held = of_cell(Suspended, at=far, guard="a")
    scope = apply_events([raised, no, held, alarm, corrected(to=to, was=far)], CLIMBED)
    state = cell(scope)
    assert (state.attempt, state.attempt_since, state.changed_at) == (2, to, to)
    assert (state.last_alarms, state.suspensions) == ({"g": to}, (("a", to),))
    assert state.quiet_until == to + 7 * DAY
    assert scope.widened_at[CREEK] <= to


def test_the_end_of_a_suspension_or_stop_is_kept_by_cell():
    cleared = of_cell(SuspensionCleared, at=NOON + HOUR, guard="a")
    of_report = replace(cleared, at=NOON + 2 * HOUR, guard="r")  # it withheld nothing
    scope = apply_events([of_cell(Suspended, guard="a"), cleared, of_report], CLIMBED)
    assert scope.returned_at == {CREEK: NOON + HOUR}
    far = NOON + DAY
    scope = apply_event(scope, corrected(to=NOON + HOUR / 2, was=far))
    assert scope.returned_at == {CREEK: NOON + HOUR / 2}


# Incidents


def test_an_incident_is_open_until_it_is_acknowledged():
    told = IncidentOpened(
        at=NOON,
        by="policy",
        incident="I-1",
        kind="ledger_rolled_back",
        effect="",
        reason="r",
        about="box-7",
    )
    scope = apply_event(CLIMBED, told)
    assert [(i.kind, i.reason, i.about) for i in scope.open_incidents.values()] == [
        ("ledger_rolled_back", "r", "box-7")
    ]
    scope = apply_event(scope, IncidentAcknowledged(at=NOON, by="bo", incident="I-1"))
    assert (dict(scope.open_incidents), scope.incident_count) == ({}, 1)


def test_of_no_events_comes_the_very_same_scope():
    scope = apply_events(
        [VersionFirstUsed(at=datetime(2027, 6, 1, tzinfo=UTC), by="policy", version="v1")]
    )
    assert apply_events((), scope) is scope


def test_kind_without_apply_stops_the_import():
    class WeatherNoted(LedgerEvent):
        __slots__ = ()

    with pytest.raises(TypeError, match="WeatherNoted lacks apply"):
        build_registry(Widened, WeatherNoted)

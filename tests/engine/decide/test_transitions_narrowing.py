"""The way down: alarms, suspensions, narrow, lapse, retire (model.md §2)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.decide.commands import AcknowledgeIncident, Actor, Tick
from rollout.engine.decide.scope import compute_stage_level
from rollout.engine.events import (
    GrantExpired,
    IncidentOpened,
    Narrowed,
    Suspended,
    VersionFirstUsed,
)
from rollout.engine.ledger.ledger import list_fields
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import (
    NotNarrowerError,
    UnknownCellError,
    UnknownVersionError,
    UserRequiredError,
)
from rollout.kernel.facts import ENDED_GRANT, USER_NARROWED, AlarmSubject, StoredAlarm
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.populations import EachValue
from tests.factories import (
    AUTONOMOUS,
    BO,
    BOT,
    CHANGE,
    CREEK,
    CREEK_NIGHT,
    CY,
    DAN,
    DAY,
    HARM,
    HEARTBEAT,
    HOUR,
    LAKE,
    LATENCY,
    MET,
    NOON,
    NOTHING,
    QUALITY,
    TICK,
    UNAUDITED,
    RolloutDriver,
    alarm,
    autonomous,
    gates,
    good,
    kinds,
    policy,
    supervised,
)

OF_QUALITY = [
    Guard(Condition(MEASURES["agreement"], 0.9), then="one-stage"),
    Guard(Condition(MEASURES["recall"], 0.9, label="bear"), then="one-stage"),
    Guard(Condition(MEASURES["precision"], 0.9, label="bear"), then="one-stage"),
    Guard(Condition(MEASURES["cost"], 0.3), then="one-stage"),
    Guard(Condition(MEASURES["override"], 0.2), then="one-stage"),
    Guard(Condition(MEASURES["harm"], 0), then="one-stage", over=DAY),
    Guard(Condition(MEASURES["action_change"], 5, action="siren"), then="one-stage"),
]
OPERATIONAL = [
    Guard(Condition(MEASURES["latency_p95"], 1), then="one-stage", over=HOUR),
    Guard(Condition(MEASURES["failures"], 0.1), then="one-stage", over=HOUR),
    Guard(Condition(MEASURES["heartbeat"], 600), then="one-stage"),
    Guard(Condition(MEASURES["missing"], 0.1), then="one-stage", over=DAY),
    UNAUDITED,
]


def attempt(rollout: RolloutDriver, cell: Cell = CREEK) -> int:
    return rollout.scope.get_cell_state(cell, "v1").attempt


# Alarms


@pytest.mark.parametrize("guard", OF_QUALITY, ids=str)
def test_a_guard_of_quality_pops_one_grant_and_the_attempt_rises(guard):
    rollout = autonomous(policy(guards=(guard,)))
    events = rollout.tick({CREEK: alarm(guard)})
    assert kinds(events) == ["Narrowed", "IncidentOpened"]
    assert (events[0].from_stage, events[0].to_stage, events[0].by) == (
        "autonomous",
        "supervised",
        "policy",
    )
    assert rollout.stage() == "supervised"
    assert attempt(rollout) == 2
    assert rollout.scope.get_cell_state(CREEK, "v1").attempt_since == rollout.at


@pytest.mark.parametrize("guard", OPERATIONAL, ids=str)
def test_an_operational_guard_that_narrows_leaves_the_attempt(guard):
    rollout = autonomous(policy(guards=(guard,)))
    assert kinds(rollout.tick({CREEK: alarm(guard)})) == ["Narrowed", "IncidentOpened"]
    assert (rollout.stage(), attempt(rollout)) == ("supervised", 1)


def test_then_shadow_pops_every_grant():
    rollout = autonomous(policy(guards=(replace(QUALITY, then="shadow"),)))
    rollout.tick({CREEK: alarm(replace(QUALITY, then="shadow"))})
    assert (rollout.stage(), rollout.scope.get_cell_state(CREEK, "v1").grants) == ("shadow", ())


def test_then_report_tells_once_and_narrows_nothing():
    rollout = supervised()
    (incident,) = rollout.tick({CREEK: alarm(CHANGE)})
    assert (incident.effect, incident.guard) == ("reported", CHANGE.id)
    assert rollout.tick({CREEK: alarm(CHANGE)}) == ()
    assert (rollout.stage(), attempt(rollout)) == ("supervised", 1)
    assert kinds(rollout.tick({CREEK: NOTHING})) == ["SuspensionCleared"]
    assert kinds(rollout.tick({CREEK: alarm(CHANGE)})) == ["IncidentOpened"]


def test_an_alarm_says_what_it_saw():
    rollout = supervised()
    narrowed, incident = rollout.tick({CREEK: alarm(QUALITY)})
    assert incident.alarms == narrowed.alarms == (StoredAlarm(QUALITY.condition, None, 9, 9),)


@pytest.mark.parametrize("then", ["report", "suspend"])
def test_the_incident_of_a_narrowing_tells_which_slices_were_in_alarm(then):
    by_form = Condition(MEASURES["agreement"], 0.8, population=EachValue("form"))
    slices = Guard(by_form, then, false_alarm_every=100)
    rollout = supervised(policy(guards=(QUALITY, slices, LATENCY)))
    reading = GuardReading(is_alarm=True, value=31, records=60, subject=AlarmSubject("form", "new"))
    both = alarm(QUALITY, LATENCY)
    events = rollout.tick({CREEK: replace(both, guards={**both.guards, slices.id: reading})})
    (alarms,) = [e.alarms for e in events if getattr(e, "effect", "") == "narrowed"]
    assert alarms == (
        StoredAlarm(QUALITY.condition, None, 9, 9),
        StoredAlarm(by_form, None, 31, 60, AlarmSubject("form", "new")),
    )


def test_guards_look_only_at_the_version_that_holds_grants():
    rollout = supervised(policy(), "v1", "v2")
    assert rollout.tick(v2=alarm(QUALITY, HEARTBEAT, of=NOTHING)) == ()
    assert rollout.tick({LAKE: alarm(QUALITY, of=NOTHING)}) == ()
    assert rollout.stage() == "supervised"


def test_two_guards_of_quality_in_alarm_restart_the_evidence_once():
    other = OF_QUALITY[1]
    rollout = autonomous(policy(guards=(QUALITY, other)))
    rollout.tick({CREEK: alarm(QUALITY, other)})
    assert (rollout.stage(), attempt(rollout)) == ("shadow", 2)


def test_an_operational_narrowing_does_not_hide_an_alarm_about_quality():
    rollout = supervised(policy(guards=(UNAUDITED, QUALITY)))
    rollout.tick({CREEK: alarm(UNAUDITED, QUALITY)})
    assert (rollout.stage(), attempt(rollout)) == ("shadow", 2)


def test_a_guard_of_quality_that_only_reports_restarts_nothing():
    reporting = replace(QUALITY, then="report")
    rollout = autonomous(policy(guards=(UNAUDITED, reporting)))
    rollout.tick({CREEK: alarm(UNAUDITED, reporting)})
    assert (rollout.stage(), attempt(rollout)) == ("supervised", 1)


# Reach


def three(*args: Policy) -> RolloutDriver:
    """Return a rollout with three cells at supervised."""
    rollout = RolloutDriver(*args)
    for cell in (CREEK, CREEK_NIGHT, LAKE):
        rollout.widen(cell)
    return rollout


@pytest.mark.parametrize(
    ("reach", "narrowed"),
    [
        ("cell", {CREEK}),
        ("site", {CREEK, CREEK_NIGHT}),
        ("rollout", {CREEK, CREEK_NIGHT, LAKE}),
    ],
)
def test_an_alarm_narrows_as_far_as_its_guard_reaches(reach, narrowed):
    guard = replace(HARM, reach=reach)
    rollout = three(policy(guards=(guard,)))
    events = rollout.tick({CREEK: alarm(guard)})
    assert {e.cell for e in events if isinstance(e, Narrowed)} == narrowed
    assert [attempt(rollout, c) for c in (CREEK, CREEK_NIGHT, LAKE)] == [2, 1, 1]


def test_an_alarm_takes_no_more_than_a_grant_of_each_cell_that_it_reaches():
    guard = replace(QUALITY, reach="site")
    rollout = autonomous(policy(guards=(guard,)))
    rollout.widen(CREEK_NIGHT)
    rollout.widen(CREEK_NIGHT)
    rollout.tick({CREEK: alarm(guard)})
    assert [rollout.stage(cell) for cell in (CREEK, CREEK_NIGHT)] == ["supervised"] * 2


def test_a_cell_reached_from_elsewhere_restarts_if_its_own_guard_alarms_too():
    rollout = three()
    rollout.tick({CREEK: alarm(HARM), LAKE: alarm(HARM)})
    assert [attempt(rollout, c) for c in (CREEK, CREEK_NIGHT, LAKE)] == [2, 1, 2]


# Suspension


def suspended() -> RolloutDriver:
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    return rollout


def test_a_suspended_version_stands_in_shadow_and_keeps_its_grants():
    rollout = supervised()
    events = rollout.tick({CREEK: alarm(HEARTBEAT)})
    assert kinds(events) == ["Suspended", "IncidentOpened"]
    assert rollout.stage() == "shadow"
    assert len(rollout.scope.get_cell_state(CREEK, "v1").grants) == 1


def test_a_suspension_is_opened_once_and_keeps_the_proposal():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    assert rollout.tick({CREEK: alarm(HEARTBEAT)}) == ()
    assert proposal.id in rollout.scope.proposals


def test_a_suspension_ends_after_a_whole_span_of_good():
    rollout = supervised()
    rollout.tick({CREEK: alarm(LATENCY)})
    since = rollout.at + TICK
    assert rollout.tick({CREEK: good(since, LATENCY)}) == ()
    assert rollout.tick({CREEK: good(since, LATENCY)}) == ()
    assert rollout.stage() == "shadow"
    assert kinds(rollout.tick({CREEK: good(since, LATENCY, of=NOTHING)})) == ["SuspensionCleared"]
    assert rollout.stage() == "supervised"


def test_a_guard_without_a_span_clears_after_one_whole_tick():
    rollout = suspended()
    since = rollout.at + TICK
    assert rollout.tick({CREEK: good(since, HEARTBEAT)}) == ()
    assert kinds(rollout.tick({CREEK: good(since, HEARTBEAT, of=NOTHING)})) == ["SuspensionCleared"]


@pytest.mark.parametrize("reading", [NOTHING, alarm(HEARTBEAT)], ids=["unknown", "bad"])
def test_without_a_good_reading_a_suspension_holds_for_ever(reading):
    rollout = suspended()
    assert rollout.after(30 * DAY).tick({CREEK: reading}) == ()
    assert rollout.stage() == "shadow"


def test_two_suspensions_end_one_by_one():
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT, LATENCY)})
    since = rollout.at
    rollout.after(HOUR).tick({CREEK: good(since, HEARTBEAT)})
    assert rollout.stage() == "shadow"
    rollout.tick({CREEK: good(since, HEARTBEAT, LATENCY)})
    assert rollout.stage() == "supervised"


def test_a_suspension_by_a_removed_guard_ends_once_every_other_guard_is_good():
    left = (LATENCY, replace(HEARTBEAT, over=HOUR))
    rollout = suspended()
    rollout.approve(rollout.edit(policy(guards=left))[0], DAN, CY)
    rollout.tick()
    since = rollout.at - DAY
    assert rollout.tick({CREEK: good(since, LATENCY, of=NOTHING)}) == ()
    assert kinds(rollout.tick({CREEK: good(since, *left, of=NOTHING)})) == ["SuspensionCleared"]


def flap(rollout: RolloutDriver, *, good_after: timedelta = TICK) -> list[str]:
    """Let the heartbeat go and come back."""
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.after(good_after)
    return kinds(rollout.tick({CREEK: good(rollout.at, HEARTBEAT, of=NOTHING)}))


def recovered(guard, *, has_recovered=True):
    """Return evidence in which a test says whether the guard's measure has recovered."""
    reading = GuardReading(is_alarm=False, good_since=NOON, has_recovered=has_recovered)
    return replace(NOTHING, guards={guard.id: reading})


def test_a_tested_suspension_clears_by_its_test_alone():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(LATENCY)})
    rollout.after(9 * HOUR)
    assert rollout.tick({CREEK: recovered(LATENCY, has_recovered=False)}) == ()
    assert kinds(rollout.tick({CREEK: recovered(LATENCY)})) == ["SuspensionCleared"]


def suspend_again(pause):
    rollout = autonomous()
    rollout.tick({CREEK: alarm(LATENCY)})
    rollout.after(HOUR).tick({CREEK: recovered(LATENCY)})
    return kinds(rollout.after(pause).tick({CREEK: alarm(LATENCY)}))


def test_a_new_suspension_within_a_day_belongs_to_the_old_incident():
    assert suspend_again(23 * HOUR) == ["Suspended"]
    assert suspend_again(25 * HOUR) == ["Suspended", "IncidentOpened"]


@pytest.mark.parametrize(
    ("guard", "incidents"), [(LATENCY, 1), (HEARTBEAT, 0)], ids=["latency", "silence"]
)
def test_silence_belongs_to_the_site_and_latency_to_its_version(guard, incidents):
    rollout = autonomous()
    state = rollout.scope.get_cell_state(CREEK, "v1")
    earlier = replace(state, grants=(), cleared_at={guard.id: rollout.at - HOUR})
    versions = {**rollout.scope.versions, "v0": rollout.scope.versions["v1"]}
    cells = {**rollout.scope.cells, (CREEK, "v0"): earlier}
    rollout.scope = replace(rollout.scope, versions=versions, cells=cells)
    events = kinds(rollout.tick({CREEK: alarm(guard)}))
    assert events.count("Suspended") == 1
    assert events.count("IncidentOpened") == incidents


MISSING = Guard(Condition(MEASURES["missing"], 0.1), then="suspend", over=DAY)


@pytest.mark.parametrize(("guard", "incidents"), [(LATENCY, 2), (MISSING, 3)], ids=str)
def test_an_episode_is_one_incident_of_a_site_or_of_a_cell(guard, incidents):
    rollout = autonomous(policy(guards=(guard,)))
    rollout.widen(CREEK_NIGHT)
    rollout.widen(LAKE)
    loud = alarm(guard)
    events = rollout.tick({CREEK: loud, CREEK_NIGHT: loud, LAKE: loud})
    expected = [*["IncidentOpened"] * incidents, *["Suspended"] * 3]
    assert sorted(kinds(events)) == expected


def test_the_third_suspension_in_a_day_pops_one_grant_instead():
    rollout = autonomous()
    assert [flap(rollout) for _ in range(3)] == [
        ["SuspensionCleared"],
        ["SuspensionCleared"],
        ["Narrowed", "SuspensionCleared"],
    ]
    assert (rollout.stage(), attempt(rollout)) == ("supervised", 1)


def test_the_third_suspension_counts_however_long_it_lasts():
    rollout = autonomous()
    flap(rollout)
    flap(rollout)
    assert flap(rollout, good_after=30 * HOUR) == ["Narrowed", "SuspensionCleared"]


def test_three_suspensions_in_more_than_a_day_pop_nothing():
    rollout = autonomous()
    for _ in range(3):
        assert flap(rollout) == ["SuspensionCleared"]
        rollout.after(12 * HOUR)
    assert rollout.stage() == "autonomous"


@pytest.mark.parametrize(
    ("more", "narrowed"), [(timedelta(0), ["Narrowed"]), (timedelta(seconds=1), [])]
)
def test_a_day_between_the_first_and_third_suspension_is_within_a_day(more, narrowed):
    rollout = autonomous()
    pause = (DAY + more) / 2 - 2 * TICK
    flap(rollout, good_after=pause)
    flap(rollout, good_after=pause)
    assert flap(rollout) == [*narrowed, "SuspensionCleared"]


def test_what_alarms_while_suspended_or_stopped_does_not_come_back():
    rollout = autonomous()
    rollout.stop()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.tick({CREEK: alarm(QUALITY)})
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    rollout.tick({CREEK: good(rollout.at - DAY, HEARTBEAT, of=NOTHING)})
    assert rollout.stage() == "supervised"


def test_narrowing_to_shadow_ends_a_suspension_with_its_grants():
    rollout = suspended()
    rollout.narrow()
    assert rollout.scope.get_cell_state(CREEK, "v1").suspended_by == frozenset()


# Narrow


def test_one_operator_narrows_to_a_named_stage():
    rollout = autonomous()
    (narrowed,) = rollout.narrow("supervised")
    assert (narrowed.by, narrowed.to_stage, narrowed.guard, narrowed.restart) == (
        "bo",
        "supervised",
        "",
        False,
    )
    assert (rollout.stage(), attempt(rollout)) == ("supervised", 1)


def test_narrowing_voids_every_proposal_in_the_cell():
    rollout = supervised(policy(), "v1", "v2")
    rollout.tick({CREEK: MET}, v2=MET)
    assert len(rollout.scope.proposals) == 2
    rollout.narrow()
    assert not rollout.scope.proposals


def test_repeating_a_narrowing_answers_what_holds():
    rollout = autonomous()
    rollout.narrow("supervised")
    assert rollout.narrow("supervised") == ()
    rollout.narrow()
    assert rollout.narrow() == ()


def test_narrowing_reaches_each_cell_above_the_stage_and_no_other():
    rollout = autonomous()
    rollout.widen(LAKE)
    events = rollout.narrow("supervised", CREEK, LAKE, CREEK_NIGHT)
    assert [e.cell for e in events] == [CREEK]


@pytest.mark.parametrize("to", ["autonomous", "moon"])
def test_a_narrowing_never_widens(to):
    rollout = supervised()
    with pytest.raises(NotNarrowerError):
        rollout.narrow(to)


def test_an_unknown_cell_is_said_to_be_unknown():
    rollout = supervised()
    for ask in (rollout.narrow, lambda _, cell: rollout.stop(cell)):
        with pytest.raises(UnknownCellError, match="moon · day"):
            ask("shadow", Cell("moon", "day"))


def test_a_key_may_narrow_and_stop():
    rollout = autonomous()
    assert kinds(rollout.narrow("supervised", by=BOT)) == ["Narrowed"]
    assert kinds(rollout.stop(by=BOT)) == ["Stopped"]


def test_a_narrowing_holds_for_the_next_question_under_any_clock():
    rollout = autonomous()
    rollout.narrow()
    for at in (rollout.at - 30 * DAY, rollout.at, rollout.at + DAY):
        assert rollout.stage(at=at) == "shadow"


# Lapse


def test_a_grant_that_has_ended_gives_nothing_without_any_tick():
    rollout = autonomous()
    ends = [g.until for g in rollout.scope.get_cell_state(CREEK, "v1").grants]
    assert rollout.stage(at=ends[0] - timedelta(microseconds=1)) == "autonomous"
    assert rollout.stage(at=ends[0]) == "shadow"


def test_what_stood_on_a_lapsed_grant_goes_with_it():
    rollout = autonomous()
    first, second = rollout.scope.get_cell_state(CREEK, "v1").grants
    assert first.until < second.until
    rollout.at = first.until - TICK
    (lapsed,) = rollout.tick()
    assert isinstance(lapsed, GrantExpired)
    assert (lapsed.stage, lapsed.until) == ("supervised", first.until)
    assert rollout.scope.get_cell_state(CREEK, "v1").grants == ()


def short_top() -> RolloutDriver:
    """Return a rollout at autonomous whose top grant ends first, at once due for renewal below."""
    stages = (replace(policy().stages[0], lasts=30 * DAY), replace(AUTONOMOUS, lasts=25 * DAY))
    return autonomous(policy(stages=stages))


def test_the_cell_falls_to_the_rung_below():
    rollout = short_top()
    rollout.after(25 * DAY).tick()
    assert rollout.stage() == "supervised"


def test_a_lapse_voids_what_is_built_on_it_and_nothing_below():
    rollout = short_top()
    rollout.after(24 * DAY + 23 * HOUR)
    below = rollout.raised()
    assert (below.kind, below.to) == ("renewal", "supervised")
    assert kinds(rollout.after(HOUR).tick({CREEK: MET})) == ["GrantExpired"]
    assert below.id in rollout.scope.proposals


def test_a_lapse_voids_the_renewal_that_came_too_late():
    rollout = supervised(policy(gates=gates()[:1]))
    rollout.after(80 * DAY)
    rollout.approved()
    rollout.after(10 * DAY)
    voided, expired, *_ = rollout.tick({CREEK: NOTHING})
    assert kinds((voided, expired)) == ["ProposalVoided", "GrantExpired"]
    assert (voided.by, voided.cause, voided.about) == ("policy", ENDED_GRANT, "supervised")
    assert voided.describe_closing(CREEK) == "creek · day: the grant of supervised has ended"
    assert rollout.stage() == "shadow"


def test_a_lapse_leaves_the_attempt():
    rollout = supervised()
    rollout.after(90 * DAY).tick()
    assert attempt(rollout) == 1


def test_a_void_by_a_user_has_that_user_as_its_actor_and_no_text():
    rollout = supervised()
    rollout.raised(LAKE)
    (voided,) = rollout.narrow("shadow", LAKE)
    assert (voided.by, voided.cause) == (BO.name, USER_NARROWED)
    assert list_fields(voided) == {"proposal": voided.proposal, "cause": USER_NARROWED}
    assert voided.describe_closing(LAKE) == "bo narrowed lake · day"


# Versions


def test_a_new_version_stands_in_shadow_and_leaves_the_acting_one_alone():
    rollout = supervised(policy(), "v1", "v2")
    assert isinstance(rollout.events[2], VersionFirstUsed)
    assert (rollout.stage(version="v2"), rollout.stage()) == ("shadow", "supervised")
    assert rollout.scope.get_cell_state(CREEK, "v2").attempt == 1


def test_a_retired_version_loses_every_grant_and_proposal():
    rollout = autonomous()
    rollout.widen(LAKE)
    rollout.raised(LAKE)
    assert kinds(rollout.retire()) == ["ProposalVoided", "VersionRetired"]
    assert {rollout.stage(c) for c in (CREEK, LAKE)} == {"shadow"}
    assert rollout.scope.get_holder(CREEK) is None
    assert rollout.tick({CREEK: MET}) == ()
    assert rollout.retire() == ()


def test_a_retired_version_takes_no_proposal_of_another_along():
    rollout = RolloutDriver(policy(), "v1", "v2")
    proposal = rollout.raised(LAKE, "v2")
    assert kinds(rollout.retire("v1")) == ["VersionRetired"]
    assert rollout.open() == proposal


def test_only_people_retire_versions_that_were_seen():
    rollout = autonomous()
    with pytest.raises(UserRequiredError):
        rollout.retire(by=BOT)
    with pytest.raises(UnknownVersionError, match="versions: v1"):
        rollout.retire("v9")


# Clock and downtime


def test_a_clock_behind_narrows_but_raises_and_applies_nothing():
    rollout = supervised()
    rollout.approved()
    behind = rollout.at - 2 * timedelta(minutes=1)
    evidence = {(CREEK, "v1"): MET, (LAKE, "v1"): MET}
    (began, incident) = rollout.do(Tick(at=behind, evidence=evidence))
    assert began.cells == (LAKE,)
    assert (incident.kind, incident.effect) == ("clock", "nothing raised or applied")
    events = rollout.do(Tick(at=behind, evidence={(CREEK, "v1"): alarm(QUALITY)}))
    assert "Narrowed" in kinds(events)
    assert all(event.at == rollout.at for event in events)


def test_while_clocks_disagree_a_tick_raises_and_applies_nothing():
    rollout = RolloutDriver()
    rollout.begin("v1")
    met = {"evidence": {(CREEK, "v1"): MET}, "narrow_only": True}
    assert rollout.do(Tick(at=rollout.at, **met)) == ()
    rollout.approved()
    rollout.approve(rollout.edit(policy(guards=()))[0], DAN, CY)
    assert rollout.do(Tick(at=rollout.at, pending_policies=rollout.policies, **met)) == ()
    assert "PolicyApplied" in kinds(rollout.tick({CREEK: MET}))


def test_a_minute_behind_is_no_incident():
    rollout = RolloutDriver()
    tick = Tick(at=rollout.at - timedelta(minutes=1), evidence={(CREEK, "v1"): MET})
    assert kinds(rollout.do(tick)) == ["AttemptsBegan", "ProposalRaised"]


def test_a_clock_behind_shortens_no_span_of_good():
    rollout = supervised()
    rollout.tick({CREEK: alarm(LATENCY)})
    since = rollout.at - 3 * HOUR
    behind = Tick(at=since + TICK, evidence={(CREEK, "v1"): good(since, LATENCY)})
    assert "SuspensionCleared" not in kinds(rollout.do(behind))


def test_one_tick_catches_up_after_downtime_and_passes_no_approval():
    rollout = RolloutDriver()
    rollout.after(300 * DAY)
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalRaised"]
    rollout.after(10 * DAY)
    assert rollout.tick({CREEK: MET}) == ()
    assert rollout.stage() == "shadow"


def test_an_incident_is_acknowledged_by_a_person():
    rollout = supervised()
    rollout.tick({CREEK: alarm(QUALITY)})
    (incident,) = [e for e in rollout.events if isinstance(e, IncidentOpened)]
    seen = AcknowledgeIncident(at=rollout.at, by=BO, incident=incident.incident)
    assert kinds(rollout.do(seen)) == ["IncidentAcknowledged"]
    with pytest.raises(UserRequiredError):
        rollout.do(replace(seen, by=BOT))


def test_a_suspension_names_its_guard():
    rollout = suspended()
    (found,) = [e for e in rollout.events if isinstance(e, Suspended)]
    assert found.guard == HEARTBEAT.id
    assert compute_stage_level(rollout.scope, rollout.policy, CREEK, "v1", rollout.at) == 0

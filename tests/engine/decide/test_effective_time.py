"""Units count from the slot that a tick judged; what it grants begins at its pass."""

from datetime import timedelta
from random import Random

from rollout.engine.decide.commands import Tick
from rollout.engine.decide.projection import apply_event, list_effective_times
from rollout.engine.decide.scope import compute_stage_level
from rollout.engine.events import ClockCorrected, Renewed, Suspended, TakenOver, Widened
from tests.factories import (
    BO,
    CREEK,
    DAN,
    DAY,
    HEARTBEAT,
    HOUR,
    MET,
    NOON,
    QUALITY,
    RolloutDriver,
    alarm,
    good,
    policy,
    supervised,
)

LATE = timedelta(minutes=40)


def tick_late(rollout, evidence, version="v1"):
    """Tick 40 minutes after the slot of the evidence; return slot and events."""
    slot = rollout.after(HOUR).at
    evidence = {(CREEK, version): evidence}
    return slot, rollout.do(Tick(at=rollout.after(LATE).at, evidence=evidence, slot=slot))


def test_a_late_pass_grants_from_then_on_and_counts_units_from_its_slot():
    rollout = RolloutDriver()
    rollout.approved()
    before = rollout.scope
    slot, (event, *_) = tick_late(rollout, MET)
    state = rollout.scope.get_cell_state(CREEK, "v1")
    (grant,) = state.grants
    assert isinstance(event, Widened)
    assert (event.slot, event.at, grant.since) == (slot, slot + LATE, slot + LATE)
    assert (grant.held_since, grant.until) == (event.at, event.at + 90 * DAY)
    assert {state.changed_at, grant.evidence_start, grant.held_evidence_start} == {slot}
    assert rollout.scope.widened_at[CREEK] == event.at  # cells settle from the pass on
    in_force = rollout.policy, CREEK, "v1"
    assert compute_stage_level(before, *in_force, event.at - timedelta(microseconds=1)) == 0
    assert compute_stage_level(rollout.scope, *in_force, event.at) == 1
    assert not grant.is_valid(event.at - timedelta(microseconds=1))


def test_a_late_alarm_ends_the_attempt_with_its_slot():
    rollout = supervised()
    slot, events = tick_late(rollout, alarm(QUALITY))
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert {event.at for event in events} == {slot + LATE}
    assert (state.attempt_since, state.changed_at) == (slot, slot)
    assert state.last_alarms == {QUALITY.id: slot}


def test_a_late_suspension_is_timed_by_its_pass_and_clears_on_evidence_up_to_the_slot():
    rollout = supervised()
    slot, _ = tick_late(rollout, alarm(HEARTBEAT))
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert state.suspensions == ((HEARTBEAT.id, slot + LATE),)
    good_since = rollout.at
    span = HEARTBEAT.over or rollout.policy.tick
    rollout.after(span - HOUR - timedelta(seconds=1))
    _, events = tick_late(rollout, good(good_since, HEARTBEAT))  # the pass alone is late enough
    assert events == ()
    _, (cleared, *_) = tick_late(rollout, good(good_since, HEARTBEAT))
    assert cleared.guard == HEARTBEAT.id


def test_renewals_and_takeovers_begin_at_the_pass_and_count_from_the_slot():
    rollout = RolloutDriver(policy(), "v1", "v2")
    rollout.widen()
    first = rollout.scope.get_cell_state(CREEK, "v1").grants[0]
    rollout.after(80 * DAY).tick({CREEK: MET})
    rollout.approve(rollout.open("renewal"), BO, DAN)
    slot, events = tick_late(rollout, MET)
    renewed = rollout.scope.get_cell_state(CREEK, "v1").grants[0]
    assert any(isinstance(event, Renewed) for event in events)
    assert (renewed.since, renewed.evidence_start) == (slot + LATE, slot)
    assert renewed.held_evidence_start == first.held_evidence_start
    rollout.tick(v2=MET)
    rollout.approve(rollout.open("takeover"), BO, DAN)
    slot, events = tick_late(rollout, MET, "v2")
    taken = rollout.scope.get_cell_state(CREEK, "v2").grants[0]
    assert any(isinstance(event, TakenOver) for event in events)
    assert (taken.since, taken.evidence_start) == (slot + LATE, slot)
    assert (taken.held_since, taken.held_evidence_start) == (first.held_since, first.held_since)


def test_what_a_tick_decides_after_a_users_action_counts_from_that_action():
    rollout = supervised()
    slot = rollout.after(HOUR).at
    acted_at = rollout.after(timedelta(minutes=10)).at
    rollout.stop()
    tick = Tick(at=slot + LATE, evidence={(CREEK, "v1"): alarm(QUALITY)}, slot=slot)
    events = rollout.do(tick)
    assert {(event.slot, event.at) for event in events} == {(slot, slot + LATE)}
    assert rollout.scope.get_cell_state(CREEK, "v1").changed_at == acted_at


def test_in_ledgers_of_before_each_event_counts_from_its_time():
    random = Random(5)  # noqa: S311 - no secret
    for _ in range(40):
        events, last = [], NOON
        for number in range(12):
            slot = NOON + number * HOUR
            if random.random() < 0.4:  # a user acts a while after the slot, before its pass
                last = max(last, slot + random.randrange(59) * timedelta(minutes=1))
                events.append(_suspend(last, None))
            last = max(slot, last)  # as ticks wrote before: the slot, or the last entry's time
            events.append(_suspend(last, slot))
        assert [at for _, at in list_effective_times(events)] == [event.at for event in events]


def test_an_event_that_a_clock_behind_wrote_takes_no_users_action_back():
    acted_at = NOON + 30 * timedelta(minutes=1)
    events = [_suspend(acted_at, None), _suspend(NOON - HOUR, None), _suspend(NOON + LATE, NOON)]
    assert [at for _, at in list_effective_times(events)] == [acted_at] * 3


def _suspend(at, slot):
    return Suspended(at=at, by="policy", slot=slot, cell=CREEK, version="v1", guard="g")


def test_a_corrected_clock_counts_from_the_corrected_time():
    rollout = supervised()
    corrected_at = rollout.at - HOUR
    event = ClockCorrected(at=corrected_at, by="policy", slot=NOON, previous_time=rollout.at)
    assert apply_event(rollout.scope, event).effective_at == corrected_at

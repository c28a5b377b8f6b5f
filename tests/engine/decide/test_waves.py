"""Which cells may go next: waves, window by window, and settling."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from rollout.engine.decide.widening_steps import (
    find_settled_at,
    find_wave_hold,
    find_wave_opening,
    get_wave,
)
from rollout.engine.slots.fast_forward import list_timed_slots
from rollout.kernel.calendar.instants import Cell, Site, find_slot_after
from rollout.kernel.policy.policy import Limit, Policy, Waves, Where
from tests.factories import (
    ANA,
    BO,
    CREEK,
    CREEK_NIGHT,
    DAN,
    DAY,
    HEARTBEAT,
    HOUR,
    LAKE,
    LAKE_NIGHT,
    TICK,
    RolloutDriver,
    alarm,
    good,
    policy,
)

POND, MOOR = Cell("pond", "day"), Cell("moor", "day")
SITES = (
    Site("creek", "UTC"),
    Site("pond", "UTC"),
    Site("lake", "UTC", wave=2),
    Site("moor", "UTC", wave=3),
)


def waved(waves: Waves | None = None, **changes) -> Policy:
    return policy(waves=waves or Waves("supervised", hold=7 * DAY), sites=SITES, **changes)


def held(rollout: RolloutDriver, cell: Cell, rung: int = 1) -> str | None:
    hold = find_wave_hold(rollout.scope, rollout.policy, cell, rung, rollout.at)
    return None if hold is None else str(hold)


def first_wave(*args) -> RolloutDriver:
    """Return a rollout whose first wave has just been widened by day."""
    rollout = RolloutDriver(waved(*args))
    rollout.widen(CREEK)
    rollout.widen(POND)
    return rollout


def test_the_first_wave_waits_for_nobody():
    assert held(RolloutDriver(waved()), CREEK) is None


def test_without_waves_nobody_waits():
    assert held(RolloutDriver(policy()), LAKE) is None


def test_the_next_wave_says_what_it_waits_for():
    assert held(first_wave(), LAKE) == "wave 1: 0 of 2 cells hold supervised long enough"


def test_the_next_wave_opens_when_all_cells_before_have_held_the_stage_long_enough():
    rollout = first_wave()
    rollout.after(7 * DAY - TICK)
    assert held(rollout, LAKE) is not None  # pond came later than creek
    assert held(rollout.after(TICK), LAKE) is None


def test_waves_open_window_by_window():
    rollout = first_wave().after(8 * DAY)
    assert held(rollout, LAKE) is None
    assert held(rollout, LAKE_NIGHT) is not None


def test_each_wave_waits_for_the_one_before_it():
    rollout = first_wave().after(8 * DAY)
    assert held(rollout, MOOR) == "wave 2: 0 of 1 cells hold supervised long enough"
    rollout.widen(LAKE)
    assert held(rollout.after(8 * DAY), MOOR) is None


def test_a_share_of_the_wave_before_may_be_enough():
    rollout = RolloutDriver(waved(Waves("supervised", hold=DAY, share=0.5)))
    rollout.widen(CREEK)
    assert held(rollout.after(2 * DAY), LAKE) is None


def test_a_share_is_met_exactly_whatever_the_floats_say():
    sites = (*(Site(f"s{n}", "UTC") for n in range(20)), Site("last", "UTC", wave=2))
    asked = waved(Waves("supervised", hold=DAY, share=0.55))
    rollout = RolloutDriver(replace(asked, sites=sites, hash="many"))
    for n in range(11):
        rollout.widen(Cell(f"s{n}", "day"))
    assert held(rollout.after(2 * DAY), Cell("last", "day")) is None


@pytest.mark.parametrize(
    "limit", [Limit(never_above="shadow"), Limit(ends=date(2027, 5, 1))], ids=["cap", "end"]
)
def test_cells_whose_ceiling_is_below_the_stage_are_not_waited_for(limit):
    rollout = RolloutDriver(waved(limits=(replace(limit, where=Where(sites=("pond",))),)))
    rollout.widen(CREEK)
    assert held(rollout.after(8 * DAY), LAKE) is None


def test_a_wave_none_of_whose_cells_can_reach_the_stage_is_passed_over():
    limit = Limit(never_above="shadow", where=Where(sites=("lake",)))
    rollout = RolloutDriver(waved(limits=(limit,)))
    assert held(rollout, MOOR) == "wave 1: 0 of 2 cells hold supervised long enough"


def test_above_the_stage_of_the_waves_each_cell_goes_by_itself():
    assert held(RolloutDriver(waved()), LAKE, rung=2) is None
    assert held(RolloutDriver(waved(Waves("autonomous"))), LAKE, rung=2) is not None


@pytest.mark.parametrize("way", ["narrow", "stop", "lapse"])
def test_a_wave_that_falls_back_closes_the_next_one(way):
    rollout = first_wave().after(8 * DAY)
    match way:
        case "narrow":
            rollout.narrow()
        case "stop":
            rollout.stop()
        case "lapse":
            rollout.after(90 * DAY)
    assert held(rollout, LAKE) is not None


def test_a_wave_that_narrows_takes_nothing_from_the_next_one():
    rollout = first_wave().after(8 * DAY)
    rollout.widen(LAKE)
    rollout.narrow()
    assert rollout.stage(LAKE) == "supervised"


def test_a_higher_stage_holds_the_waves_stage_too():
    rollout = first_wave()
    rollout.widen(CREEK)
    assert held(rollout.after(8 * DAY), LAKE) is None


def stop_and_resume(rollout):
    rollout.stop(POND)
    waits_for_stop = held(rollout.after(8 * DAY), LAKE)
    rollout.ask_resume(by=ANA)
    rollout.approve(rollout.open("resume"), BO, DAN)
    rollout.tick()
    return waits_for_stop


def suspend_and_clear(rollout):
    rollout.tick({POND: alarm(HEARTBEAT)})
    rollout.after(8 * DAY)
    waits_for_guard = held(rollout, LAKE)
    rollout.tick({POND: good(rollout.at - DAY, HEARTBEAT)})
    return waits_for_guard


@pytest.mark.parametrize("interrupt", [stop_and_resume, suspend_and_clear])
def test_a_wave_counts_from_the_end_of_a_stop_or_suspension(interrupt):
    """Withheld, the model did not act: these days prove nothing of the stage."""
    rollout = first_wave().after(6 * DAY)
    assert interrupt(rollout) == "wave 1: 1 of 2 cells hold supervised long enough"
    returned = rollout.at
    assert rollout.stage(POND) == "supervised"
    assert held(rollout, LAKE) == "wave 1: 1 of 2 cells hold supervised long enough"
    opening = find_wave_opening(rollout.scope, rollout.policy, LAKE, rollout.at)[1]
    assert returned - TICK <= opening - 7 * DAY <= returned
    timed = list_timed_slots(rollout.scope, rollout.policy, POND, "v1")
    assert find_slot_after(opening, rollout.policy.tick) in list(timed)
    assert held(rollout.after(opening - rollout.at), LAKE) is None


def test_an_approved_widening_waits_until_its_wave_opens():
    rollout = first_wave().after(8 * DAY)
    rollout.approved(LAKE)
    rollout.narrow("shadow", POND)
    assert rollout.tick() == ()
    rollout.widen(POND)
    assert rollout.tick() == ()


def test_a_site_is_in_the_first_wave_unless_it_says_otherwise():
    assert (get_wave(waved(), CREEK), get_wave(waved(), MOOR)) == (1, 3)


# Settling


@pytest.mark.parametrize(("at_once", "full"), [(None, False), (3, False), (2, True), (1, True)])
def test_so_many_cells_are_widened_at_once(at_once, full):
    waves = Waves("supervised", at_once=at_once, settle=3 * DAY)
    rollout = RolloutDriver(policy(waves=replace(waves, at_once=None)))
    rollout.widen(CREEK)
    rollout.widen(CREEK_NIGHT)
    assert (find_settled_at(rollout.scope, policy(waves=waves), rollout.at) is not None) is full


def test_a_cell_has_settled_after_its_time():
    waves = Waves("supervised", at_once=1, settle=3 * DAY)
    rollout = RolloutDriver(policy(waves=waves))
    rollout.widen(CREEK)
    last = timedelta(microseconds=1)
    assert find_settled_at(rollout.scope, rollout.policy, rollout.at + 3 * DAY - last) is not None
    assert find_settled_at(rollout.scope, rollout.policy, rollout.at + 3 * DAY) is None


def test_a_cell_that_was_narrowed_again_still_counts_as_settling():
    rollout = RolloutDriver(policy(waves=Waves("supervised", at_once=1, settle=3 * DAY)))
    rollout.widen(CREEK)
    rollout.narrow()
    assert find_settled_at(rollout.scope, rollout.policy, rollout.at + HOUR) is not None


def test_without_waves_nothing_has_to_settle():
    rollout = RolloutDriver()
    rollout.widen()
    assert find_settled_at(rollout.scope, rollout.policy, rollout.at) is None


def test_a_wave_opens_when_enough_of_the_one_before_will_have_held_the_stage():
    rollout = RolloutDriver(waved(Waves("supervised", hold=7 * DAY, share=0.5)))
    assert find_wave_opening(rollout.scope, rollout.policy, LAKE, rollout.at) == (
        (CREEK, POND),
        None,
    )
    rollout.widen(CREEK)
    first = rollout.scope.get_cell_state(CREEK, "v1").grants[0].held_since
    rollout.after(DAY).widen(POND)
    assert find_wave_opening(rollout.scope, rollout.policy, LAKE, rollout.at)[1] == first + 7 * DAY


def test_a_wave_that_waits_for_all_opens_with_the_last_of_them():
    rollout = first_wave()
    last = rollout.scope.get_cell_state(POND, "v1").grants[0].held_since
    ahead, opens = find_wave_opening(rollout.scope, rollout.policy, LAKE, rollout.at)
    assert (ahead, opens) == ((CREEK, POND), last + 7 * DAY)
    assert held(rollout.after(opens - rollout.at), LAKE) is None


def test_nobody_waits_where_the_policy_has_no_waves():
    assert find_wave_opening(
        RolloutDriver(policy()).scope, policy(), LAKE, RolloutDriver(policy()).at
    ) == (
        (),
        None,
    )

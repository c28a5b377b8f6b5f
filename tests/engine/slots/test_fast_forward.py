"""Leaving out the slots in which nothing can happen changes no ledger."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.events import Widened
from rollout.kernel.calendar.instants import compute_end_of_local_day
from rollout.kernel.policy.policy import Limit, Waves, Where
from tests.engine.slots.stories import (
    START,
    a_course,
    a_history,
    a_policy,
    a_story,
    drawn,
    prepared,
    seeded,
)
from tests.properties import examples

pytestmark = pytest.mark.slow


def alike(policy, story, course):
    """Replay twice; return the run that left slots out and the one that did not."""
    ready = prepared(a_history(story, policy), policy, course.salt)
    quick, whole = ready.run(course), ready.run(replace(course, skip_idle_slots=False))
    for mine, theirs in zip(quick.events, whole.events, strict=False):
        assert mine == theirs
    assert len(quick.events) == len(whole.events)
    assert quick.scope == whole.scope
    assert quick.stage_histories == whole.stage_histories
    return quick, whole


def told(seed):
    """Return policy, story and course of a seed."""
    pick = seeded(seed)
    policy = a_policy(pick)
    return policy, a_story(pick, seed), a_course(pick, policy)


@pytest.mark.slow
@examples(given(data=st.data(), seed=st.integers(0, 2**20)), fast=5, whole=25)
def test_skipping_slots_changes_no_ledger(data, seed):
    pick = drawn(data.draw)
    policy = a_policy(pick)
    alike(policy, a_story(pick, seed), a_course(pick, policy))


def tell_trial():
    policy, story, course = told(0)
    trial = Limit(ends=(START + 25 * policy.tick).date())
    return replace(policy, observe=True, limits=(trial,)), story, course


def tell_reach():
    policy, story, course = told(51)
    guards = tuple(replace(guard, reach="rollout") for guard in policy.guards)
    return replace(policy, guards=guards), story, course


TELLING = {
    "a trial ends while proposals are open": (tell_trial, "list_limit_slots", lambda _: ()),
    "a wave with hold 0 opens in the tick that widens the one before": (
        partial(told, 39),
        "Agenda.find_affected_cells",
        lambda *_: set(),
    ),
    "a guard's reach stirs other cells in the same tick": (
        tell_reach,
        "Agenda.find_affected_cells",
        lambda *_: set(),
    ),
    "a wave ripens by time alone": (
        partial(told, 118),
        "compute_held_since",
        lambda *_: START - timedelta(days=365),
    ),
}
"""Stories that an engine tells in two ways when it overlooks that, as with the function beside."""


@pytest.mark.parametrize("name", TELLING)
def test_skipping_slots_changes_no_ledger_where(name, monkeypatch):
    tell, place, overlook = TELLING[name]
    alike(*tell())
    monkeypatch.setattr(f"rollout.engine.slots.fast_forward.{place}", overlook)
    with pytest.raises(AssertionError):
        alike(*tell())


@pytest.mark.simulation
@pytest.mark.parametrize("seed", [0, 4, 39])
def test_skipping_slots_changes_no_ledger_where_a_day_ends_cells(seed):
    policy, story, course = told(seed)
    day = (START + 25 * policy.tick).date()
    waves = policy.waves or Waves(policy.stage_ids[1])
    limits = (Limit(ends=day, where=Where(windows=("night",))),)
    quick, _ = alike(replace(policy, waves=waves, limits=limits), story, course)
    until = compute_end_of_local_day(policy.sites[0], day)
    assert all(
        e.at < until for e in quick.events if isinstance(e, Widened) and e.cell.window == "night"
    )


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_of_many_stories():
    decided = every = 0
    kinds = set()
    for seed in range(60):
        quick, whole = alike(*told(seed))
        decided, every = decided + quick.ticks, every + whole.ticks
        kinds |= {type(event).__name__ for event in whole.events}
    assert kinds >= {
        "Widened",
        "Renewed",
        "TakenOver",
        "GrantExpired",
        "Suspended",
        "SuspensionCleared",
    }
    assert kinds >= {"Narrowed", "IncidentOpened", "ProposalVoided", "ProposalExpired"}
    # a gate that fresh answers hold back, and what they hold, is looked at in each slot
    assert decided < every / 3

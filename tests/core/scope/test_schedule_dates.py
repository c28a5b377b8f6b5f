"""Dates of a policy: a trial's first day and the days on which waves open."""

from datetime import UTC, date, datetime

import pytest

from rollout.core.policy.policy import Freeze, Limit, Waves, Where
from rollout.core.scope.proposal_holds import find_freeze_end, list_proposal_holds
from rollout.core.scope.scope import compute_stage_level
from rollout.core.scope.waves import find_wave_hold, find_wave_opening
from tests.factories import CREEK, DAY, HOUR, LAKE, MET, NOON, RolloutDriver, kinds, policy

FIFTH = datetime(2027, 6, 5, tzinfo=UTC)  # four days after NOON


def starting(day, **more):
    return policy(limits=(Limit(starts=day),), **more)


def holds(rollout, cell=CREEK):
    found = rollout.scope.proposals[rollout.scope.get_cell_state(cell, "v1").proposal]
    return list_proposal_holds(rollout.scope, rollout.policy, found, rollout.at)


def test_a_proposal_is_approved_ahead_of_its_start_and_applied_then():
    rollout = RolloutDriver(starting(FIFTH.date()))
    rollout.approved()
    ((kind, _, until),) = holds(rollout)
    assert (kind, until) == ("start", FIFTH)
    rollout.at = FIFTH - HOUR
    assert rollout.tick({CREEK: MET}) == ()
    rollout.at = FIFTH - HOUR / 4
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


def test_nothing_is_raised_that_would_expire_before_its_start():
    rollout = RolloutDriver(starting(date(2027, 6, 20)))
    assert rollout.tick({CREEK: MET}) == ()
    rollout.at = datetime(2027, 6, 6, tzinfo=UTC)  # 14 days before, when it would expire
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalRaised"]


def test_a_later_start_withholds_what_is_granted():
    rollout = RolloutDriver(policy())
    rollout.widen()
    assert kinds(rollout.edit(starting(FIFTH.date()))) == ["PolicyApplied"]
    stages = [
        compute_stage_level(rollout.scope, rollout.policy, CREEK, "v1", at)
        for at in (rollout.at, FIFTH - HOUR, FIFTH)
    ]
    assert stages == [0, 0, 1]


@pytest.mark.parametrize(
    ("limits", "level"),
    [
        ((Limit(starts=date(2027, 6, 1)),), 2),
        ((Limit(starts=date(2027, 6, 2)),), 0),
        ((Limit(starts=date(2027, 5, 1)), Limit(starts=date(2027, 6, 2))), 0),
        ((Limit(starts=date(2027, 6, 2), where=Where(("lake",))),), 2),
    ],
)
def test_the_last_start_counts(limits, level):
    assert policy(limits=limits).compute_ceiling(CREEK, NOON) == level


def test_a_start_after_the_end_allows_nothing():
    limits = (Limit(starts=date(2027, 7, 1)), Limit(ends=date(2027, 6, 9)))
    assert policy(limits=limits).compute_planned_ceiling(CREEK, NOON) == 0


def test_a_wave_opens_on_its_day_and_not_before_the_one_ahead_has_held():
    waves = Waves("supervised", hold=DAY, opens={2: FIFTH.date()})
    rollout = RolloutDriver(policy(waves=waves))
    rollout.widen()
    asked = (rollout.scope, rollout.policy, LAKE)
    assert find_wave_hold(*asked, 1, rollout.at) == "wave 2 opens on 2027-06-05"
    assert find_wave_opening(*asked, rollout.at) == ((CREEK,), FIFTH)
    assert find_wave_opening(*asked, rollout.at + 2 * DAY) == ((), FIFTH)
    assert find_wave_hold(*asked, 1, FIFTH) is None
    assert find_wave_hold(*asked, 2, rollout.at) is None  # above its stage each cell goes alone


def test_the_first_wave_too_may_have_a_day():
    waves = Waves("supervised", opens={1: FIFTH.date()})
    rollout = RolloutDriver(policy(waves=waves))
    assert rollout.tick({CREEK: MET}) == ()
    rollout.at = FIFTH
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalRaised"]


def test_a_wave_waits_for_sites_that_start_later():
    waves, limit = (
        Waves("supervised", hold=DAY),
        Limit(starts=FIFTH.date(), where=Where(("creek",))),
    )
    rollout = RolloutDriver(policy(waves=waves, limits=(limit,)))
    assert find_wave_hold(rollout.scope, rollout.policy, LAKE, 1, NOON) is not None


def test_a_cell_holds_its_stage_from_its_start_on():
    waves = Waves("supervised", hold=2 * DAY)
    rollout = RolloutDriver(policy(waves=waves))
    rollout.widen()
    rollout.edit(starting(FIFTH.date(), waves=waves))
    asked = (rollout.scope, rollout.policy, LAKE, 1)
    assert find_wave_hold(*asked, FIFTH) is not None  # granted four days ago, and withheld
    assert find_wave_opening(*asked[:3], FIFTH)[1] == FIFTH + 2 * DAY
    assert find_wave_hold(*asked, FIFTH + 2 * DAY) is None


def test_adjacent_freezes_end_with_the_last():
    freezes = (Freeze("Jun 01-02", "fair"), Freeze("Jun 03", "audit"))
    rollout = RolloutDriver(policy(freezes=freezes))
    rollout.approved()
    end = find_freeze_end(rollout.policy, CREEK, rollout.at)
    assert holds(rollout) == (("freeze", "fair", end),)
    rollout.at = end - HOUR / 2
    assert rollout.tick({CREEK: MET}) == ()
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]

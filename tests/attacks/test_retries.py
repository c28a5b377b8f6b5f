"""Retries that nobody sees: each way to another try at a gate, and what it brings.

A model exactly at the threshold gets past a gate in at most 5 % of years, because all attempts of a
cell's year share that risk. Here somebody looks for attempts that aren't counted. A clock or a zone
set back over New Year: tests/engine/decide/test_attempts.py. The table of docs/concepts/attempts.md
has a row for each.
"""

from dataclasses import replace

import numpy as np
import pytest

from rollout.engine.decide.commands import AcceptRestore, AddVersion
from rollout.engine.decide.permissions import ADMIN, AssignedRole, Caller
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import AttemptYear
from rollout.engine.events import AttemptsBegan, VersionFirstUsed
from rollout.features.policies.policies import put_policy
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.errors import NotAllowedError, PolicyRefusedError, UnknownRolloutError
from rollout.kernel.facts import build_looser
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share, is_gate_open
from rollout.kernel.policy.policy import Minimum
from rollout.kernel.units import FAILED, NOT_PREDICTED
from rollout.live.rollout_state import load_rollout_state
from tests.data.snapshots import filled_once
from tests.engine.decide.test_yearly_promise import RetryingDriver, list_attempts
from tests.engine.evidence.histories import (
    a_policy,
    cases,
    decisions,
    predictions,
    records,
    resolved,
    track,
)
from tests.factories import ANA, CREEK, DAY, LAKE, MET, NOON, counted, gates, kinds, policy
from tests.features import bear_field as field

ADMIN_OF_ALL = Caller("zoe", role_assignments=(AssignedRole(ADMIN),))
OF_BEARS = AssignedRole(ADMIN, "bears")
LAKE_SITE = Site("lake", "UTC", wave=2)
NIGHT = Window("night")
RENAMED = {
    "site": ({"sites": (Site("brook", "UTC", was="creek"), LAKE_SITE)}, Cell("brook", "day")),
    "window": (
        {"windows": (Window("daylight", "08:00-20:00", was="day"), NIGHT)},
        Cell("creek", "daylight"),
    ),
}
UNNAMED = {
    "site": {"sites": (Site("brook", "UTC"), LAKE_SITE)},
    "window": {"windows": (Window("daylight", "08:00-20:00"), NIGHT)},
}
REMOVED = {"site": {"sites": (LAKE_SITE,)}, "window": {"windows": (NIGHT,)}}


def try_once(rollout, cell=CREEK):
    """Use a new version in a cell and count its first units; return its number in the year."""
    rollout.act("another try", cell, 0)
    return list_attempts(rollout.events)[-1][3]


@pytest.fixture
def rollout():
    """A rollout of which two versions have been tried in CREEK."""
    made = RetryingDriver()
    assert [try_once(made), try_once(made)] == [1, 2]
    return made


# New names


@pytest.mark.parametrize("what", RENAMED)
def test_a_renamed_cell_counts_on(rollout, what):
    changes, cell = RENAMED[what]
    rollout.change_policy(policy(**changes))
    assert try_once(rollout, cell) == 3


@pytest.mark.parametrize("what", RENAMED)
def test_a_new_name_without_a_word_of_the_old_one_is_refused(rollout, what):
    with pytest.raises(PolicyRefusedError, match="so that its attempts go on being numbered"):
        rollout.edit(policy(**UNNAMED[what]))


def test_a_cell_does_not_go_on_as_a_fresh_one_of_another_place():
    """Lake, never tried, would lend its fresh numbers to creek's new name."""
    creek = Site("creek", "UTC", coordinates=(46.1, 14.5))
    lake = Site("lake", "UTC", coordinates=(47.2, 13.4), wave=2)
    rollout = RetryingDriver(first=policy(sites=(creek, lake)))
    assert [try_once(rollout), try_once(rollout)] == [1, 2]
    renamed = replace(creek, id="brook", was="lake")
    with pytest.raises(PolicyRefusedError, match="write `was: creek` at the site brook"):
        rollout.edit(policy(sites=(renamed,)))
    rollout.change_policy(policy(sites=(replace(renamed, was="creek"),)))
    assert try_once(rollout, Cell("brook", "day")) == 3


@pytest.mark.parametrize("what", RENAMED)
def test_a_cell_that_comes_back_under_a_new_name_needs_approvals_and_is_a_new_one(rollout, what):
    rollout.change_policy(policy(**REMOVED[what]))
    (proposal,) = rollout.edit(policy(**UNNAMED[what]))
    assert sorted(proposal.needs) == ["operator", "safety"]
    rollout.tick()
    assert rollout.policy != policy(**UNNAMED[what])
    rollout.approve_all([proposal])
    rollout.tick()
    assert try_once(rollout, RENAMED[what][1]) == 1, "the page says so"


def test_another_version_name_is_the_next_attempt(rollout):
    assert try_once(rollout) == 3


def test_a_retired_version_does_not_come_back_under_its_name(rollout):
    rollout.retire("v2")
    before = rollout.scope
    assert rollout.do(AddVersion(at=rollout.at, version="v2")) == ()
    rollout.tick({CREEK: MET}, "v2")
    assert rollout.scope.versions["v2"].retired
    assert rollout.scope.attempt_years == before.attempt_years
    assert not rollout.scope.proposals


# Edits


@pytest.mark.parametrize("edit", ["no lake", "another grace"])
def test_a_cell_that_goes_and_comes_back_counts_on(edit):
    rollout = RetryingDriver()
    assert [try_once(rollout, LAKE), try_once(rollout, LAKE)] == [1, 2]
    rollout.act(edit, LAKE, 0)
    rollout.act("back", LAKE, 0)
    rollout.act("units", LAKE, 0)
    assert [number for _, _, _, number, _ in list_attempts(rollout.events)] == [1, 2, 3]


def test_a_gate_that_goes_and_comes_back_begins_the_next_attempt(rollout):
    before = rollout.scope.get_cell_state(CREEK, "v3")
    rollout.act("no gate", CREEK, 0)
    (proposal,) = rollout.edit(policy())
    assert build_looser("gate", stage="supervised") in proposal.loosens
    rollout.approve_all([proposal])
    rollout.tick()
    after = rollout.scope.get_cell_state(CREEK, "v3")
    assert not after.has_begun
    assert after.risk_share < before.risk_share
    rollout.act("units", CREEK, 0)
    assert rollout.scope.get_cell_state(CREEK, "v3").number == 3


def test_a_gate_that_comes_back_with_more_risk_begins_the_next_attempt(rollout):
    rollout.act("no gate", CREEK, 0)
    rollout.act("more risk", CREEK, 0)
    assert rollout.policy.gates[0].risk == 0.2
    assert not rollout.scope.get_cell_state(CREEK, "v3").has_begun
    rollout.act("units", CREEK, 0)
    assert rollout.scope.get_cell_state(CREEK, "v3").number == 3


def test_each_rise_of_the_risk_costs_an_attempt_and_a_fall_gives_none_back(rollout):
    numbers = []
    for edit in ("less risk", "back") * 3:
        rollout.act(edit, CREEK, 0)
        rollout.act("units", CREEK, 0)
        numbers.append(rollout.scope.get_cell_state(CREEK, "v3").number)
    assert numbers == [2, 3, 3, 4, 4, 5]


def test_a_threshold_that_moves_opens_nothing_that_the_true_share_would_not():
    """An e-value falls with its threshold: what opens above the true share opens at it too."""
    minimum = Minimum(units=1, days=1, reviewers=1)

    def opens(threshold, agreed, disagreed):
        require = (Condition(MEASURES["agreement"], threshold),)
        made = policy(gates=gates(supervised={"require": require, "minimum": minimum}))
        counts = counted(agreed, disagreed)
        return is_gate_open(made, CREEK, 1, compute_yearly_share(2), counts, counts)

    opened = 0
    for agreed, disagreed in np.random.default_rng(5).integers((50, 0), (900, 30), (150, 2)):
        at_true_share = opens(0.93, int(agreed), int(disagreed))
        for moved in (0.94, 0.95, 0.97):
            if opens(moved, int(agreed), int(disagreed)):
                opened += 1
                assert at_true_share
    assert opened > 50


def test_a_moved_threshold_begins_no_attempt(rollout):
    before = list_attempts(rollout.events)
    for edit in ("lower threshold", "back") * 3:
        rollout.act(edit, CREEK, 0)
        rollout.act("units", CREEK, 0)
    assert list_attempts(rollout.events) == before


# Silence


def test_a_case_without_a_prediction_is_missing_and_an_empty_answer_is_a_disagreement():
    history = records(
        cases(("easy", 1), ("hard", 2), ("empty", 3)),
        predictions(("easy", "bear"), ("empty", None), ("easy", "bear", {"version": "v2"})),
        decisions(("easy", "bear"), ("hard", "fox"), ("empty", "bear")),
    )
    rows = track(resolved(history, a_policy()))
    answers = {
        (row["version"], row["unit"]): (row["decided"], row["predicted"])
        for row in rows
        if row["version"] is not None
    }
    agreed = ("bear", "bear")
    assert answers == {
        ("v1", "easy"): agreed,
        ("v1", "hard"): ("fox", NOT_PREDICTED),
        ("v1", "empty"): ("bear", FAILED),
        ("v2", "easy"): agreed,
        ("v2", "hard"): ("fox", NOT_PREDICTED),
        ("v2", "empty"): ("bear", NOT_PREDICTED),
    }


# Another ledger


@filled_once
def set_up_rollouts(database):
    """Create a rollout of creek by an admin, and a second one."""
    for name in ("bears", "bears-again"):
        text = field.POLICY.replace("rollout: bears", f"rollout: {name}")
        put_policy(database, ADMIN_OF_ALL, name, text, at=NOON)


def test_a_second_rollout_of_a_site_takes_an_admin_and_has_a_risk_of_its_own(database):
    text = field.POLICY.replace("rollout: bears", "rollout: bears-again")
    with pytest.raises((NotAllowedError, UnknownRolloutError)):
        put_policy(
            database, Caller("ben", role_assignments=(OF_BEARS,)), "bears-again", text, at=NOON
        )
    set_up_rollouts(database)
    began = AttemptsBegan(
        at=NOON,
        by="policy",
        cells=(CREEK,),
        versions=("v1",),
        years=(2027,),
        numbers=(1,),
        releases=(0,),
        shares=("0.38",),
    )
    field.append(database, VersionFirstUsed(at=NOON, by="policy", version="v1"), began)
    with database.begin_read() as transaction:
        years = [
            load_rollout_state(transaction, name).scope.attempt_years
            for name in ("bears", "bears-again")
        ]
    assert years == [{CREEK: AttemptYear(2027, 1)}, {}]


def test_a_restored_ledger_stops_everything_and_has_forgotten_later_attempts(rollout):
    backup = list(rollout.events)
    assert try_once(rollout) == 3
    rollout.act("enough units", CREEK, 0)
    assert rollout.scope.proposals
    rollout.events = backup
    rollout.scope = apply_events(backup)
    events = rollout.do(AcceptRestore(at=rollout.at, by=ANA, reason="the disk of Monday"))
    assert kinds(events)[-2:] == ["EraBegan", "Stopped"]
    assert set(rollout.policy.cells) <= set(events[-1].cells)
    rollout.after(DAY)
    assert try_once(rollout) == 3, "the page says that a restore forgets attempts"
    rollout.tick({CREEK: MET}, f"v{rollout.number}")
    assert not rollout.scope.proposals, "nothing is proposed until users approve the resume"

"""A cell under another name is the same cell: it gets no new risk, and stays stopped."""

from dataclasses import replace

import pytest

from rollout.engine.decide.scope import AttemptYear
from rollout.engine.events import PolicyApplied
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.errors import PolicyRefusedError
from tests.engine.decide.test_attempts import YearDriver
from tests.factories import BO, CREEK, CY, HOUR, NOON, policy

FIRST = policy()
LAKE_SITE = FIRST.sites[1]


def with_site(name, was="", base=FIRST, **more):
    """Return the policy with another site in the creek's place."""
    return policy(sites=(Site(name, "UTC", was=was, **more), *base.sites[1:]))


RIVER = Cell("river", "day")


def edit(rollout, new):
    """Apply a looser policy with its approvals; return the event."""
    (raised,) = rollout.edit(new)
    rollout.approve(raised, BO, CY)
    (applied,) = (event for event in rollout.tick() if isinstance(event, PolicyApplied))
    return applied


def test_a_site_under_a_new_name_is_refused_until_it_says_what_it_was():
    rollout = YearDriver()
    with pytest.raises(PolicyRefusedError) as error:
        rollout.edit(with_site("river"))
    assert str(error.value) == (
        "river · day has the hours and place of creek · day, which this edit removes: write `was:"
        " creek` at the site river, so that its attempts go on being numbered; if it is another"
        " site, remove creek first, in an edit of its own"
    )


def test_a_window_under_a_new_name_is_refused_too():
    windows = (Window("daytime", "08:00-20:00"), FIRST.windows[1])
    with pytest.raises(PolicyRefusedError, match="`was: day` at the window daytime"):
        YearDriver().edit(policy(windows=windows))
    applied = edit(YearDriver(), policy(windows=(replace(windows[0], was="day"), windows[1])))
    assert applied.renamed == (Cell("creek", "daytime"), Cell("lake", "daytime"))
    assert applied.former == (CREEK, Cell("lake", "day"))


@pytest.mark.parametrize(
    "new",
    [
        with_site("river", coordinates=(47.0, 15.0)),
        policy(sites=(Site("river", "Europe/Vienna"), LAKE_SITE)),
        policy(sites=(LAKE_SITE,)),
        policy(windows=(Window("day", "08:00-20:00"), Window("late", "22:00-24:00"))),
        policy(windows=(Window("night"),)),
    ],
    ids=["another place", "another zone", "removed alone", "other hours", "window removed alone"],
)
def test_other_hours_or_another_place_are_another_cell(new):
    applied = [e for e in YearDriver().edit(new) if isinstance(e, PolicyApplied)]
    assert [event.renamed for event in applied] in ([], [()])


def test_a_renamed_cell_goes_on_with_the_numbers_of_its_attempts():
    rollout = YearDriver(None, "v1", "v2")
    rollout.count(NOON + HOUR, "v1")
    edit(rollout, with_site("river", was="creek"))
    assert rollout.count(rollout.at + HOUR, "v1", cell=RIVER) == [[("v1", 2027, 2)]]
    assert rollout.count(rollout.at + HOUR, "v2", cell=RIVER) == [[("v2", 2027, 3)]]


def test_a_cell_that_is_renamed_back_goes_on_too():
    rollout = YearDriver()
    rollout.count(NOON + HOUR, "v1")
    edit(rollout, with_site("river", was="creek"))
    rollout.count(rollout.at + HOUR, "v1", cell=RIVER)
    with pytest.raises(PolicyRefusedError, match="`was: river`"):
        rollout.edit(FIRST)
    edit(rollout, with_site("creek", was="river"))
    assert rollout.count(rollout.at + HOUR, "v1") == [[("v1", 2027, 3)]]


def test_of_two_years_the_one_with_less_risk_left_goes_on():
    rollout = YearDriver()
    spent, planned = AttemptYear(2027, 2), AttemptYear(2027, 4, releases=4)
    rollout.scope = replace(rollout.scope, attempt_years={CREEK: spent, RIVER: planned})
    edit(rollout, with_site("river", was="creek"))
    assert spent.unspent_share > planned.unspent_share == pytest.approx(0.2)
    assert rollout.scope.attempt_years[RIVER] == planned


def test_a_renamed_cell_holds_no_grant_and_begins_its_evidence_anew():
    rollout = YearDriver()
    rollout.widen()
    assert rollout.stage() == "supervised"
    applied = edit(rollout, with_site("river", was="creek"))
    assert CREEK in applied.cleared
    assert rollout.stage(RIVER) == "shadow"
    assert not rollout.state(cell=RIVER).has_begun


def test_a_stopped_cell_stays_stopped_under_its_new_name():
    rollout = YearDriver()
    rollout.stop(CREEK)
    edit(rollout, with_site("river", was="creek"))
    assert rollout.scope.is_stopped(RIVER)


def test_a_former_name_that_nothing_has_is_refused():
    with pytest.raises(PolicyRefusedError, match="no site crek is in the policy in force"):
        YearDriver().edit(with_site("river", was="crek"))


def test_a_row_that_keeps_its_former_name_changes_nothing_later():
    rollout = YearDriver()
    edit(rollout, with_site("river", was="creek"))
    (applied,) = rollout.edit(
        replace(with_site("river", was="creek"), slices=("weather",), hash="later")
    )
    assert (applied.renamed, applied.former) == ((), ())


def test_a_removed_cell_that_comes_back_goes_on_with_its_numbers():
    rollout = YearDriver()
    rollout.count(NOON + HOUR, "v1")
    rollout.edit(policy(sites=(LAKE_SITE,)))
    edit(rollout, FIRST)
    assert rollout.count(rollout.at + HOUR, "v1") == [[("v1", 2027, 2)]]

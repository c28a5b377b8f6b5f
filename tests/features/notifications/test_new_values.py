"""Users hear of values that are new to an acting version: once, without figures, while it is so."""

from dataclasses import replace

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.gate_series import UnfamiliarUnits
from rollout.features.cells import cell_table
from rollout.features.cells.cell_table import CellValuesSummary
from rollout.features.notifications import proposal_kinds
from rollout.features.notifications.kinds import MAX_VALUE_AGE
from rollout.kernel.policy.familiarity import FAMILIAR, FEW, ValueReading
from rollout.live.policy_application import apply_policy
from tests.api.bears import CREEK, LAKE, POLICY, tick, widened
from tests.factories import HOUR, MET, MINUTE, NOON
from tests.features.notifications.mailing_list import choose, run_pass

pytestmark = pytest.mark.slow

RULED = POLICY.replace("evidence: {", "evidence: {familiar: {attributes: [form]}, ")
TITLE = "bears: 1 value new to the model at creek"


@pytest.fixture
def run(service, mailroom, clock):
    def run_at(at):
        clock.at = at
        return sorted(m for m in run_pass(service, mailroom) if "Confirm" not in m[1])

    return run_at


def read(database, at, cells=(CREEK,), judged=5, **statuses):
    readings = {
        ("form", form): ValueReading(status, judged, agreed=3) for form, status in statuses.items()
    }
    tick(database, at, cells=cells, of=replace(MET, values=readings))


@pytest.fixture
def _ruled(service, database):
    widened(database, NOON)
    apply_policy(database, RULED, Actor("zoe"), NOON + MINUTE)


@pytest.mark.slow
@pytest.mark.usefixtures("_ruled")
def test_readers_of_the_site_hear_once_of_a_new_value_and_of_no_figure(
    database, run, service, mailroom
):
    for name in ("olga", "lars", "vic", "nora"):
        choose(service, name, ["new-values"])
    choose(service, "ada", ["incidents"])
    assert run(NOON + HOUR) == []
    read(database, NOON + HOUR, new=FEW)
    assert run(NOON + HOUR) == [("olga", TITLE), ("vic", TITLE)]
    body = mailroom.messages[-1].body
    assert "Met 5 times or more, not yet familiar: `form=new` in `day` for `v1`." in body
    assert "/console/rollouts/bears/cells/creek/day\n" in body
    assert "3" not in body.partition("Message ")[0]
    assert run(NOON + 2 * HOUR) == []
    read(database, NOON + 3 * HOUR, new=FEW, torn=FEW, odd=FEW)
    title = "bears: 2 values new to the model at creek"
    assert run(NOON + 3 * HOUR) == [("olga", title), ("vic", title)]


@pytest.mark.usefixtures("_ruled")
def test_the_message_about_a_proposal_says_what_its_gate_does_not_speak_of(
    database, run, service, mailroom, monkeypatch
):
    summary = CellValuesSummary("v1", UnfamiliarUnits(3176, 88, ("form", "new"), 78), ())
    monkeypatch.setattr(cell_table, "load_cell_values", lambda *_: {"v1": summary})
    for name in ("lars", "rita"):
        choose(service, name, ["proposals"])
    tick(database, NOON + HOUR, cells=(LAKE,))
    assert len(run(NOON + HOUR)) == 1
    assert ". In the last 30 days 88 of 3,176 units here" in mailroom.messages[-1].body
    monkeypatch.setattr(proposal_kinds, "may_be_asked_blind", lambda *_: True)
    choose(service, "olga", ["proposals"], channel="hook")
    choose(service, "lars", ["proposals"], channel="hook")
    assert len(run(NOON + HOUR + MINUTE)) == 1
    assert "3,176" not in mailroom.messages[-1].body


@pytest.mark.usefixtures("_ruled")
def test_it_waits_for_the_end_of_quiet_hours_and_is_dropped_when_the_value_is_familiar(
    database, run, service
):
    choose(service, "olga", ["new-values"], quiet=("12:30", "14:00"))
    read(database, NOON + HOUR, new=FEW, torn=FEW)
    assert run(NOON + HOUR) == []
    read(database, NOON + HOUR + MINUTE, new=FAMILIAR, judged=20)
    assert run(NOON + 2 * HOUR) == [("olga", TITLE)], "of torn alone"
    read(database, NOON + 3 * HOUR, last=FEW)
    read(database, NOON + 4 * HOUR, last=FAMILIAR, judged=20)
    assert run(NOON + 4 * HOUR) == []


@pytest.mark.usefixtures("_ruled")
def test_old_ones_those_in_shadow_and_those_of_before_the_choice_are_not_sent(
    database, run, service
):
    read(database, NOON + HOUR, new=FEW)
    read(database, NOON + HOUR, cells=(LAKE,), new=FEW)
    run(NOON + HOUR + MINUTE)
    choose(service, "olga", ["new-values"])
    choose(service, "lars", ["new-values"])
    assert run(NOON + 2 * HOUR) == []
    read(database, NOON + 3 * HOUR, torn=FEW)
    assert run(NOON + 3 * HOUR + MAX_VALUE_AGE) == []

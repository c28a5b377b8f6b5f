"""Incidents: opened once, listed until a person acknowledges them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.decide.commands import AcknowledgeIncident, OpenIncident, Tick
from rollout.engine.decide.incident_kinds import INCIDENT_KINDS
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS, is_over_limit
from rollout.engine.ledger.ledger import build_row, parse_event
from rollout.kernel.errors import NotAllowedError, UnknownIncidentError, UserRequiredError
from tests.factories import (
    BO,
    BOT,
    CREEK,
    DAN,
    LAKE,
    MET,
    NOON,
    SALTS,
    Actor,
    RolloutDriver,
    kinds,
    supervised,
)


def tell(rollout: RolloutDriver, kind: str = "unauthorized", reason: str = "no permit", **of):
    return rollout.do(OpenIncident(at=rollout.at, kind=kind, reason=reason, **of))


def acknowledge(rollout: RolloutDriver, incident: str = "I-1", by: Actor = BO):
    return rollout.do(AcknowledgeIncident(at=rollout.at, by=by, incident=incident, note="seen"))


def open_ones(rollout: RolloutDriver) -> list[str]:
    return list(rollout.scope.open_incidents)


@pytest.mark.parametrize("kind", ["unauthorized", "ledger_rolled_back", "sender_clock", "clock"])
def test_an_incident_names_its_kind_its_reason_and_what_it_did(kind):
    rollout = RolloutDriver()
    (opened,) = tell(rollout, kind, cell=CREEK, version="v1", about="k-1")
    assert (opened.incident, opened.kind, opened.by, opened.reason) == (
        "I-1",
        kind,
        "policy",
        "no permit",
    )
    assert opened.effect
    assert (opened.cell, opened.version, opened.about) == (CREEK, "v1", "k-1")
    assert open_ones(rollout) == ["I-1"]
    assert parse_event(build_row("r", 1, opened, "", salts=SALTS)) == opened


def test_an_incident_in_a_cell_or_of_a_version_that_nobody_knows_is_opened_too():
    assert kinds(tell(RolloutDriver(), cell=None, version="v9")) == ["IncidentOpened"]


@pytest.mark.parametrize(
    ("more", "opens"),
    [
        ({}, False),
        ({"about": "k-1", "reason": "its lease had ended"}, False),
        ({"about": "k-2"}, True),
        ({"about": "k-2", "reason": "its lease had ended"}, True),
        ({"kind": "ledger_rolled_back"}, True),
        ({"cell": LAKE, "about": ""}, True),
        ({"version": "v2", "about": "k-2"}, True),
        ({"reason": "its lease had ended", "about": ""}, True),
    ],
)
def test_the_same_is_not_opened_twice_while_it_waits(more, opens):
    rollout, first = RolloutDriver(), {"cell": CREEK, "version": "v1", "about": "k-1"}
    tell(rollout, **first)
    assert bool(tell(rollout, **{**first, **more})) == opens


def test_what_was_acknowledged_may_happen_again():
    rollout = RolloutDriver()
    tell(rollout)
    acknowledge(rollout)
    assert [e.incident for e in tell(rollout)] == ["I-2"]


def test_only_known_kinds_are_opened_by_command():
    with pytest.raises(
        ValueError, match="one of unauthorized, ledger_rolled_back, evidence_changed"
    ):
        tell(RolloutDriver(), "alarm")


@pytest.mark.parametrize("kind", [k for k in INCIDENT_KINDS.values() if not k.about])
def test_a_kind_that_is_about_nothing_names_nothing_in_the_ledger(kind):
    with pytest.raises(ValueError, match=r"say in its declaration|is not an incident kind"):
        tell(RolloutDriver(), kind.name, about="c-7")


def test_an_incident_touches_no_stage():
    rollout = supervised()
    tell(rollout, cell=CREEK, version="v1")
    assert rollout.stage() == "supervised"


def test_acknowledging_again_answers_what_holds():
    rollout = RolloutDriver()
    tell(rollout)
    (seen,) = acknowledge(rollout)
    assert (seen.incident, seen.by, seen.note) == ("I-1", "bo", "seen")
    assert acknowledge(rollout) == ()
    assert acknowledge(rollout, by=DAN) == ()
    assert open_ones(rollout) == []


LONG_NAME = "I-" + "9" * 5000


@pytest.mark.parametrize(
    "name", ["I-2", "I-0", "I--1", "I-", "I-01", "I-²", LONG_NAME, "1", "", "P-1"]
)
def test_an_incident_that_never_was_cannot_be_acknowledged(name):
    rollout = RolloutDriver()
    tell(rollout)
    with pytest.raises(UnknownIncidentError, match="open ones: I-1"):
        acknowledge(rollout, name)


def test_a_key_acknowledges_nothing():
    rollout = RolloutDriver()
    tell(rollout)
    with pytest.raises(UserRequiredError):
        acknowledge(rollout, by=BOT)
    with pytest.raises(NotAllowedError):
        acknowledge(rollout, by=Actor("policy"))


def test_a_clock_that_stays_behind_is_one_incident_until_it_is_acknowledged():
    rollout = RolloutDriver()
    behind = [Tick(at=NOON - timedelta(hours=n), evidence={(CREEK, "v1"): MET}) for n in (2, 3, 4)]
    assert kinds(rollout.do(behind[0])) == ["AttemptsBegan", "IncidentOpened"]
    assert rollout.do(behind[1]) == rollout.do(behind[2]) == ()
    acknowledge(rollout)
    assert kinds(rollout.do(behind[2])) == ["IncidentOpened"]


def test_an_incident_over_the_limit_is_known_from_one_that_is_open():
    rollout = RolloutDriver()
    for n in range(MAX_OPEN_INCIDENTS):
        again = OpenIncident(at=rollout.at, kind="unauthorized", reason=str(n), about=f"c{n}")
        assert not is_over_limit(again, rollout.scope)
        tell(rollout, reason=str(n), about=f"c{n}")
    further = OpenIncident(at=rollout.at, kind="unauthorized", reason="-", about="further")
    assert is_over_limit(further, rollout.scope)
    assert not is_over_limit(replace(further, cell=CREEK), rollout.scope)
    assert not is_over_limit(again, rollout.scope)  # open already
    tell(rollout, reason="-", about="further")
    assert len(open_ones(rollout)) == MAX_OPEN_INCIDENTS

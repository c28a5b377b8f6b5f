"""Incidents beyond the open ones that a cell may have are counted, of every kind, and shown."""

from dataclasses import asdict

import pytest

from rollout.engine.decide.commands import AcknowledgeIncident, Actor, OpenIncident
from rollout.engine.decide.incident_kinds import INCIDENT_KINDS
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.cells.cli import format_incidents
from rollout.features.incidents.incidents import (
    UnopenedNumber,
    load_all_incidents,
    load_incidents,
    load_unopened_numbers,
)
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import execute_command
from rollout.live.service import IncidentOpener, build_service
from tests.api.bears import CREEK, founded
from tests.factories import NOON

VIEWER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
FURTHER = 3


@pytest.fixture
def service(database):
    founded(database, NOON)
    return build_service(database, None, ManualClock(NOON))


def open_too_many(opener, kind, cell=CREEK, of=MAX_OPEN_INCIDENTS + FURTHER):
    for n in range(of):
        client = f"client-{n}"
        about = client if INCIDENT_KINDS[kind].about else ""
        incident = OpenIncident(at=NOON, kind=kind, reason=f"{n}", cell=cell, about=about)
        opener.open_or_count("bears", incident, client)


def load(service):
    return load_incidents(service, VIEWER, "bears", limit=200).items


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [name for name, kind in INCIDENT_KINDS.items() if kind.has_command]
)
def test_an_incident_of_any_kind_is_opened_or_counted(service, kind):
    open_too_many(service.incident_opener, kind)
    incidents = load(service)
    opened = 1 if INCIDENT_KINDS[kind].is_single else MAX_OPEN_INCIDENTS
    assert len(incidents) == opened
    assert {incident.unopened for incident in incidents} == {0 if opened == 1 else FURTHER}


@pytest.mark.slow
def test_a_repeat_is_counted_once_by_each_replica(service, database):
    for _ in range(2):
        open_too_many(service.incident_opener, "ledger_rolled_back", cell=None)
    assert {incident.unopened for incident in load(service)} == {FURTHER}
    open_too_many(IncidentOpener(database), "ledger_rolled_back", cell=None)
    assert {incident.unopened for incident in load(service)} == {2 * FURTHER}


@pytest.mark.slow
def test_a_counted_incident_opens_when_there_is_room(service, database):
    open_too_many(service.incident_opener, "ledger_rolled_back")
    seen = AcknowledgeIncident(at=NOON, by=Actor("bo"), incident="I-1")
    execute_command(database, "bears", lambda _: seen)
    further = OpenIncident(
        at=NOON, kind="ledger_rolled_back", reason="-", cell=CREEK, about="client-51"
    )
    service.incident_opener.open_or_count("bears", further, "client-51")
    assert load(service)[0].about == "client-51"


@pytest.mark.slow
def test_the_number_is_shown_once_for_each_kind_and_cell(service, database):
    open_too_many(service.incident_opener, "unauthorized")
    open_too_many(service.incident_opener, "writes", cell=None)
    open_too_many(service.incident_opener, "ledger_rolled_back", cell=None, of=1)
    rows = load_all_incidents(database, VIEWER, acknowledged=False, limit=200).items
    assert load_unopened_numbers(service, rows) == (
        UnopenedNumber("bears", "unauthorized", "creek", "day", "", FURTHER),
        UnopenedNumber("bears", "writes", "", "", "", FURTHER),
    )
    items = [asdict(incident) for incident in load(service)]
    text = format_incidents(items, every=False)
    assert text.count("3 further incidents (unauthorized action) are counted, not opened") == 1
    assert text.count("3 further incidents (append failed) are counted, not opened") == 1


@pytest.mark.parametrize(
    ("fields", "place", "end"),
    [
        ({}, ", creek · day, v1", ""),
        ({"version": ""}, ", creek · day", ""),
        ({"site": ""}, "", ""),
        ({"acknowledged_by": "bo"}, ", creek · day, v1", "; acknowledged by bo"),
        (
            {"acknowledged_by": "bo", "note": "fog:"},
            ", creek · day, v1",
            "; acknowledged by bo: fog:",
        ),
    ],
)
def test_a_line_of_an_incident_has_what_is_stored_of_it(fields, place, end):
    incident = {"id": "I-1", "opened_at": "noon", "kind": "alarm", "effect": "narrowed"}
    incident |= {"reason": "3 of 9", "site": "creek", "window": "day", "version": "v1"}
    incident |= {"acknowledged_by": "", "note": "", "unopened": 0}
    text = format_incidents([incident | fields], every=True)
    assert text == f"  I-1 noon alarm{place}: narrowed: 3 of 9{end}"

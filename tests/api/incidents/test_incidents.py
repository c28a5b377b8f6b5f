"""Incidents over HTTP: what tripped, what it did, and that somebody has seen it."""

from dataclasses import replace

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import FamiliarityChanged, IncidentOpened
from rollout.kernel.facts import SENDER_AHEAD, Trigger
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from tests.api.bears import CREEK, LAKE, POLICY, V1, founded, scope_of, tick, widened
from tests.api.test_shell import problem_of
from tests.data.databases import on_sqlite
from tests.factories import HOUR, MET, NOON, TICK
from tests.features.incidents.cause_town import END, alarm_town, build_town


@pytest.fixture
def alarmed(database):
    """Return a rollout whose creek was narrowed by a guard."""
    founded(database, NOON)
    widened(database, NOON, CREEK, LAKE)
    guards = parse_policy(POLICY).list_guards(CREEK)
    (guard,) = (guard for guard in guards if guard.condition.measure.name == "agreement")
    loud = replace(MET, guards={guard.id: GuardReading(is_alarm=True, value=12, records=40)})
    tick(database, NOON + TICK, cells=(CREEK,), of=loud)
    tick(database, NOON + 2 * TICK, cells=(LAKE,), of=loud)


def test_an_alarm_says_what_tripped_and_what_it_did(client, alarmed):
    found = client.get(f"{V1}/incidents").json()["items"]
    assert [one["id"] for one in found] == ["I-2", "I-1"]
    one = client.get(f"{V1}/incidents/I-1").json()
    assert (one["kind"], one["effect"], one["site"]) == ("alarm", "narrowed", "creek")
    assert one["reason"] == "agreement at least 93 %: 12 of 40 blind decisions disagree"
    assert one["guard"] == "agreement>=0.93"
    facts = {"condition": {"measure": "agreement", "threshold": "0.93"}}
    assert one["alarms"] == [facts | {"against": 12, "records": 40}]
    assert one["acknowledged_at"] is None


def test_it_is_acknowledged_once(client, database, alarmed):
    path = f"{V1}/incidents/I-1/acknowledgement"
    done = client.by("bo").post(path, json={"note": "snow on the lens"}).json()
    assert [e["kind"] for e in done["events"]] == ["IncidentAcknowledged"]
    again = client.by("ana").post(path, json={}).json()
    assert (again["events"], again["revision"]) == ([], done["revision"])
    one = client.get(f"{V1}/incidents/I-1").json()
    assert (one["acknowledged_by"], one["note"]) == ("bo", "snow on the lens")
    states = {state: _ids(client, state) for state in ("open", "acknowledged", "all")}
    assert states == {"open": ["I-2"], "acknowledged": ["I-1"], "all": ["I-2", "I-1"]}


def _ids(client, state):
    found = client.get(f"{V1}/incidents", params={"state": state}).json()
    return [one["id"] for one in found["items"]]


def test_an_operator_of_another_site_sees_and_acknowledges_their_own(client, door, alarmed):
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    client.by("eve")
    assert _ids(client, "all") == ["I-2"]
    assert problem_of(client.get(f"{V1}/incidents/I-1")) == (403, "not-allowed")
    path = f"{V1}/incidents/I-1/acknowledgement"
    assert problem_of(client.post(path, json={})) == (403, "not-allowed")
    assert client.post(f"{V1}/incidents/I-2/acknowledgement", json={}).status_code == 200


@on_sqlite
def test_values_without_room_for_an_incident_are_counted_at_those_that_are_open(client, database):
    founded(database, NOON)
    widened(database, NOON, CREEK)
    scope = scope_of(database)
    at = {"at": scope.at, "by": "policy"}
    forms = ("new", "torn", "wet")
    changed = FamiliarityChanged(
        **at, cells=(CREEK,) * 3, versions=("v1",) * 3, attributes=("form",) * 3, values=forms,
        statuses=("mistaken",) * 3, judged=(20,) * 3, agreed=(9,) * 3,
    )  # fmt: skip
    opened = IncidentOpened(
        **at, incident="I-1", kind="unfamiliar", effect="a human decides its cases",
        reason="unfamiliar: form=new", cell=CREEK, version="v1", about="form=new",
    )  # fmt: skip
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        Ledger(transaction, rollout).append([changed, opened], after=scope.revision)
    (found,) = client.get(f"{V1}/incidents").json()["items"]
    assert (found["about"], found["unopened"]) == ("form=new", 2)


def test_one_that_never_was_is_not_there(client, alarmed):
    assert problem_of(client.get(f"{V1}/incidents/I-9")) == (404, "unknown-incident")
    path = f"{V1}/incidents/I-9/acknowledgement"
    assert problem_of(client.post(path, json={})) == (404, "unknown-incident")


def test_a_clock_that_is_behind_is_an_incident_of_no_site(client, door, database, alarmed):
    tick(database, NOON + 9 * HOUR)
    tick(database, NOON + 3 * TICK)
    one = client.get(f"{V1}/incidents").json()["items"][0]
    assert (one["kind"], one["site"]) == ("clock", "")
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    path = f"{V1}/incidents/{one['id']}/acknowledgement"
    assert client.by("eve").post(path, json={}).status_code == 200
    assert one["id"] not in scope_of(database).open_incidents


def test_pages_go_on(client, alarmed):
    first = client.get(f"{V1}/incidents", params={"limit": 1}).json()
    second = client.get(f"{V1}/incidents", params={"limit": 1, "after": first["next"]}).json()
    assert [one["id"] for one in (*first["items"], *second["items"])] == ["I-2", "I-1"]


def test_its_cause_names_the_value_and_when_it_began(client, clock, database):
    build_town(database)
    clock.advance(END - clock.now())
    answer = client.by("operator").get(f"{V1}/incidents/I-1/cause")
    assert answer.status_code == 200
    cause = answer.json()["cause"]
    value = cause["values"][0]
    assert (value["name"], value["value"], value["verdict"]) == ("lens", "new", "stands-out")
    assert value["low"] < value["differing"] / value["judged"] < value["high"]
    assert cause["compared"] == len(cause["values"])
    assert cause["started_at"] < cause["opened_at"]
    (new,) = cause["new_values"]
    assert (new["value"], new["since"]["judged"]) == ("new", value["judged"])


@pytest.mark.slow
def test_its_detector_ends_at_the_alarm(client, clock, door, database):
    alarm_town(database)
    clock.advance(END - clock.now())
    answer = client.by("viewer").get(f"{V1}/incidents/I-1/detector").json()
    course, last = answer["course"], answer["course"]["points"][-1]
    assert (answer["hidden"], course["threshold"]) == (None, 10_000)
    assert last["value_log10"] >= 4 > course["points"][-2]["value_log10"]
    (alarm,) = client.get(f"{V1}/incidents/I-1").json()["alarms"]
    assert (alarm["against"], alarm["records"]) == (last["against"], last["records"])
    door.let_in("eve", AssignedRole("operator", "bears"), AssignedRole("reviewer", "bears"))
    hidden = client.by("eve").get(f"{V1}/incidents/I-1/detector").json()
    assert hidden == {"incident": "I-1", "course": None, "hidden": "asked"}
    assert problem_of(client.get(f"{V1}/incidents/I-9/detector")) == (404, "unknown-incident")


def test_an_incident_without_a_judged_case_has_a_cause_without_values(client, alarmed):
    cause = client.get(f"{V1}/incidents/I-1/cause").json()["cause"]
    assert (cause["started_at"], cause["values"], cause["before"]["share"]) == (None, [], None)


def test_an_incident_of_no_cell_has_its_trigger_and_no_cause(client, database):
    founded(database, NOON)
    trigger = Trigger(SENDER_AHEAD, {"dated": "13:00", "received": "12:00"})
    ahead = OpenIncident(at=NOON, kind="sender_clock", trigger=trigger, about="host")
    execute_command(database, "bears", lambda _: ahead)
    incident = client.get(f"{V1}/incidents/I-1").json()
    assert incident["trigger"] == {"kind": trigger.kind, "values": trigger.values}
    assert incident["reason"].startswith("host dated an action 13:00 and sent it by 12:00: set")
    assert client.get(f"{V1}/incidents/I-1/cause").json() == {"incident": "I-1", "cause": None}
    assert problem_of(client.get(f"{V1}/incidents/I-9/cause")) == (404, "unknown-incident")

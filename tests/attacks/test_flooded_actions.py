"""A client returns with a night's actions, or lies about them: a stop waits little.

What is judged while the database is being written to must not grow with the ledger's length times
the number of items.
"""

from datetime import timedelta

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.assignment import Permit
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import IncidentAcknowledged, IncidentOpened
from rollout.engine.records.records import Action, Case, Prediction
from rollout.features.records.action_authorization import ActionAuthorizer, StoredCase
from rollout.live.rollout_state import load_rollout_state
from tests.data.databases import on_sqlite
from tests.factories import DAY, NOON
from tests.features import bear_field as field

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)
LONG = 400  # rows


def long_ledger(database):
    """Let the ledger grow by incidents, opened and acknowledged a second each."""
    for start in range(0, LONG // 2, 100):
        pairs = (pair for n in range(start, start + 100) for pair in a_pair(n))
        field.append(database, *pairs)


def a_pair(n):
    at, name = NOON - DAY + n * SECOND, f"I-{n + 1}"
    told = {"effect": "-", "reason": str(n), "cell": None, "version": "", "about": str(n)}
    yield IncidentOpened(at=at, by="policy", incident=name, kind="ledger_rolled_back", **told)
    yield IncidentAcknowledged(at=at, by="bo", incident=name, note="")


@on_sqlite
@pytest.mark.parametrize("order", [1, -1], ids=["as they happened", "the newest first"])
def test_late_actions_do_not_fold_the_ledger_each(database, service, monkeypatch, order):
    field.autonomous(database, NOON - 2 * DAY)
    long_ledger(database)
    folded = []

    def counted(events, scope):
        known = tuple(events)
        folded.extend(known)
        return apply_events(known, scope)

    monkeypatch.setattr("rollout.features.records.action_authorization.apply_events", counted)
    monkeypatch.setattr("rollout.data.ledger.ledger.apply_events", counted)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
        folded.clear()
        permission = ActionAuthorizer(transaction, stood, service.permit_signer, NOON)
        for n in range(0, LONG // 2, 2)[::order]:
            at = NOON - DAY + n * SECOND + SECOND / 2
            assert judged(permission, service, f"c{n}", at) == "authorized"
    assert len(folded) < 30 * LONG


def judged(permission, service, key, at):
    permit = service.permit_signer.sign(Permit("model", 3, at, 2 * SECOND), "bears", key, "v1")
    action = Action(
        key=key, lever="alarm", action="siren", by="model", at=at, permission="", version="v1"
    )
    case = Case(key=key, site="creek", occurred_at=NOON, window="day")
    said = Prediction(key=key, version="v1", answers={"alarm": "bear"})
    return permission.authorize(action, permit, StoredCase(case, {"v1": [said]})).action.permission


@on_sqlite
def test_what_was_once_is_what_the_whole_chain_says(database, service):
    field.autonomous(database, NOON - 2 * DAY)
    long_ledger(database)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
        ledger = Ledger(transaction, stood.rollout)
        past = ActionAuthorizer(transaction, stood, service.permit_signer, NOON)._scope_history
        for revision in (377, 12, 50, 51, 0, 200, 199, 378, 1, 400):
            assert past.get_scope(revision) == apply_events(ledger.list_events(until=revision))


@on_sqlite
def test_a_flood_of_unpermitted_actions_is_recorded_and_fills_no_ledger(database, client):
    field.autonomous(database, NOON - 2 * DAY)
    done = {"kind": "action", "lever": "alarm", "action": "siren", "by": "model"}
    when = {"at": NOON.isoformat()}
    items = [done | when | {"key": f"c{n}", "version": f"x{n}"} for n in range(200)]
    answers = client.by("ingest").post("/v1/rollouts/bears/records", json=items).json()["items"]
    assert {a["reason"].partition(":")[0] for a in answers} == {"unpermitted"}
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, "bears").scope
    assert len(scope.open_incidents) == 50
    client.by("ingest").post("/v1/rollouts/bears/records", json=items[:60])  # sent again
    found = client.by("viewer").get("/v1/rollouts/bears/incidents").json()["items"]
    assert {incident["unopened"] for incident in found} == {150}
    cases = [{"kind": "case", "key": f"c{n}", "site": "creek"} for n in range(200, 202)]
    later = [done | when | {"key": f"c{n}", "version": "v1"} for n in range(200, 202)]
    stamped = [each | {"occurred_at": NOON.isoformat()} for each in cases]
    client.by("ingest").post("/v1/rollouts/bears/records", json=[*stamped, *later])
    found = client.by("viewer").get("/v1/rollouts/bears/incidents?limit=100").json()["items"]
    assert {(i["site"], i["unopened"]) for i in found} == {("", 150), ("creek", 0)}


@on_sqlite
def test_a_flood_of_unpermitted_actions_is_told_at_once(database, client, monkeypatch):
    field.autonomous(database, NOON - 2 * DAY)
    reads = []
    monkeypatch.setattr(
        "rollout.features.records.unauthorized_actions.load_rollout_state",
        lambda *a: (reads.append(a), load_rollout_state(*a))[1],
    )
    done = {"kind": "action", "lever": "alarm", "action": "siren", "by": "model"}
    items = [done | {"at": NOON.isoformat(), "key": f"c{n}", "version": "v1"} for n in range(40)]
    client.by("ingest").post("/v1/rollouts/bears/records", json=items)
    assert len(reads) == 1

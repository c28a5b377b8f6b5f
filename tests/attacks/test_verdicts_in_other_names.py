"""A machine that sends records: it can't speak for a person, and can't predict what it has read."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.tables.tables import cases, decisions
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.units import resolve_units
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import AFTER_DECISION
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.factories import MINUTE, NOON
from tests.features import bear_field as field

BEARS = "/v1/rollouts/bears"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _shadow(database, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.set_up_field(database)


def send(client, *items):
    return client.by("ingest").post(f"{BEARS}/records", json=[*items]).json()["items"]


def case(key="c1"):
    return {"kind": "case", "key": key, "site": "creek", "occurred_at": NOON.isoformat()}


def prediction(label="bear", at=NOON, **more):
    said = {"kind": "prediction", "key": "c1", "version": "v1", "answers": {"alarm": label}}
    return said | ({} if at is None else {"at": at.isoformat()}) | more


def decision(label, at=NOON, **more):
    said = {"kind": "decision", "key": "c1", "reviewer": "ana", "answers": {"alarm": label}}
    return said | {"submitted_at": at.isoformat(), "exposure": "blind"} | more


def judge(client, label="bear", who="ana"):
    """Let somebody take the next case and judge it."""
    (task,) = client.by(who).post(f"{BEARS}/reviews/claims", json={}).json()["tasks"]
    path = f"{BEARS}/reviews/{task['review']}/decision"
    answer = client.by(who).post(path, json={"answers": {"alarm": label}})
    assert answer.status_code == 200
    return task["review"]


def show(database, key, at, reviewer="ana"):
    """Note that somebody was shown the prediction on a case's page."""
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, field.NAME).rollout
        entries = [(ExternalKeys(transaction, rollout).find_ids([key])[key], "prediction")]
        ExposureStore(transaction, rollout).add(entries, reviewer=reviewer, page="case", at=at)


def counted(database, track="gate"):
    """Return what evidence says of the case: predicted, decided, excluded."""
    return [(r["predicted"], r["decided"], r["excluded"]) for r in units(database, track)]


def closing(database):
    """Return the slots in which the case closes, by site."""
    return [(r["site"], r["slot"]) for r in units(database, "gate")]


def units(database, track):
    policy = parse_policy(field.POLICY)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, field.NAME).rollout
        records = StoredHistory(transaction, rollout, levers=["alarm"]).load_records()
    history = place_cases(records, policy, field.SALT)
    rows = resolve_units(history.placed, policy).collect().to_native()
    return [row for row in rows.to_dicts() if row["track"] == track]


def test_a_machine_does_not_correct_what_a_person_said_in_their_seat(client, database, clock):
    send(client, case(), prediction("none"))
    judge(client, "bear")
    clock.advance(MINUTE)
    send(client, decision("none", clock.now(), revision=2))
    assert counted(database) == [("none", "bear", None)]
    (said,) = client.by("viewer").get(f"{BEARS}/cases/c1").json()["decisions"]
    assert said["answers"] == {"alarm": "bear"}


def test_a_person_corrects_what_they_said_in_their_seat(client, database, clock):
    send(client, case(), prediction("none"))
    number = judge(client, "bear")
    clock.advance(MINUTE)
    changed = {"answers": {"alarm": "none"}, "supersedes": 1}
    client.by("ana").post(f"{BEARS}/reviews/{number}/decision", json=changed)
    assert counted(database) == [("none", "none", None)]


@pytest.mark.parametrize("name", ["ana", "Ana", " ANA "])
def test_who_saw_the_prediction_is_blind_under_no_spelling_of_their_name(
    client, database, clock, name
):
    send(client, case(), prediction("bear"))
    show(database, "c1", clock.now())
    clock.advance(MINUTE)
    send(client, decision("bear", clock.now(), reviewer=name))
    with database.begin_read() as transaction:
        assert transaction.execute(select(decisions.c.exposure)).scalars().all() == ["revealed"]
    assert not EvidenceCheck(database, field.NAME).check_all().faults


@pytest.mark.parametrize("said_at", [NOON, None], ids=["dated back", "without a time"])
def test_a_prediction_that_comes_after_the_verdict_is_none_whatever_time_it_names(
    client, database, clock, said_at
):
    send(client, case())
    judge(client, "bear")
    clock.advance(HOUR)
    send(client, prediction("bear", said_at))
    assert counted(database) == [(AFTER_DECISION, "bear", None)]


def test_nor_is_a_prediction_that_is_corrected_after_the_verdict(client, database, clock):
    send(client, case(), prediction("none"))
    judge(client, "bear")
    clock.advance(HOUR)
    send(client, prediction("bear", NOON, revision=2))
    assert counted(database) == [("none", "bear", None)]


def test_nor_is_a_case_moved_away_or_held_open_once_it_is_judged(client, database, clock):
    send(client, case(), prediction("none"))
    before = closing(database)
    judge(client, "bear")
    clock.advance(HOUR)
    send(client, case() | {"site": "nowhere", "revision": 2})
    assert counted(database) == [("none", "bear", None)]
    assert closing(database) == before


def test_before_it_is_judged_a_case_is_corrected(client, database, clock):
    send(client, case(), prediction("none"))
    clock.advance(MINUTE)
    send(client, case() | {"site": "lake", "revision": 2}, prediction("bear", revision=2))
    judge(client, "bear")
    assert counted(database) == [("bear", "bear", None)]


def test_the_instant_of_a_case_is_its_place_whatever_window_that_is_by_now(client, database, clock):
    """Else a corrected zone makes a missing unit of each decision that names its case's time."""
    send(client, case(), prediction("bear"))
    policy = field.POLICY.replace("timezone: UTC", "timezone: Asia/Tokyo")
    salts = {"salt": field.SALT, "service_salt": field.SALT}
    apply_policy(database, policy, Actor("zoe"), clock.now(), **salts)
    clock.advance(HOUR)
    send(client, decision("bear", clock.now(), site="creek", occurred_at=NOON.isoformat()))
    with database.begin_read() as transaction:
        assert transaction.execute(select(cases.c.window)).scalars().all() == ["day"]

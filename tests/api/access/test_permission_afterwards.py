"""An action of the model names its permit; what it was worth is found when it comes in."""

from datetime import timedelta

import pytest

from rollout.engine.decide.assignment import Permit
from rollout.engine.decide.commands import AcceptRestore, Actor
from rollout.engine.events import Resumed
from rollout.features.assignments.assignments import LOCAL
from rollout.live.rollout_state import execute_command, load_rollout_state
from tests.factories import HOUR, MINUTE, NOON
from tests.features import bear_field as field

BEARS = "/v1/rollouts/bears"
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _bears(database, monkeypatch):
    """Set the clock of tests; a database's own is not."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.autonomous(database)


def case(key="c1", site="creek", at=NOON):
    return {"kind": "case", "key": key, "site": site, "occurred_at": at.isoformat()}


def prediction(key="c1"):
    return {"kind": "prediction", "key": key, "version": "v1", "answers": {"alarm": "bear"}}


def action(permit=None, key="c1", at=NOON, version="v1", by="model"):
    done = {"kind": "action", "key": key, "lever": "alarm", "action": "siren", "by": by}
    return done | {"at": at.isoformat(), "version": version, "permit": permit}


def answer_to(client, *items):
    return client.by("ingest").post(f"{BEARS}/records", json=[*items]).json()["items"][-1]


def permission(client, key="c1"):
    (found,) = client.by("viewer").get(f"{BEARS}/cases/{key}").json()["actions"]
    return found["authorization"]


def incidents(database):
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, "bears").scope
    return [(i.kind, i.about, str(i.cell), i.version) for i in scope.open_incidents.values()]


def asked(client, key="c1", site="creek"):
    question = field.question(key, site, prediction={"answers": {"alarm": "bear"}})
    return client.by("ingest").post(f"{BEARS}/assignments", json=question).json()


def test_an_action_as_it_was_answered_is_permitted(client, database):
    told = asked(client)
    assert told["decider"] == "model"
    answer = answer_to(client, case(), action(told["permit"], at=NOON + SECOND))
    assert answer == {"index": 1, "key": "c1", "status": "accepted", "reason": ""}
    assert permission(client) == "authorized"
    assert incidents(database) == []


def test_an_action_after_a_stop_and_within_its_lease_is_in_lease(client, database, clock):
    told = asked(client)
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(30 * SECOND)
    answer_to(client, case(), action(told["permit"], at=NOON + 20 * SECOND))
    assert permission(client) == "authorized_within_lease"
    assert incidents(database) == []


@pytest.mark.parametrize(
    ("issued", "acted", "expected"),
    [
        (NOON, NOON + MINUTE, "authorized_within_lease"),
        (NOON, NOON + MINUTE + 5 * SECOND, "authorized_within_lease"),
        (NOON, NOON + MINUTE + 6 * SECOND, "unauthorized"),
        (NOON + SECOND + SECOND / 2, NOON + 2 * SECOND, "authorized_within_lease"),
        (NOON + 2 * SECOND, NOON + 3 * SECOND, "unauthorized"),
    ],
    ids=[
        "at its end",
        "by a clock near ours",
        "past its end",
        "while the stop travelled",
        "after the stop was known",
    ],
)
def test_a_lease_ends_and_no_answer_is_issued_after_a_stop_was_known(
    client, database, clock, service, issued, acted, expected
):
    revision = asked(client)["revision"]
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(5 * MINUTE)
    permit = service.permit_signer.sign(
        Permit("model", revision, issued, MINUTE), "bears", "c1", "v1"
    )
    answer = answer_to(client, case(), action(permit, at=acted))
    assert permission(client) == expected
    assert answer["status"] == "accepted"
    assert bool(incidents(database)) == (expected == "unauthorized")


def begin_era(database, at):
    command = AcceptRestore(at=at, by=Actor("zoe"), reason="the disk of Monday")
    era, stopped = execute_command(database, "bears", lambda _: command)
    field.append(database, Resumed(at=at, by="policy", stop=stopped.stop, proposal="P-9"))
    return era


def test_no_permit_of_an_earlier_era_authorizes_an_action_after_it_ended(client, database, clock):
    told = asked(client)
    begin_era(database, NOON + SECOND)
    clock.advance(30 * SECOND)
    answer = answer_to(client, case(), action(told["permit"], at=NOON + 20 * SECOND))
    assert "another era" in answer["reason"]
    assert permission(client) == "unauthorized"
    again = asked(client, "c2")
    assert (again["era"], again["permit"].split(".")[3]) == (2, f"2-{again['revision']}")
    answer_to(client, case("c2"), action(again["permit"], "c2", at=NOON + 40 * SECOND))
    assert permission(client, "c2") == "authorized"


def test_an_action_of_the_era_before_keeps_its_permit(client, database, clock):
    told = asked(client)
    begin_era(database, NOON + 20 * SECOND)
    clock.advance(30 * SECOND)
    answer_to(client, case(), action(told["permit"], at=NOON + 10 * SECOND))
    assert permission(client) == "authorized"


def test_a_permit_of_an_entry_that_was_lost_is_not_read_by_what_stands_there_now(
    client, database, clock, service
):
    revision = asked(client)["revision"]
    begin_era(database, NOON + 20 * SECOND)
    field.stop(database, ("creek", "day"), at=NOON + 30 * SECOND)
    clock.advance(MINUTE)
    lost = Permit("model", revision + 2, NOON, MINUTE)
    permit = service.permit_signer.sign(lost, "bears", "c9", "v1")
    unknown = action(permit, "c9", at=NOON + 10 * SECOND)  # its case is not known
    assert "another era" in answer_to(client, prediction("c9"), unknown)["reason"]


def test_an_action_without_a_permit_opens_one_incident_for_its_case(client, database):
    items = [case(), action(), action(None, "c2"), case("c2")]
    answers = client.by("ingest").post(f"{BEARS}/records", json=items).json()["items"]
    assert answers[1]["reason"] == "unpermitted: no permit of ours names this case and version"
    expected = [
        ("unauthorized", "c1", "creek · day", "v1"),
        ("unauthorized", "c2", "creek · day", "v1"),
    ]
    assert incidents(database) == expected
    assert answer_to(client, *items)["status"] == "duplicate"
    assert incidents(database) == expected


def test_a_permit_for_another_case_version_or_decider_permits_nothing(client, database, service):
    told = asked(client)
    for key, version in (("c2", "v1"), ("c1", "v2")):
        answer_to(client, case(key), action(told["permit"], key, version=version))
    human = service.permit_signer.sign(
        Permit("human", told["revision"], NOON, MINUTE), "bears", "c3", "v1"
    )
    reason = answer_to(client, case("c3"), action(human, "c3"))["reason"]
    assert reason == "unpermitted: its permit says that a human decides"
    assert [about for _, about, _, _ in incidents(database)] == ["c2", "c1", "c3"]


def test_what_a_person_did_needs_no_permit(client, database):
    answer_to(client, case(), action(by="person"))
    assert permission(client) == "not_required"
    assert incidents(database) == []


def test_a_box_that_decides_by_a_snapshot_is_held_to_it(client, database, service, clock):
    revision = asked(client, "c0")["revision"]
    lease = 12 * HOUR
    permit = service.permit_signer.sign(
        Permit(LOCAL, revision, NOON - HOUR, lease), "bears", "lake"
    )
    late = [case("c1", "lake"), case("c2", "dale"), case("c3", "lake", NOON.replace(hour=7))]
    for key in ("c1", "c2", "c3"):
        answer_to(client, *late, prediction(key), action(permit, key))
    assert permission(client, "c1") == "authorized"
    assert permission(client, "c2") == "unauthorized"  # the permit is for another site
    assert permission(client, "c3") == "unauthorized"  # by night nothing is granted
    field.stop(database, ("lake", "day"), at=NOON + MINUTE)
    clock.advance(13 * HOUR)
    for key, hours in (("c4", 10), ("c5", 12)):
        items = [case(key, "lake"), prediction(key), action(permit, key, at=NOON + hours * HOUR)]
        answer_to(client, *items)
    assert permission(client, "c4") == "authorized_within_lease"  # by when it occurred
    assert permission(client, "c5") == "unauthorized"  # past the lease


def test_a_snapshot_is_in_lease_after_a_stop_that_could_not_be_known(
    client, database, service, clock
):
    revision = asked(client, "c0")["revision"]
    permit = service.permit_signer.sign(
        Permit(LOCAL, revision, NOON - HOUR, 12 * HOUR), "bears", "lake"
    )
    field.stop(database, ("lake", "day"), at=NOON + MINUTE)
    clock.advance(3 * HOUR)
    when = NOON + 2 * HOUR
    answer_to(client, case("c1", "lake", when), prediction(), action(permit, at=when))
    assert permission(client) == "authorized_within_lease"


def test_an_action_before_its_case_is_judged_by_its_own_permit(client, database):
    permit = (
        client.by("ingest").post(f"{BEARS}/assignments", json=field.question()).json()["permit"]
    )
    answer = answer_to(client, prediction(), action(permit))
    assert answer["reason"] == "no case yet"
    assert incidents(database) == []

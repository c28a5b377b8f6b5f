"""What a question carries is stored once with its assignment; what can't be is not answered."""

from contextlib import contextmanager
from datetime import timedelta

import pytest

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.versions import VersionStore
from tests.api.assignments.test_assignments import ALONE, URL, _clocks_agree, ask, bears, predicted
from tests.features.bear_field import keys, question, stop

__all__ = ["_clocks_agree", "bears"]


def test_a_prediction_is_kept_with_the_assignment_that_it_got(client, database, bears):
    told = ask(client, ALONE, prediction=predicted())
    assert told.recorded.status == "accepted"
    with database.begin_read() as transaction:
        rows = transaction.connection.exec_driver_sql(
            "select scope_revision, decider, exposure, share from predictions"
        ).all()
    assert [tuple(row) for row in rows] == [(told.revision, "model", "blind", 1.0)]


def test_asking_again_keeps_nothing_twice(client, bears):
    first = ask(client, ALONE, prediction=predicted())
    again = ask(client, ALONE, prediction=predicted())
    assert again.recorded.status == "duplicate"
    assert again.decider == first.decider == "model"


@pytest.mark.parametrize(
    "changed", [{"site": "lake"}, {"prediction": predicted("none")}], ids=["case", "prediction"]
)
def test_what_contradicts_what_is_kept_is_a_persons(client, bears, changed):
    assert ask(client, ALONE, prediction=predicted()).decider == "model"
    told = ask(client, ALONE, **{"prediction": predicted(), **changed})
    assert (told.decider, told.recorded.status) == ("human", "conflict")
    assert "could not be kept" in told.reason


def test_one_that_contradicts_takes_nothing_from_its_neighbours(client, bears):
    ask(client, ALONE, prediction=predicted())
    asked = [question(key, prediction=predicted("none")) for key in keys(0.1, below=False)[:3]]
    told = client.by("ingest").post(URL, json={"questions": asked}).json()["answers"]
    assert [a["decider"] for a in told] == ["human", "model", "model"]
    assert [a["recorded"]["status"] for a in told] == ["conflict", "accepted", "accepted"]


def test_a_prediction_without_a_time_is_not_kept_and_said_so(client, bears):
    told = ask(client, at=None, prediction=predicted())
    assert (told.decider, told.recorded.status) == ("human", "rejected")
    assert "occurred_at" in told.recorded.reason


def test_a_label_or_lever_that_the_policy_lacks_is_named(client, bears):
    told = ask(client, ALONE, prediction={"answers": {"siren": "bear"}})
    assert told.recorded.status == "accepted"
    assert "no lever siren" in told.recorded.reason


def test_a_site_that_the_policy_lacks_is_kept_and_a_persons(client, bears):
    told = ask(client, site="moon", prediction=predicted())
    assert (told.decider, told.recorded.status) == ("human", "accepted")


@pytest.mark.parametrize(
    "prediction",
    [
        {"answers": {}, "error": "timeout"},
        predicted(error="timeout"),
        {"answers": {}},
        {"answers": {"alarm": None}},
        predicted("wolf"),
    ],
    ids=["failed", "answers-and-failed", "empty", "null", "unknown"],
)
def test_a_person_decides_where_the_policy_has_no_action(client, database, bears, prediction):
    usable, unusable = keys(0.1, below=False)[:2]
    asked = [question(usable, prediction=predicted()), question(unusable, prediction=prediction)]
    first, second = client.by("ingest").post(URL, json={"questions": asked}).json()["answers"]
    assert (first["decider"], second["decider"]) == ("model", "human")
    assert "no action for this prediction" in second["reason"]
    assert [each["recorded"]["status"] for each in (first, second)] == ["accepted", "accepted"]
    with database.begin_read() as transaction:
        reviewed = transaction.connection.exec_driver_sql(
            'select "key", reviews.kind from reviews join external_keys e on e.id = case_id'
        ).all()
    assert (unusable, "blind") in map(tuple, reviewed)


def test_what_can_not_be_kept_is_not_answered(client, service, monkeypatch, bears):
    ask(client, ALONE)

    @contextmanager
    def busy():
        raise DatabaseBusyError("somebody holds a lock; ask again")
        yield

    monkeypatch.setattr(type(service.database), "begin_write", lambda _: busy())
    refused = client.by("ingest").post(URL, json=question(ALONE, prediction=predicted()))
    assert (refused.status_code, refused.json()["code"]) == (503, "database-busy")
    assert refused.headers["retry-after"] == "1"


def test_a_new_version_is_told_and_people_decide(client, database, bears):
    assert ask(client, version="v2").decider == "human"
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        assert list(VersionStore(transaction, rollout).list_all()) == ["v1", "v2"]


@pytest.mark.slow
def test_made_up_versions_are_not_kept_beyond_twenty(client, database, bears):
    for number in range(30):
        ask(client, version=f"made-up-{number}")
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        assert len(VersionStore(transaction, rollout).list_all()) == 20


@pytest.mark.parametrize("more", [{"version": "v2"}, {"site": "lake"}], ids=["version", "conflict"])
def test_who_waits_for_a_write_is_answered_by_a_state_that_knows_the_stop(
    client, database, service, clock, monkeypatch, bears, more
):
    """The lock is free after three seconds; meanwhile somebody else's stop was acknowledged."""
    asked, other = keys(0.1, below=False)[:2]
    ask(client, asked, prediction=predicted())
    begin_write, waits = type(service.database).begin_write, [None]

    def wait(database, **options):
        if waits and waits.pop() is None:
            stop(database, ("creek", "day"))
            clock.advance(timedelta(seconds=3))
        return begin_write(database, **options)

    monkeypatch.setattr(type(service.database), "begin_write", wait)
    questions = [question(other, prediction=predicted()), question(asked, prediction=predicted())]
    questions[1] |= more
    told = client.by("ingest").post(URL, json={"questions": questions}).json()["answers"]
    assert not waits
    assert [answer["decider"] for answer in told] == ["human", "human"]
    assert told[0]["reason"] == "stopped: S-1"

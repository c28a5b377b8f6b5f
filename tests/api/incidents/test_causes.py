"""The cause of a cell or a filter, as the API answers it."""

from threading import Event

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.incidents import incident_causes, incidents
from tests.api.bears import V1
from tests.api.test_shell import problem_of
from tests.features.incidents.cause_town import END, build_town

pytestmark = pytest.mark.slow


@pytest.fixture
def town(clock, database):
    build_town(database)
    clock.advance(END - clock.now())


@pytest.mark.slow
def test_a_cell_a_filter_and_the_incident_have_the_same_cause(client, town):
    client.by("operator")
    incident = client.get(f"{V1}/incidents/I-1/cause").json()["cause"]
    params = {"site": "creek", "window": "day", "version": "v1"}
    cause = client.get(f"{V1}/cause", params=params).json()
    assert (cause["values"][0]["value"], cause["opened_at"]) == ("new", None)
    for key in ("site", "window", "version", "started_at", "compared", "new_values"):
        assert cause[key] == incident[key]
    narrowed = client.get(f"{V1}/cause", params={**params, "attribute": "lens=new"}).json()
    assert narrowed["during"]["judged"] == cause["values"][0]["judged"]


def test_wrong_filters_say_what_to_do(client, town):
    client.by("operator")
    cause = f"{V1}/cause"
    assert problem_of(client.get(cause, params={"site": "moon"}))[0] == 404
    assert problem_of(client.get(cause, params={"version": "v9"}))[0] == 404
    answer = client.get(cause, params={"attribute": "lens"})
    assert (answer.status_code, "write NAME=VALUE" in answer.text) == (422, True)
    answer = client.get(cause, params={"attribute": ["lens=old", "lens=new"]})
    assert (answer.status_code, "names an attribute twice" in answer.text) == (422, True)
    assert client.get(cause, params={"until": "0001-01-05T00:00:00Z"}).status_code == 422


def test_who_may_be_asked_blind_chooses_no_days(client, door, town):
    door.let_in("eve", AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))
    client.by("eve")
    assert client.get(f"{V1}/cause").json()["batch"] == 20
    answer = client.get(f"{V1}/cause", params={"from": "2027-06-03T00:00:00Z"})
    assert (answer.status_code, "single out a case" in answer.text) == (422, True)


def test_a_long_search_answers_202_and_later_its_cause(client, town, monkeypatch):
    may_end, load = Event(), incident_causes.load_cause

    def load_slowly(*arguments, **options):
        assert may_end.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(incidents, "PATIENCE", 0.05)
    monkeypatch.setattr(incident_causes, "load_cause", load_slowly)
    params = {"site": "creek", "window": "day", "version": "v1"}
    client.by("operator")
    answer = client.get(f"{V1}/cause", params=params)
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "2")
    assert answer.json() == {
        "started_at": END.isoformat().replace("+00:00", "Z"),
        "searches_before": 0,
    }
    may_end.set()
    monkeypatch.setattr(incidents, "PATIENCE", 60)
    assert client.get(f"{V1}/cause", params=params).json()["values"][0]["value"] == "new"

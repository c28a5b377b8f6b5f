"""The cause of a cell or a filter, as the API answers it."""

import pytest

from rollout.core.scope.permissions import AssignedRole
from tests.api.bears import V1
from tests.api.test_shell import problem_of
from tests.services.incidents.cause_town import END, build_town


@pytest.fixture
def town(clock, database):
    build_town(database)
    clock.advance(END - clock.now())


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

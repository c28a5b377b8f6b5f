"""Cases in pages and one by one, rejected records, and the manual history."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.api.records.test_records import case, decision, prediction, sent, sent_apart
from tests.api.test_shell import POLICY, problem_of
from tests.factories import NOON

RAMPS = "/v1/rollouts/ramps"


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON - timedelta(days=1))


def judged(key, said="sound", decided="sound", **more):
    return [case(key, **more), prediction(key, label=said), decision(key, label=decided)]


def keys(client, by="viewer", **wanted):
    answer = client.by(by).get(f"{RAMPS}/cases", params=wanted)
    assert answer.status_code == 200, answer.text
    return [one["key"] for one in answer.json()["items"]]


def test_cases_are_listed_newest_first_in_pages(client):
    sent_apart(client, *(case(f"c{n}") for n in range(5)))
    first = client.by("viewer").get(f"{RAMPS}/cases", params={"limit": 2}).json()
    assert [one["key"] for one in first["items"]] == ["c4", "c3"]
    rest = client.get(f"{RAMPS}/cases", params={"after": first["next"]}).json()
    assert [one["key"] for one in rest["items"]] == ["c2", "c1", "c0"]
    assert rest["next"] is None


def test_a_case_says_who_registered_it_and_not_who_corrected_it(client, door):
    door.let_in("box", AssignedRole("ingest", "ramps", "ramp-a"), machine=True)
    for by, attributes in (("ingest", {}), ("box", {"rain": "yes"})):
        sent(client, case("c1", attributes=attributes, revision=len(attributes) + 1), by=by)
    path = f"{RAMPS}/cases/c1"
    shown = client.by("viewer").get(path).json()
    assert (shown["case"]["attributes"], shown["registered_by"]) == ({"rain": "yes"}, "ingest")
    assert client.by("box").get(path).json()["registered_by"] is None  # hidden: it may judge


def test_cases_are_filtered(client):
    sent_apart(
        client,
        *judged("same"),
        *judged("other", said="damaged"),
        *judged("there", site="ramp-b", at="2027-05-01T11:00:00Z"),
        prediction("there", version="v2"),
    )
    assert keys(client, differs=True) == ["other"]
    assert keys(client, harmed=True) == []
    assert keys(client, site="ramp-b") == ["there"]
    assert keys(client, version="v2") == ["there"]
    assert keys(client, since="2027-05-02T00:00:00Z") == ["same", "other"]
    assert keys(client, until="2027-05-02T00:00:00Z") == ["there"]
    assert keys(client, window="always") == ["there", "same", "other"]
    assert keys(client, window="night") == []
    wrong = client.get(f"{RAMPS}/cases", params={"since": "2027-05-02T00:00:00"})
    assert problem_of(wrong) == (422, "malformed")


def test_a_right_for_one_site_shows_its_cases_alone(client, door):
    sent_apart(client, *judged("here"), *judged("there", site="ramp-b"))
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-a"))
    assert keys(client, by="eve") == ["here"]
    assert keys(client, by="eve", site="ramp-b") == []
    assert problem_of(client.get(f"{RAMPS}/cases/there")) == (404, "unknown-case")
    assert client.get(f"{RAMPS}/cases/here").status_code == 200
    assert problem_of(client.get(f"{RAMPS}/rejected-records")) == (403, "not-allowed")


def test_one_case_is_explained(client):
    sent_apart(
        client,
        *judged("c1", said="damaged"),
        {"kind": "action", "key": "c1", "lever": "parcel", "action": "sound", "by": "person"}
        | {"at": "2027-06-01T11:02:00Z"},
        {"kind": "outcome", "key": "c1", "at": "2027-06-01T11:59:00Z", "harm": "torn"},
    )
    found = client.by("viewer").get(f"{RAMPS}/cases/c1").json()
    assert (found["case"]["differs"], found["hidden"]) == (True, False)
    assert [one["answers"] for one in found["predictions"]] == [{"parcel": "damaged"}]
    assert [one["exposure"] for one in found["decisions"]] == ["blind"]
    assert [one["authorization"] for one in found["actions"]] == ["not_required"]
    assert [one["harm"] for one in found["outcomes"]] == ["torn"]
    assert found["pending"] == "closes 2027-06-02T12:00:00+00:00"
    assert problem_of(client.get(f"{RAMPS}/cases/none")) == (404, "unknown-case")


def test_a_key_with_slashes_is_found(client):
    sent_apart(client, case("a/b c?"))
    found = client.by("viewer").get(f"{RAMPS}/cases/a%2Fb%20c%3F").json()
    assert found["case"]["key"] == "a/b c?"


@pytest.mark.parametrize("where", ["cases/a%00b", "cases?site=a%00b", "cases?version=%00"])
def test_a_name_that_no_database_takes_is_malformed(client, where):
    assert problem_of(client.by("viewer").get(f"{RAMPS}/{where}")) == (422, "malformed")


def test_times_at_the_end_of_the_calendar_are_times(client):
    sent_apart(client, case())
    ends = {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00"}
    assert keys(client, **ends) == ["c1"]


def test_what_was_counted_is_explained(client, database, clock):
    sent_apart(client, *judged("c1", said="damaged"))
    Ticker(database, "ramps", "test").tick(NOON + timedelta(days=2))
    found = client.by("viewer").get(f"{RAMPS}/cases/c1").json()
    counted = {one["track"]: one for one in found["counted_units"]}
    assert set(counted) == {"gate", "guard"}
    assert (counted["gate"]["predicted"], counted["gate"]["decided"]) == ("damaged", "sound")
    assert (counted["gate"]["attempt"], counted["gate"]["slot"]) == (1, "2027-06-02T11:00:00Z")
    assert found["pending"] == ""


def test_a_case_without_a_sure_answer_is_not_called_equal(client):
    unsure = decision("unsure") | {"answers": {}, "unsure": True}
    sent_apart(client, case("open"), prediction("open"), case("unsure"), prediction("unsure"))
    sent_apart(client, unsure, *judged("same"))
    listed = client.by("viewer").get(f"{RAMPS}/cases").json()["items"]
    assert {one["key"]: (one["differs"], one["compared"]) for one in listed} == {
        "open": (False, False),
        "unsure": (False, False),
        "same": (False, True),
    }


def test_whoever_may_judge_a_case_is_shown_nothing_of_what_was_said(client):
    sent_apart(
        client, case("open"), prediction("open", label="damaged"), *judged("shut", said="damaged")
    )
    listed = client.by("ana").get(f"{RAMPS}/cases").json()["items"]  # ana holds every role
    assert [(one["key"], one["versions"], one["differs"], one["compared"]) for one in listed] == [
        ("shut", ["v1"], True, True),
        ("open", [], None, False),
    ]
    assert keys(client, by="ana", version="v1") == ["shut"]
    assert keys(client, by="viewer", version="v1") == ["shut", "open"]
    harm = {"kind": "outcome", "at": NOON.isoformat(), "harm": "fall", "source": "desk"}
    sent_apart(client, *({"key": key, **harm} for key in ("open", "shut")))
    assert keys(client, by="ana", harmed=True) == ["shut"]
    assert keys(client, by="viewer", harmed=True) == ["shut", "open"]
    found = client.by("ana").get(f"{RAMPS}/cases/open").json()
    assert (found["hidden"], found["predictions"], found["counted_units"]) == (True, [], [])
    sent_apart(client, prediction("open", label="sound"))  # a conflict: its text would tell too
    aside = client.by("ana").get(f"{RAMPS}/rejected-records").json()["items"]
    assert [one["body"] for one in aside] == [""]
    assert "damaged" not in found["pending"]
    assert client.by("viewer").get(f"{RAMPS}/rejected-records").json()["items"][0]["body"]


def test_who_was_shown_a_prediction_judges_blind_no_more(client):
    sent_apart(client, case("c1"), prediction("c1"))
    client.by("viewer").get(f"{RAMPS}/cases/c1")
    sent_apart(client, decision("c1", reviewer="viewer"), decision("c1", reviewer="bea"))
    found = client.get(f"{RAMPS}/cases/c1").json() if client.by("operator") else None
    exposures = {one["reviewer"]: one["exposure"] for one in found["decisions"]}
    assert exposures == {"viewer": "revealed", "bea": "blind"}


def test_a_machine_is_shown_what_it_predicted(client):
    sent_apart(client, *judged("c1"))
    assert client.by("ingest-predictions").get(f"{RAMPS}/cases/c1").json()["predictions"]
    assert problem_of(client.by("reviewer").get(f"{RAMPS}/cases")) == (403, "not-allowed")


def test_what_was_set_aside_is_listed_in_pages(client):
    sent_apart(client, *(case(f"c{n}", at="noon") for n in range(3)))
    first = client.by("viewer").get(f"{RAMPS}/rejected-records", params={"limit": 2}).json()
    assert [one["key"] for one in first["items"]] == ["c0", "c1"]
    rest = client.get(
        f"{RAMPS}/rejected-records", params={"limit": 2, "after": first["next"]}
    ).json()
    assert [one["key"] for one in rest["items"]] == ["c2"]
    assert "'noon' is no time" in rest["items"][0]["reason"]
    assert problem_of(client.get(f"{RAMPS}/rejected-records", params={"after": "%"})) == (
        422,
        "refused",
    )


HISTORY = {
    "site": "ramp-a",
    "window": "always",
    "lever": "parcel",
    "action": "sound",
    "n": 41,
    "since": "2026-01-01T00:00:00Z",
    "until": "2027-01-01T00:00:00Z",
}


def vouched(client, *items, by="admin"):
    return client.by(by).post(f"{RAMPS}/baselines", json={"items": items})


def test_a_manual_history_is_kept_once_on_somebodys_word(client):
    assert vouched(client, HISTORY, {**HISTORY, "action": "damaged"}).json() == {"new": 2}
    assert vouched(client, HISTORY).json() == {"new": 0}
    assert vouched(client, {**HISTORY, "n": 42}).json() == {"new": 1}
    found = client.by("viewer").get(f"{RAMPS}/baselines").json()["items"]
    assert [(one["action"], one["n"], one["imported_by"]) for one in found] == [
        ("damaged", 41, "admin"),
        ("sound", 42, "admin"),
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"site": "moon"}, "no site moon"),
        ({"window": "night"}, "no window night"),
        ({"lever": "lid"}, "no lever lid"),
        ({"action": "burn"}, "no action burn"),
        ({"until": "2026-01-01T00:00:00Z"}, "no span"),
        ({"until": "2027-07-01T00:00:00Z"}, "no span of the past"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "no span of the past"),
    ],
)
def test_a_history_that_names_what_is_not_there_is_refused_whole(client, change, says):
    answer = vouched(client, HISTORY, {**HISTORY, **change})
    assert problem_of(answer) == (422, "baseline-refused")
    assert says in answer.json()["detail"]
    assert client.get(f"{RAMPS}/baselines").json() == {"items": []}


def test_only_an_admin_vouches(client):
    assert problem_of(vouched(client, HISTORY, by="operator")) == (403, "not-allowed")

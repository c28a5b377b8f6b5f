"""A version's matrix over HTTP: of closed units, limited to the caller's sites."""

from collections import Counter
from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.api.records.test_records import case, decision, prediction, sent_apart
from tests.api.test_shell import POLICY, problem_of
from tests.api.training.test_cleanings import RAMPS, judged
from tests.factories import NOON

pytestmark = pytest.mark.slow

LATER = timedelta(days=2)
HEAT = "levers: [{id: heat, number: {in: C, from: 0, to: 40, tolerance: 1}}, "


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON - timedelta(days=1))


def counted(client, clock, database, *told):
    """Send records of ten cases, four of them judged otherwise, and count them when they close."""
    alike = [item for n in range(6) for item in judged(f"same-{n}")]
    false = [item for n in range(3) for item in judged(f"other-{n}", said="damaged")]
    there = judged("there", decided="damaged", site="ramp-b")
    sent_apart(client, *alike, *false, *there, *told)
    clock.advance(LATER)
    Ticker(database, "ramps", "one").tick(clock.now())


def matrix(client, by="viewer", version="v1"):
    answer = client.by(by).get(f"{RAMPS}/versions/{version}/matrix")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_counts_what_people_say_where_the_version_says_what(client, clock, database):
    counted(client, clock, database)
    (one,) = matrix(client)["items"]
    assert one["label_matrix"]["labels"] == ["damaged", "sound"]
    assert one["label_matrix"]["counts"] == [[0, 1], [3, 6]]
    assert (one["agreement"]["count"], one["agreement"]["n"]) == (6, 10)
    by_site = Counter()
    for cell in one["cells"]:
        by_site[cell["site"]] += cell["agreement"]["n"]
    assert by_site == {"ramp-a": 9, "ramp-b": 1}


def test_a_case_that_is_still_open_is_in_none(client, clock, database):
    sent_apart(client, *judged("open"))
    Ticker(database, "ramps", "one").tick(clock.now())
    assert matrix(client)["items"] == []


def test_a_unit_without_a_verdict_is_told_apart(client, clock, database):
    counted(client, clock, database, case("alone"), prediction("alone", label="damaged"))
    (one,) = matrix(client)["items"]
    assert (one["unjudged"], one["agreement"]["n"]) == (1, 10)


def test_an_unknown_version_is_said_to_be(client, clock, database):
    counted(client, clock, database)
    answer = client.by("viewer").get(f"{RAMPS}/versions/v9/matrix")
    assert problem_of(answer) == (404, "unknown-version")


def test_who_reads_one_site_is_told_of_that_one(client, clock, database, door):
    counted(client, clock, database)
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-b"))
    (one,) = matrix(client, "eve")["items"]
    assert {cell["site"] for cell in one["cells"]} == {"ramp-b"}
    assert one["agreement"]["n"] == 1


def test_a_number_and_all_levers_together_are_told_by_how_many_agree(client, clock, database):
    two = POLICY.replace("levers: [", HEAT).replace("rollout: ramps", "rollout: ovens")
    apply_policy(database, two, Actor("zoe"), NOON - timedelta(days=1))
    said = {"parcel": "sound", "heat": "20"}
    told = {
        "ingest": [case("c1"), prediction("c1", answers=said)],
        "ingest-decisions": [decision("c1", answers={**said, "heat": "25"})],
    }
    for account, items in told.items():
        sent_to = client.by(account).post("/v1/rollouts/ovens/records", json={"items": items})
        assert sent_to.status_code == 200, sent_to.text
    clock.advance(LATER)
    Ticker(database, "ovens", "one").tick(clock.now())
    found = client.by("viewer").get("/v1/rollouts/ovens/versions/v1/matrix").json()["items"]
    by_lever = {one["lever"]: one for one in found}
    assert {name: one["agreement"]["rate"] for name, one in by_lever.items()} == {
        "*": 0.0,
        "heat": 0.0,
        "parcel": 1.0,
    }
    assert [one["label_matrix"] is None for one in found] == [True, True, False]
    assert [one["sides"] is None for one in found] == [True, False, True]
    sides = {name: share["count"] for name, share in by_lever["heat"]["sides"].items()}
    assert sides == {"within": 0, "below": 1, "above": 0, "unusable": 0}

"""Odd texts, numbers and batches: each is answered, on both engines alike, and none is lost."""

import json

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.engine.slots.pricing import POLICY as PRICING
from tests.factories import DAY, NOON
from tests.features import bear_field as field

BEARS = "/v1/rollouts/bears"
AT = NOON.isoformat()


@pytest.fixture
def bears(database):
    field.autonomous(database)
    return database


def case(key, **more):
    return {"kind": "case", "key": key, "site": "creek", "occurred_at": AT} | more


def said(key, **more):
    found = {"kind": "prediction", "key": key, "version": "v1", "answers": {"alarm": "bear"}}
    return found | more


def judged(key, **more):
    return {"kind": "decision", "key": key, "reviewer": "bo", "answers": {"alarm": "bear"}} | more


def send(client, *items):
    body = json.dumps([*items])
    answer = client.by("ingest").post(
        f"{BEARS}/records", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return [item["status"] for item in answer.json()["items"]]


ODD = (
    *("\x00", "a\x00", "\\", "a\\b", '"', '","', "{", "}", "{a,b}", "NULL", "null", "'", "''"),
    *("\t", "\n", "\r\n", "\\N", "\\.", "%s", "%", ":name", "?", "\x7f", "\x1f", "é", "é", "ß"),
    *("\U0001f43b", "\ud800", "\u202e", "\ufeff", " ", "  a  "),
)


@pytest.mark.parametrize("place", ["key", "version", "reviewer", "episode", "attribute", "media"])
def test_an_odd_text_is_kept_or_rejected_and_its_neighbours_are_kept(client, bears, place):
    items = []
    for number, odd in enumerate(ODD):
        key = f"k{number}"
        match place:
            case "key":
                items.append(case(odd))
            case "version":
                items += [case(key), said(key, version=odd)]
            case "reviewer":
                items += [case(key), judged(key, reviewer=odd)]
            case "episode":
                items.append(case(key, episode=odd))
            case "attribute":
                items.append(case(key, attributes={"light": odd, odd: "x"}))
            case "media":
                items.append(case(key, media={"still": odd}))
    first = send(client, *items)
    bad = {"\x00", "a\x00", "\ud800"}
    assert first.count("rejected") >= len(bad)
    again = send(client, *items)
    assert [a for a in again if a not in {"duplicate", "rejected"}] == []
    assert [n for n, a in enumerate(first) if a == "rejected"] == [
        n for n, a in enumerate(again) if a == "rejected"
    ]


def test_texts_that_look_alike_are_different_keys(client, bears):
    composed, parted = "caf\u00e9", "cafe\u0301"
    assert send(client, case(composed), case(parted)) == ["accepted"] * 2
    assert send(client, case(parted), case(composed)) == ["duplicate"] * 2


@pytest.mark.parametrize(
    "more",
    [
        {"confidence": float("nan")},
        {"confidence": float("inf")},
        {"confidence": -0.5},
        {"confidence": 10**400},
        {"latency_ms": 1e309},
        {"latency_ms": 10**400},
        {"revision": 2**63},
        {"revision": 2**31},
        {"revision": 0},
        {"revision": -1},
        {"revision": True},
        {"revision": 1.5},
        {"probabilities": {"bear": float("nan")}},
        {"at": "9999-12-31T23:59:59+00:00"},
        {"at": "0001-01-01T00:00:00+14:00"},
    ],
    ids=str,
)
def test_a_number_that_is_none_takes_nothing_from_its_neighbours(client, bears, more):
    found = send(client, case("a"), said("a", **more), case("b"))
    assert found == ["accepted", "rejected", "accepted"]


@pytest.mark.parametrize("big", [10**400, 2**63, -(2**63) - 1, 1e308, -0.0])
def test_a_huge_answer_is_kept_as_text_or_rejected(client, bears, big):
    first = send(client, case("a"), said("a", answers={"alarm": big}), case("b"))
    assert (first[0], first[2]) == ("accepted", "accepted")
    again = send(client, said("a", answers={"alarm": big}))
    assert again == [{"accepted": "duplicate", "rejected": "rejected"}[first[1]]]


@pytest.mark.parametrize("digits", ["\u0663", "1\u096b", "\uff15"])
def test_a_number_in_other_digits_stops_no_tick(client, database, digits):
    apply_policy(database, PRICING, Actor("zoe"), NOON - DAY)
    items = [case("a", site="shop"), said("a", answers={"price": digits})]
    answer = client.by("ingest").post("/v1/rollouts/pricing/records", json=items)
    assert [item["status"] for item in answer.json()["items"]] == ["accepted"] * 2
    answer = client.by("ingest").post(
        "/v1/rollouts/pricing/records", json=[judged("a", answers={"price": "5"})]
    )
    assert answer.json()["items"][0]["status"] == "accepted"
    assert Ticker(database, "pricing", "one").tick(NOON + DAY) is not None


def test_a_whole_number_is_the_same_as_its_fraction(client, bears):
    send(client, case("a"), said("a", confidence=1.0, latency_ms=0))
    assert send(client, said("a", confidence=1, latency_ms=0.0)) == ["duplicate"]


def test_of_one_batch_the_first_of_a_key_is_kept(client, bears):
    found = send(
        client,
        said("a"),
        case("a"),
        said("a"),
        said("a", confidence=0.5),
        case("a"),
        case("a", site="lake"),
        judged("a"),
        judged("a"),
    )
    assert found == [
        *("accepted", "accepted", "duplicate", "conflict", "duplicate", "conflict"),
        *("accepted", "duplicate"),
    ]


@pytest.mark.parametrize("count", [24, 25, 26, 49, 50, 51, 1_001])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_none_is_lost_around_the_length_of_a_statement(client, bears, count):
    cases = [case(f"k{number}", attributes={"n": str(number)}) for number in range(count)]
    assert send(client, *cases) == ["accepted"] * count
    assert send(client, *reversed(cases)) == ["duplicate"] * count


def test_a_stream_that_breaks_in_the_middle_keeps_what_was_whole(client, bears):
    whole = [json.dumps(case(f"k{number}")) for number in range(60)]
    broken = [
        *whole[:30],
        '{"kind": "case", "key": "cut',
        "]",
        "[]",
        "nul",
        '"\\u0000"',
        *whole[30:],
    ]
    answer = client.by("ingest").post(
        f"{BEARS}/records",
        content="\n".join(broken),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200
    verdicts = [json.loads(line)["status"] for line in answer.text.splitlines()]
    assert verdicts == ["accepted"] * 30 + ["rejected"] * 5 + ["accepted"] * 30
    assert send(client, *map(json.loads, whole)) == ["duplicate"] * 60


@pytest.mark.parametrize("line", ['{"kind":"case"},{"kind":"case"}', "{}],[{}"])
def test_two_items_on_a_line_are_no_item(client, bears, line):
    """Lines are read together: brackets within one must not shift the answers of the others."""
    whole = [json.dumps(case(f"k{number}")) for number in range(3)]
    body = "\n".join([whole[0], line, *whole[1:]])
    answer = client.by("ingest").post(
        f"{BEARS}/records", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    verdicts = [json.loads(line)["status"] for line in answer.text.splitlines()]
    assert verdicts == ["accepted", "rejected", "accepted", "accepted"]


def test_keys_of_one_site_alone_may_be_odd_too(client, door, bears):
    door.let_in("box", AssignedRole("ingest", "bears", "creek"), machine=True)
    body = json.dumps(
        [said("a\\"), case("a\\"), said('{"'), said("\x7f"), case("lake", site="lake")]
    )
    answer = client.by("box").post(
        f"{BEARS}/records", content=body, headers={"Content-Type": "application/json"}
    )
    found = [item["status"] for item in answer.json()["items"]]
    assert found == ["accepted", "accepted", "rejected", "rejected", "rejected"]

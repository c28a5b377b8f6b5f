"""Records over HTTP: each item is answered, and whatever is sent, nothing is half done or lost."""

import gzip
import json
from datetime import timedelta

import pytest

from rollout.data.database.append_failures import CommitUnknownError, DatabaseBusyError
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import RecordStatus, RejectedRecords
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.api.test_shell import POLICY, problem_of
from tests.factories import NOON

WHERE = "/v1/rollouts/ramps/records"
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON - timedelta(days=1))


def case(key="c1", site="ramp-a", at="2027-06-01T11:00:00Z", **more):
    return {"kind": "case", "key": key, "site": site, "occurred_at": at, **more}


def prediction(key="c1", version="v1", label="sound", **more):
    return {
        "kind": "prediction",
        "key": key,
        "version": version,
        "answers": {"parcel": label},
    } | more


def decision(key="c1", reviewer="ana", label="sound", **more):
    said = {"kind": "decision", "key": key, "reviewer": reviewer, "answers": {"parcel": label}}
    return said | {"exposure": "blind"} | more


def sent(client, *items, by="ingest", where=WHERE):
    answer = client.by(by).post(where, json={"items": items})
    assert answer.status_code == 200, answer.text
    return [(one["status"], one["reason"]) for one in answer.json()["items"]]


def sent_apart(client, *items):
    """Send decisions by the account that the policy names, all else by `ingest`."""
    said = {}
    for account, is_decision in (("ingest", False), ("ingest-decisions", True)):
        places = [n for n, one in enumerate(items) if (one["kind"] == "decision") == is_decision]
        if places:
            rows = sent(client, *(items[n] for n in places), by=account)
            said |= dict(zip(places, rows, strict=True))
    return [said[n] for n in range(len(items))]


def verdicts(client, *items, by="ingest"):
    return [verdict for verdict, _ in sent(client, *items, by=by)]


def kept_aside(database):
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        return [kept.item for kept in RejectedRecords(transaction, rollout).list_after()]


def test_each_kind_is_accepted_and_known_again(client):
    items = [
        case(),
        prediction(),
        decision(),
        {"kind": "action", "key": "c1", "lever": "parcel", "action": "sound", "by": "person"}
        | {"at": "2027-06-01T11:02:00Z"},
        {"kind": "outcome", "key": "c1", "at": "2027-06-01T11:59:00Z", "harm": "torn"},
        {"kind": "heartbeat", "site": "ramp-a", "at": "2027-06-01T11:59:00Z"},
    ]
    assert verdicts(client, *items) == [RecordStatus.ACCEPTED] * 6
    assert verdicts(client, *items) == [RecordStatus.DUPLICATE] * 6


def test_other_content_under_a_known_key_is_a_conflict_and_set_aside(client, database):
    sent(client, case())
    assert sent(client, case(site="ramp-b"))[0][0] == "conflict"
    assert [(one.kind, one.key) for one in kept_aside(database)] == [("case", "c1")]
    assert verdicts(client, case(site="ramp-b", revision=2)) == ["accepted"]


def test_first_prediction_after_a_decision_names_the_set_up_and_the_policy_that_fits(client):
    keys = ("c1", "c2", "c3")
    sent(client, *(case(key) for key in keys))
    decided = [decision(key, submitted_at="2027-06-01T11:30:00Z") for key in keys]
    sent(client, *decided, by="ingest-decisions")
    rows = sent(client, case("new"), *(prediction(key) for key in ("new", *keys)))
    assert [reason for _, reason in rows[:2]] == ["", ""]
    assert "Of 3 decided cases 3 came after the first decision and are no evidence" in rows[2][1]
    assert "a device or a batch that sends once a day" in rows[2][1]
    assert "`grace: 25h`" in rows[2][1]
    assert "`sources: {vouched: [{account: ingest, within: 25h}]}`" in rows[2][1]
    assert [reason for _, reason in rows[3:]] == ["", ""]
    assert sent(client, prediction(revision=2))[0][1] == ""


def test_predictions_of_a_vouched_sender_have_no_note(client, database):
    vouched = "vouched: [{account: ingest, within: 2h}], accounts: [{account: ingest-decisions"
    policy = POLICY.replace("accounts: [{account: ingest-decisions", vouched)
    assert policy != POLICY
    apply_policy(database, policy.replace("ramps", "nights"), Actor("zoe"), NOON)
    where = WHERE.replace("ramps", "nights")
    sent(client, case(), case("old", at="2027-06-01T09:00:00Z"), where=where)
    decided = [decision(k, submitted_at="2027-06-01T11:30:00Z") for k in ("c1", "old")]
    sent(client, *decided, by="ingest-decisions", where=where)
    (_, first), (_, second) = sent(client, prediction(), prediction("old"), where=where)
    assert first == ""
    assert "Of 2 decided cases 1 came after the first decision and is no evidence" in second


BAD = {
    "a time without its zone": case(at="2027-06-01T11:00:00"),
    "a time that is none": case(at="yesterday"),
    "a time as a number": case(at=1_780_000_000),
    "a time as a number in text": case(at="1780000000"),
    "a time in the future": case(at="2027-06-01T12:05:01Z"),
    "a time before all cameras": case(at="0001-01-01T00:00:00+14:00"),
    "no site": {"kind": "case", "key": "c1", "occurred_at": "2027-06-01T11:00:00Z"},
    "an empty key": case(""),
    "a key too long": case("k" * 201),
    "a key with NUL": case("a\0b"),
    "NUL in an attribute": case(attributes={"a": "b\0"}),
    "NUL in an attribute's name": case(attributes={"a\0": "b"}),
    "a name that the form does not have": case(colour="red"),
    "a kind that is none": {"kind": "picture", "key": "c1"},
    "no kind": {"key": "c1"},
    "a list for an item": [1, 2],
    "a number for an item": 7,
    "null for an item": None,
    "an attribute that is a number": case(attributes={"a": 1}),
    "a revision that is text": case(revision="1"),
    "a revision that is true": case(revision=True),
    "a huge revision": case(revision=10**30),
    "an answer that is true": prediction(label=True),
    "an answer that is a list": prediction(label=["sound"]),
    "a huge number for an answer": prediction(label=10**400),
    "a confidence above 1": prediction(confidence=97),
    "a decision without an answer": {"kind": "decision", "key": "c1", "reviewer": "ana"},
    "an exposure that is none": decision(exposure="peeked"),
    "an outcome of nothing": {"kind": "outcome", "key": "c1", "at": "2027-06-01T11:00:00Z"},
    "a value that is text": {"kind": "outcome", "key": "c1", "at": "2027-06-01T11:00:00Z"}
    | {"values": {"profit": "12.5"}},
    "an action of nobody": {"kind": "action", "key": "c1", "lever": "parcel", "action": "sound"},
}


def between_good_ones(bad):
    """Return each bad item with a good one before and after it."""
    items = [case("c-before")]
    for n, one in enumerate(bad):
        items += [one, case(f"c-{n}")]
    return items


def test_a_bad_item_is_rejected_set_aside_and_takes_nothing_from_its_neighbours(client, database):
    items = between_good_ones(BAD.values())
    found = sent(client, *items)
    assert [verdict for verdict, _ in found[::2]] == ["accepted"] * (len(BAD) + 1)
    named = dict(zip(BAD, found[1::2], strict=True))
    assert [
        n for n, (verdict, reason) in named.items() if verdict != "rejected" or not reason
    ] == []
    aside = kept_aside(database)
    assert sorted(one.reason for one in aside) == sorted(reason for _, reason in found[1::2])
    lines = "\n".join(json.dumps(item) for item in items)
    again = client.post(WHERE, content=lines, headers=LINES).text.splitlines()
    verdicts = [json.loads(line)["status"] for line in again]
    assert verdicts == ["duplicate", *["rejected", "duplicate"] * len(BAD)]
    assert kept_aside(database) == aside


BROKEN = [
    (b'{"kind": "case", "key": "\\ud800", "site": "ramp-a"', "no JSON"),
    (b'{"kind": "case", "key": "\xff"}', "not UTF-8"),
    (
        b'{"kind": "prediction", "key": "c", "version": "v", "answers": {}, "confidence": NaN}',
        "conf",
    ),
    (b'{"kind": "prediction", "key": "c", "version": "v", "answers": {"p": 1e999}}', "finite"),
    (b'{"kind": "case", "key": "\\ud800", "site": "a", "occurred_at": "x"}', "unicode"),
    (b'{"revision": ' + b"9" * 5_000 + b"}", "no JSON"),
    (b"[" * 100_000, "nested"),
    (b'{"a":' * 100_000, "nested"),
    (b"\x00\x01\x02", "no JSON"),
    (b"{} {}", "no JSON"),
    (b'{"kind":"heartbeat","site":"ramp-a","at":"2027-06-01T11:00Z"},{}', "no JSON"),
    (b'"' + b"x" * 2**20 + b'"', "at most"),
]


def test_a_broken_line_in_the_middle_is_set_aside_and_the_others_are_kept(client, database):
    parts = [json.dumps(case("before")).encode()]
    for n, (bad, _) in enumerate(BROKEN):
        parts += [bad, b"\r", json.dumps(case(f"c{n}")).encode()]
    answer = client.by("ingest").post(WHERE, content=b"\n".join(parts), headers=LINES)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["index"] for one in lines] == [n for n in range(len(parts)) if n % 3 != 2]
    assert {one["status"] for one in lines[::2]} == {"accepted"}
    for told, (bad, says) in zip(lines[1::2], BROKEN, strict=True):
        assert (told["status"], says in told["reason"]) == ("rejected", True), (bad[:60], told)
    assert len(kept_aside(database)) == len(BROKEN)


def test_where_the_database_fails_on_the_way_the_rest_is_undone_and_says_so(
    client, service, monkeypatch
):
    monkeypatch.setattr("rollout.engine.files.parse.LINES_PER_CHUNK", 2)
    writing, times = type(service.database).begin_write, iter([True, False])

    def once(database):
        if next(times):
            return writing(database)
        raise DatabaseBusyError("the database is busy; nothing was done, ask again")

    lines = "\n".join(json.dumps(case(f"c{n}")) for n in range(6))
    with monkeypatch.context() as failing:
        failing.setattr(type(service.database), "begin_write", once)
        answer = client.by("ingest").post(WHERE, content=lines, headers=LINES)
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["status"] for one in told] == ["accepted"] * 2 + ["not_stored"] * 4
    assert "send this line and those after it again" in told[-1]["reason"]
    again = client.post(WHERE, content=lines, headers=LINES).text.splitlines()
    verdicts = [json.loads(line)["status"] for line in again]
    assert verdicts == ["duplicate"] * 2 + ["accepted"] * 4


def test_what_is_not_known_to_be_done_is_unknown(client, service, monkeypatch):
    def broken(_):
        raise CommitUnknownError("the connection broke while committing")

    monkeypatch.setattr(type(service.database), "begin_write", broken)
    lines = json.dumps(case())
    answer = client.by("ingest").post(WHERE, content=lines, headers=LINES)
    assert json.loads(answer.text)["status"] == "unknown"
    assert problem_of(client.post(WHERE, json=[case()])) == (503, "outcome-unknown")


def test_a_case_that_came_with_its_verdict_asks_nobody_else(client, database):
    sent(client, case("judged"), decision("judged"), case("open"), by="ingest-decisions")
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "ramps")
        numbers = ExternalKeys(transaction, stood.rollout).find_ids(["judged", "open"])
        seats = ReviewTaskStore(transaction, stood.rollout).list_of_cases(numbers.values())
        assert [seat.case_id for seat in seats if seat.state == "open"] == [numbers["open"]]
    for by, left in (("ingest", [numbers["open"]]), ("ingest-decisions", [])):
        sent(client, decision("open", reviewer=f"desk of {by}"), by=by)
        with database.begin_read() as transaction:
            seats = ReviewTaskStore(transaction, stood.rollout).list_of_cases(numbers.values())
            assert [seat.case_id for seat in seats if seat.state == "open"] == left


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"7", b"{}", b'{"items": {}}', b'{"items": [], "more": 1}', b"\xff\xfe"],
)
def test_a_body_without_items_is_refused_whole(client, database, body):
    answer = client.by("ingest").post(
        WHERE, content=body, headers={"Content-Type": "application/json"}
    )
    assert problem_of(answer) == (422, "unreadable")
    assert kept_aside(database) == []


def test_a_list_alone_is_a_body_too_and_an_empty_one_is_answered_empty(client):
    assert client.by("ingest").post(WHERE, json=[]).json() == {"items": []}
    assert client.post(WHERE, json=[case()]).json()["items"][0]["status"] == "accepted"
    assert client.post(WHERE, content=b"\n\n", headers=LINES).text == ""


def test_another_kind_of_body_is_refused(client):
    answer = client.by("ingest").post(WHERE, content=b"<x/>", headers={"Content-Type": "text/xml"})
    assert problem_of(answer) == (415, "unsupported-media-type")


def test_too_many_items_and_too_large_bodies_are_refused_with_no_effect(client, database):
    many = [case(str(n)) for n in range(10_001)]
    assert problem_of(client.by("ingest").post(WHERE, json=many)) == (413, "too-large")
    large = b'{"items": ["' + b"x" * 10 * 2**20 + b'"]}'
    assert problem_of(client.post(WHERE, content=large)) == (413, "too-large")
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = client.post(WHERE, content=gzip.compress(large), headers=packed)
    assert problem_of(answer) == (413, "too-large")
    assert kept_aside(database) == []
    assert verdicts(client, case("0")) == ["accepted"]


def test_gzip_is_read_in_both_forms(client):
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    body = gzip.compress(json.dumps([case()]).encode())
    assert client.by("ingest").post(WHERE, content=body, headers=packed).json()["items"]
    body = gzip.compress(json.dumps(case()).encode())
    answer = client.post(WHERE, content=body, headers=packed | LINES)
    assert json.loads(answer.text)["status"] == "duplicate"


def test_what_may_not_count_as_the_caller_thinks_is_said(client):
    lost_sign = {"kind": "heartbeat", "site": "moon", "at": "2027-06-01T11:00:00Z"}
    found = sent_apart(
        client,
        lost_sign,
        case(site="moon"),
        prediction(label="soggy"),
        decision(answers={"lid": "on"}),
    )
    assert [verdict for verdict, _ in found] == ["accepted"] * 4
    assert [reason for _, reason in found] == [
        "moon is no site of the policy: kept, never evidence",
        "moon is no site of the policy: kept, never evidence",
        "soggy is no label of parcel: kept, counts as a disagreement",
        "the policy has no lever lid: kept, not counted",
    ]


def test_what_comes_before_its_case_waits_for_it(client):
    assert sent(client, prediction()) == [("accepted", "no case yet")]
    assert sent(client, case()) == [("accepted", "")]


def test_a_right_for_one_site_holds_for_each_item(client, door):
    sent(client, case("theirs", site="ramp-b"))
    door.let_in("box", AssignedRole("ingest", "ramps", "ramp-a"), machine=True)
    items = [
        case("mine"),
        prediction("mine"),
        case("other", site="ramp-b"),
        prediction("theirs"),
        prediction("nobody's"),
        case("theirs", revision=2),
        {"kind": "heartbeat", "site": "ramp-b", "at": "2027-06-01T11:00:00Z"},
    ]
    assert verdicts(client, *items, by="box") == ["accepted"] * 2 + ["rejected"] * 5


@pytest.mark.parametrize("who", ["viewer", "reviewer", "operator", "approver", "admin"])
def test_only_who_may_ingest_sends_records(client, who):
    assert problem_of(client.by(who).post(WHERE, json=[case()])) == (403, "not-allowed")
    answer = client.by(who).post(WHERE, content=b"{}", headers=LINES)
    assert problem_of(answer) == (403, "not-allowed")


def test_a_rollout_that_is_not_there_is_a_problem_in_both_forms(client):
    where = "/v1/rollouts/none/records"
    assert problem_of(client.by("ingest").post(where, json=[])) == (404, "unknown-rollout")
    assert problem_of(client.post(where, content=b"", headers=LINES)) == (404, "unknown-rollout")


def test_the_twenty_first_version_is_set_aside_with_what_to_do(client):
    told = [prediction(f"c{n}", version=f"v{n:02}") for n in range(22)]
    found = sent(client, *told)
    assert [verdict for verdict, _ in found] == ["accepted"] * 20 + ["rejected"] * 2
    assert "retire one before v" in found[-1][1]


def test_a_value_of_no_outcome_is_rejected_with_the_known_ones(client):
    outcome = {"kind": "outcome", "key": "c1", "at": "2027-06-01T11:59:00Z"}
    items = [case(), {**outcome, "values": {"proft": 12.5}}]
    assert sent(client, *items)[1] == (
        "rejected",
        "values have no 'proft'; the policy's outcomes: none",
    )

"""An erased case leaves no content anywhere; counts, hashes and the ledger stay."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select

from rollout.data.access.idempotency_keys import IdempotencyKeys, IdempotentResponse
from rollout.data.counting.purge import purge_records
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_rows import ErasedHashes
from rollout.data.records.records import RecordStatus, RecordStore, RejectedRecords
from rollout.data.tables.tables import count_queue, deliveries, erased_hashes, recent_arrivals
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import CasesErased, IncidentOpened
from rollout.engine.files.parse import ItemReader
from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.features.erasure.erasure import (
    ErasureRefusedError,
    ErasureRequest,
    UnknownSubjectError,
    erase_case,
    erase_episode,
)
from rollout.kernel.errors import NotAllowedError
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.conftest import database, url
from tests.data.snapshots import filled_once
from tests.factories import DAY, HOUR, NOON
from tests.features.erasure.traces import find_traces

__all__ = ["database", "url"]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
REQUEST = ErasureRequest(ADMIN, "ramps", "the customer asked", NOON + timedelta(hours=1))
ANSWERS = {"parcel": "sound"}


def case(key, **fields):
    return Case(key=key, site="ramp-a", occurred_at=NOON, window="always", **fields)


def build_records(key, episode=None):
    """Return the records of a case that all hold its own words."""
    return [
        case(key, episode=episode, attributes={"plate": f"B-{key}"}, media={"front": f"x/{key}"}),
        Prediction(key=key, version="v1", answers=ANSWERS, error=f"could not read {key}"),
        Decision(key=key, reviewer="rita", answers=ANSWERS, exposure="blind", note=f"saw {key}"),
        Outcome(key=key, at=NOON, harm=f"{key} complained"),
    ]


def store(database, items):
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        return RecordStore(transaction, rollout).store(items, received_at=NOON).results


@filled_once
def fill(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    store(database, [*build_records("kestrel"), *build_records("plover")])
    store(database, [case("kestrel", attributes={"plate": "other"})])  # a conflict, stored as such


def tell_about(database, key):
    """Store what quotes a case: an incident, a delivery and a response."""
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "ramps")
        incident = IncidentOpened(
            at=NOON, by="policy", incident="I-1", kind="unauthorized", effect="reported",
            version="v1", reason=f"v1 acted on {key}: late", about=key,
        )  # fmt: skip
        Ledger(transaction, state.rollout).append([incident], after=state.scope.revision)
        transaction.execute(insert(deliveries).values(
            rollout=state.rollout.number, report=1, channel="ops", reason="incidents",
            subject=f"I-1 {key}", intro=f"v1 acted on {key}", state="sent", attempts=1,
            queued_at=NOON, error="",
        ))  # fmt: skip
        response = IdempotentResponse(b"h", 200, json.dumps([{"key": key}]))
        IdempotencyKeys(transaction).store("box", "k-1", response, at=NOON, until=NOON + HOUR)


def load_events(database, kind=CasesErased):
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("ramps"))
        ledger.verify()
        return [event for event in ledger.list_events() if isinstance(event, kind)]


def compute_digest(database):
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        (row,) = transaction.execute(select(erased_hashes)).all()
        assert len(row.hashes) == 4 * 32
        assert Ledger(transaction, rollout).load_head().revision == row.revision
        return ErasedHashes(transaction, rollout).compute_digest(row.revision)


def test_an_erased_case_leaves_no_trace_in_any_table(database):
    fill(database)
    assert find_traces(database, "kestrel") != []
    result = erase_case(database, REQUEST, "kestrel")
    assert find_traces(database, "kestrel") == []
    assert find_traces(database, "plover") != []
    (event,) = load_events(database)
    assert (result.cases, result.rows) == (1, sum(event.counts))
    assert dict(zip(event.tables, event.counts, strict=True)) == {
        "cases": 1, "decisions": 1, "outcomes": 1, "predictions": 1, "rejected_records": 1,
    }  # fmt: skip
    assert event.records_digest == compute_digest(database)
    assert (event.by, event.reason) == ("ada", "the customer asked")


def test_what_quotes_an_erased_case_goes_too(database):
    fill(database)
    tell_about(database, "kestrel")
    tell_words = {place.split(".")[0] for place in find_traces(database, "acted on kestrel")}
    assert tell_words == {"deliveries", "ledger_texts"}
    erase_case(database, REQUEST, "kestrel")
    assert find_traces(database, "kestrel") == []
    (incident,) = load_events(database, IncidentOpened)
    assert (incident.about, incident.reason, incident.version) == ("", "", "v1")


def test_records_of_an_erased_case_are_refused_and_not_stored(database):
    fill(database)
    erase_case(database, REQUEST, "kestrel")
    receipts = store(database, build_records("kestrel"))
    assert {receipt.status for receipt in receipts} == {RecordStatus.REJECTED}
    assert "erased on request" in receipts[0].reason
    assert find_traces(database, "kestrel") == []


@pytest.mark.parametrize("key", ["kestrel", "rötelfalke", "пустельга " * 9])
def test_an_invalid_item_of_an_erased_case_is_not_set_aside(database, key):
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    store(database, build_records(key))
    erase_case(database, REQUEST, key)
    item = {"kind": "prediction", "key": key, "version": 1}
    (rejected,) = ItemReader(lambda *_: "always", NOON).read_body(json.dumps([item]).encode())
    with database.begin_write() as transaction:
        records = RejectedRecords(transaction, Rollouts(transaction).find("ramps"))
        records.add([rejected], received_at=NOON)
        assert records.list_after() == []


def test_an_erasure_done_again_changes_nothing(database):
    fill(database)
    erase_case(database, REQUEST, "kestrel")
    assert erase_case(database, REQUEST, "kestrel").rows == 0
    assert len(load_events(database)) == 1


def test_records_of_a_purged_case_are_refused_once_it_is_erased(database):
    fill(database)
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        for table in (count_queue, recent_arrivals):
            transaction.execute(delete(table))
        ids = ExternalKeys(transaction, rollout).find_ids(["kestrel"]).values()
        purge_records(transaction, rollout, before=NOON + DAY, case_ids=ids, revision=9)
    erase_case(database, REQUEST, "kestrel")
    statuses = {receipt.status for receipt in store(database, build_records("kestrel"))}
    assert statuses == {RecordStatus.REJECTED}
    assert erase_case(database, REQUEST, "kestrel").cases == 0


def test_an_erasure_names_the_entry_of_the_access_ledger_that_permits_it(database):
    fill(database)
    erase_case(database, replace(REQUEST, caller=replace(ADMIN, access_head=4)), "kestrel")
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("ramps"))
        (row,) = ledger.list_rows(kinds={CasesErased.__name__})
    assert row.access_head == 4


def test_an_episode_goes_with_all_its_cases_in_batches(database, monkeypatch):
    monkeypatch.setattr("rollout.features.erasure.erasure.CASES_PER_BATCH", 2)
    fill(database)
    for number in range(3):
        store(database, build_records(f"gull-{number}", episode="flock"))
    result = erase_episode(database, REQUEST, "flock")
    assert (result.cases, len(load_events(database))) == (3, 2)
    assert find_traces(database, "flock") == find_traces(database, "gull-1") == []
    (receipt,) = store(database, [case("gull-9", episode="flock")])
    assert receipt.status is RecordStatus.REJECTED
    assert "episode was erased" in receipt.reason
    assert find_traces(database, "flock") == find_traces(database, "gull-9") == []


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_erasure_continues_when_it_is_repeated(database, monkeypatch, fails_at):
    monkeypatch.setattr("rollout.features.erasure.erasure.CASES_PER_BATCH", 1)
    fill(database)
    for number in range(2):
        store(database, build_records(f"gull-{number}", episode="flock"))
    append, calls = Ledger.append, []

    def fail_once(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError("power")
        return append(self, *args, **kwargs)

    monkeypatch.setattr(Ledger, "append", fail_once)
    with pytest.raises(OSError, match="power"):
        erase_episode(database, REQUEST, "flock")
    monkeypatch.undo()
    assert erase_episode(database, REQUEST, "flock").cases == 3 - fails_at
    assert sum(len(event.keys) for event in load_events(database)) == 2
    assert find_traces(database, "gull") == []


@pytest.mark.parametrize(
    ("request_fields", "key", "error", "words"),
    [
        ({"reason": " "}, "kestrel", ErasureRefusedError, "give a reason"),
        ({"reason": "of kestrel"}, "kestrel", ErasureRefusedError, "leave the word out"),
        ({}, "osprey", UnknownSubjectError, "no case osprey"),
        (
            {"caller": Caller("bo", role_assignments=(AssignedRole("operator"),))},
            "kestrel",
            NotAllowedError,
            "may not administer",
        ),
    ],
)
def test_what_can_not_be_erased_so_is_refused_with_the_reason(
    database, request_fields, key, error, words
):
    fill(database)
    fields = {"caller": ADMIN, "rollout": "ramps", "reason": "asked", "at": NOON}
    with pytest.raises(error, match=words):
        erase_case(database, ErasureRequest(**fields | request_fields), key)
    assert load_events(database) == []

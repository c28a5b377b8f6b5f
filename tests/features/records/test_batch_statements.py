"""On PostgreSQL a new batch sends six statements, whatever it holds and says."""

import psycopg
import pytest
from msgspec.structs import replace

from rollout.data.records.records import RecordStatus
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision
from rollout.features.records.ingest import ingest_items
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from tests.attacks.test_invented_decisions import NAMED, POLICY
from tests.data.conftest import database, url
from tests.data.databases import on_postgresql
from tests.factories import DAY, NOON

__all__ = ["database", "url"]
PEOPLE = Caller("people", True, (AssignedRole("ingest"),), access_head=1)


def build_batch(numbers):
    """Return these cases with decisions; the last differs from the others."""
    case = Case(key="", site="ramp-a", window="always", occurred_at=NOON)
    decision = Decision(key="", reviewer="r1", answers={"parcel": "sound"}, exposure="blind")
    records = [
        replace(record, key=f"k{number}") for number in numbers for record in (case, decision)
    ]
    return [*records[:-1], replace(records[-1], reviewer="r2", answers={"parcel": "damaged"})]


@pytest.fixture
def sent(monkeypatch):
    """Return the statements that the driver has been given."""
    statements = []
    execute = psycopg.Cursor.execute

    def listen(cursor, query, *more, **options):
        statements.append(query)
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", listen)
    return statements


@on_postgresql
def test_a_new_batch_sends_six_statements_of_one_shape(database, sent):
    apply_policy(
        database, POLICY % NAMED, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
    )
    first = build_service(database, None, ManualClock(NOON))
    ingest_items(first, PEOPLE, "ramps", build_batch([0]), NOON)  # the account
    service = build_service(database, None, ManualClock(NOON))
    service.state_cache.load_rollout("ramps")
    statements = set()
    for numbers in (range(1, 2), range(2, 102), range(102, 802)):
        sent.clear()
        receipts = ingest_items(service, PEOPLE, "ramps", build_batch(numbers), NOON)
        assert {receipt.status for receipt in receipts} == {RecordStatus.ACCEPTED}
        # a lock; account, exposures and erased names; keys; hashed keys; records; the queue
        assert len(sent) == 6
        statements.add(tuple(sent))
    assert len(statements) == 1  # which the driver prepares once

"""An erased name leaves no trace; a pseudonym takes its place, and all still verifies."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy import select

from rollout.data.database.rollouts import Rollouts
from rollout.data.erasure.contents import (
    BATCHED_COLUMNS,
    TEXT_COLUMNS,
    RolloutNames,
    compact_database,
)
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import find_differences
from rollout.data.records.external_keys import EPISODE, ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.records.records import RecordStatus, RecordStore
from rollout.data.tables.tables import decisions, external_keys
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import NameErased, Stopped
from rollout.engine.records.records import Case, Decision
from rollout.engine.records.reviews import fold_name
from rollout.features.access import users
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.erasure.erasure import (
    ErasureRefusedError,
    ErasureRequest,
    UnknownSubjectError,
    erase_episode,
    erase_name,
)
from rollout.features.records.ingest import ingest_items
from rollout.kernel.errors import LastAdminError, NameTakenError
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.data.conftest import database, other, url
from tests.data.databases import on_postgresql, on_sqlite
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features.erasure.traces import find_in_files, find_traces
from tests.features.review_room import ANA, BO, Room

__all__ = ["database", "other", "url"]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
ADA = Caller("ada", role_assignments=(AssignedRole("admin"),))
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
LATER = NOON + timedelta(hours=1)
REQUEST = ErasureRequest(ADA, "", "they left", LATER)
ANSWERS = {"parcel": "sound"}


def decide(key, reviewer, note=None):
    return Decision(key=key, reviewer=reviewer, answers=ANSWERS, exposure="blind", note=note)


def store(database, items):
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        return RecordStore(transaction, rollout).store(items, received_at=NOON).results


def send(database, items):
    service = build_service(database, None, ManualClock(LATER))
    return ingest_items(service, BOX, "ramps", items, LATER)


@filled_once
def fill(database):
    """Make a user who reviews, stops and is named by others, and one who stays."""
    apply_policy(database, POLICY, Actor("rosalind"), NOON)
    users.create_first_admin(database, "ada", at=NOON)
    roles = (AssignedRole("reviewer"), AssignedRole("operator"))
    for name in ("rosalind", "bo"):
        users.create_account(
            database, ADA, name, at=NOON, role_assignments=roles, email=f"{name}@example.org"
        )
    cases = [Case(key=f"c-{n}", site="ramp-a", occurred_at=NOON, window="always") for n in range(3)]
    store(database, cases)
    store(database, [decide("c-0", "rosalind", "blurred"), decide("c-1", "rosalind")])
    store(database, [decide("c-2", "bo", "ask rosalind")])
    store(database, [structs.replace(decide("c-0", "rosalind"), answers={"parcel": "damaged"})])
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "ramps")
        exposures = ExposureStore(transaction, state.rollout)
        exposures.add([(1, "case")], reviewer="rosalind", page="case", at=NOON)
        stop = Stopped(at=NOON, by="rosalind", stop="S-1", cells=(), reason="fog came up")
        other = Stopped(at=NOON, by="bo", stop="S-2", cells=(), reason="as rosalind said")
        Ledger(transaction, state.rollout).append([stop, other], after=state.scope.revision)


def list_events(database):
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("ramps"))
        ledger.verify()
        return list(ledger.list_events())


@pytest.mark.slow
def test_an_erased_user_leaves_no_trace_and_everything_verifies(database):
    fill(database)
    result = erase_name(database, REQUEST, "rosalind")
    assert find_traces(database, "rosalind") == []
    assert find_traces(database, "fog came up") == find_traces(database, "blurred") == []
    assert find_traces(database, "bo@example.org") == ["users.email"]
    events = list_events(database)
    (stop, other) = (event for event in events if isinstance(event, Stopped))
    assert (stop.by, stop.reason, other.by, other.reason) == (result.pseudonym, "", "bo", "")
    assert sum(sum(event.counts) for event in events if isinstance(event, NameErased)) == (
        result.rows
    )
    assert find_access_ledger_faults(database) == ()
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        ledger = Ledger(transaction, rollout)
        assert find_differences(transaction, rollout, ledger.list_events) == {}


@pytest.mark.parametrize(
    ("name", "note"),
    [("rosalind", "Rosalind said so"), ("rosalind", "ROSALIND"), ("émile", "ask Émile"),
     ("rosalind.franklin", "ask Rosalind.Franklin"), ("花子", "花子さんに聞いた")],
)  # fmt: skip
def test_a_note_that_writes_the_name_as_prose_does_is_deleted(database, name, note):
    fill(database)
    other_note = "rosalinde and a.rosalind-2 saw émiles"
    store(database, [decide("c-0", name), decide("c-1", "wren", note)])
    store(database, [decide("c-2", "wren", other_note)])
    erase_name(database, REQUEST, name)
    assert find_traces(database, note) == []
    assert find_traces(database, other_note) == ["decisions.note"]
    with database.begin_read() as transaction:
        rows = transaction.execute(select(decisions.c.reviewer)).scalars().all()
    assert "wren" in rows


def test_a_reason_with_the_name_as_prose_writes_it_is_refused(database):
    fill(database)
    with pytest.raises(ErasureRefusedError, match="leave the word out"):
        erase_name(database, replace(REQUEST, reason="Rosalind left"), "rosalind")


@pytest.mark.slow
def test_reasons_in_the_access_ledger_that_name_or_are_by_an_erased_user_go(database):
    fill(database)
    users.create_account(database, ADA, "eve", at=NOON, role_assignments=(AssignedRole("admin"),))
    eve = Caller("eve", role_assignments=(AssignedRole("admin"),))
    erase_name(database, replace(REQUEST, caller=eve, reason="as Rosalind asked"), "bo")
    users.create_account(database, ADA, "cy", at=NOON)
    erase_name(database, replace(REQUEST, caller=eve, reason="the lawyer called"), "cy")
    assert find_traces(database, "as Rosalind asked") == ["ledger_texts.text"]
    erase_name(database, REQUEST, "rosalind")
    assert find_traces(database, "as Rosalind asked") == []
    assert find_traces(database, "the lawyer called") == ["ledger_texts.text"]
    erase_name(database, REQUEST, "eve")
    assert find_traces(database, "the lawyer called") == []  # which eve typed
    assert find_traces(database, "they left") == ["ledger_texts.text"]
    assert find_access_ledger_faults(database) == ()


@on_sqlite
def test_an_erased_name_is_not_in_the_file_once_that_is_compacted(database):
    fill(database)
    erase_name(database, REQUEST, "rosalind")
    compact_database(database)
    assert find_in_files(database, "rosalind") == []
    assert find_in_files(database, "bo@example.org") != []


@pytest.mark.parametrize("store_items", [store, send])
def test_records_of_an_erased_reviewer_are_refused_and_not_stored(database, store_items):
    fill(database)
    erase_name(database, REQUEST, "rosalind")
    (receipt,) = store_items(database, [decide("c-1", "rosalind")])
    assert receipt.status is RecordStatus.REJECTED
    assert "name was erased" in receipt.reason
    assert find_traces(database, "rosalind") == []


SPELLINGS = ("rosalind", "Rosalind", " ROSALIND", "rosa\u200blind", "\uff52osalind")


@pytest.mark.parametrize("asked", SPELLINGS[:2])
def test_a_name_is_erased_in_every_spelling_that_counts_as_one_person(database, asked):
    """They may have decided one case, and stay one person on it."""
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    users.create_first_admin(database, "ada", at=NOON)
    store(database, [Case(key="c-0", site="ramp-a", occurred_at=NOON, window="always")])
    store(database, [decide("c-0", name) for name in (*SPELLINGS, "rosa")])
    result = erase_name(database, REQUEST, asked)
    assert [found for name in SPELLINGS for found in find_traces(database, name)] == []
    with database.begin_read() as transaction:
        names = transaction.execute(select(decisions.c.reviewer)).scalars().all()
    assert len(set(names)) == len(SPELLINGS) + 1
    assert {fold_name(name) for name in names} == {"rosa", result.pseudonym}
    for name in (*SPELLINGS, "ROSALIND"):
        (receipt,) = store(database, [structs.replace(decide("c-0", name), revision=2)])
        assert "name was erased" in receipt.reason
    assert erase_name(database, REQUEST, "RoSalind").rows == 0
    list_events(database)


@on_sqlite
def test_nobody_waits_while_the_rows_of_a_name_are_looked_for(database, other, monkeypatch):
    fill(database)
    store(database, [decide(f"c-{n}", "wren") for n in range(3)])
    monkeypatch.setattr("rollout.features.erasure.erasure.ROWS_PER_BATCH", 1)
    writes = []

    def write_first(read):
        def read_rows(*arguments, **options):
            with other.begin_write():
                writes.append(read.__name__)
            return read(*arguments, **options)

        return read_rows

    for read in (RolloutNames.list_names, RolloutNames.find_batch):
        monkeypatch.setattr(RolloutNames, read.__name__, write_first(read))
    assert erase_name(database, REQUEST, "wren").rows == 3
    assert find_traces(database, "wren") == []
    assert writes.count("find_batch") == 3 + len(BATCHED_COLUMNS) + len(TEXT_COLUMNS)


def test_a_batch_of_a_name_begins_after_the_one_before(database):
    fill(database)
    store(database, [decide(f"c-{n}", "wren") for n in range(3)])
    with database.begin_read() as transaction:
        names = RolloutNames(transaction, Rollouts(transaction).find("ramps"))
        first = names.find_batch(decisions.c.reviewer, "wren", after=(), limit=2)
        rest = names.find_batch(decisions.c.reviewer, "wren", after=first, limit=2)
    assert (len(first), len(rest)) == (2, 1)
    assert max(first) < rest[0]


def test_an_account_is_erased_by_its_own_spelling_with_what_it_decided_under_others(database):
    fill(database)
    store(database, [decide("c-0", "Bo"), decide("c-0", "BO")])
    with pytest.raises(ErasureRefusedError, match="bo is an account"):
        erase_name(database, REQUEST, "Bo")
    erase_name(database, REQUEST, "bo")
    with database.begin_read() as transaction:
        names = {*transaction.execute(select(decisions.c.reviewer)).scalars()}
    assert not names & {"bo", "Bo", "BO"}


def test_an_erased_name_is_not_given_to_another_account(database):
    fill(database)
    erase_name(database, REQUEST, "rosalind")
    with pytest.raises(NameTakenError, match="erased"):
        users.create_account(database, ADA, "rosalind", at=LATER)


def test_an_erasure_in_batches_continues_after_a_failure(database, monkeypatch):
    monkeypatch.setattr("rollout.features.erasure.erasure.ROWS_PER_BATCH", 1)
    fill(database)
    append, calls = Ledger.append, []

    def fail_once(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise OSError("power")
        return append(self, *args, **kwargs)

    monkeypatch.setattr(Ledger, "append", fail_once)
    with pytest.raises(OSError, match="power"):
        erase_name(database, REQUEST, "rosalind")
    monkeypatch.undo()
    assert erase_name(database, REQUEST, "rosalind").pseudonym
    assert find_traces(database, "rosalind") == []
    assert erase_name(database, REQUEST, "rosalind").rows == 0


def test_what_an_erased_reviewer_had_claimed_is_free_at_once(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    erase_name(database, replace(REQUEST, rollout="bears", at=room.at), "ana")
    assert room.take(BO).review == review


def test_an_erasure_names_the_entry_of_the_access_ledger_that_permits_it(database):
    fill(database)
    erase_name(database, replace(REQUEST, caller=replace(ADA, access_head=4)), "rosalind")
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("ramps"))
        rows = list(ledger.list_rows(kinds={NameErased.__name__}))
    assert {row.access_head for row in rows} == {4}


def test_a_reviewer_of_a_source_is_erased_in_one_rollout(database):
    fill(database)
    apply_policy(database, POLICY.replace("ramps", "docks"), Actor("zoe"), NOON)
    store(database, [decide("c-1", "wren")])
    erase_name(database, replace(REQUEST, rollout="ramps"), "wren")
    assert find_traces(database, "wren") == []
    with pytest.raises(ErasureRefusedError, match="is an account"):
        erase_name(database, replace(REQUEST, rollout="ramps"), "bo")


def test_an_erasure_in_one_rollout_changes_nothing_of_accounts(database):
    fill(database)
    store(database, [decide("c-1", "wren")])
    erase_name(database, replace(REQUEST, reason="as the Wren asked"), "rosalind")
    erase_name(database, replace(REQUEST, rollout="ramps"), "wren")
    assert find_traces(database, "as the Wren asked") == ["ledger_texts.text"]


def test_the_last_admin_and_an_unknown_name_are_refused_before_anything_changes(database):
    fill(database)
    before = len(list_events(database))
    with pytest.raises(LastAdminError):
        erase_name(database, REQUEST, "ada")
    with pytest.raises(UnknownSubjectError, match="no account and no reviewer"):
        erase_name(database, REQUEST, "nobody")
    assert len(list_events(database)) == before
    assert store(database, [decide("c-1", "ada")])[0].status is RecordStatus.ACCEPTED


@pytest.mark.slow
@on_postgresql
@pytest.mark.parametrize("kind", ["name", "episode"])
def test_a_batch_that_began_before_an_erasure_brings_nothing_back(database, other, kind):
    """It had read that nothing is refused, and waited for a case that another batch held."""
    apply_policy(database, POLICY, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    service = build_service(other, None, ManualClock(NOON))
    with database.begin_read() as transaction:
        (rollout,) = Rollouts(transaction).list_all()
    cases = {
        key: Case(key=key, site="ramp-a", window="always", occurred_at=NOON, episode="trip 7")
        for key in ("a", "b")
    }
    ingest_items(service, BOX, "ramps", [cases["a"], decide("a", "r1")], NOON)
    request = replace(REQUEST, rollout="ramps")
    with ThreadPoolExecutor(2) as threads:
        with database.begin_write() as transaction:
            ExternalKeys(transaction, rollout).assign_ids(["b"])
            batch = threads.submit(
                ingest_items, service, BOX, "ramps", [cases["b"], decide("b", "r1")], NOON
            )
            time.sleep(0.5)
            erase = {"name": erase_name, "episode": erase_episode}[kind]
            subject = {"name": "r1", "episode": "trip 7"}[kind]
            erasure = threads.submit(erase, database, request, subject)
            time.sleep(0.5)
            assert not batch.done()
        batch.result(60)
        erasure.result(60)
    with database.begin_read() as transaction:
        plain_texts = {
            "name": select(decisions.c.reviewer),
            "episode": select(external_keys.c.key).where(external_keys.c.kind == EPISODE),
        }[kind]
        assert subject not in transaction.execute(plain_texts).scalars().all()
    again = ingest_items(service, BOX, "ramps", [cases["b"], decide("b", "r1")], NOON)
    assert RecordStatus.REJECTED in {receipt.status for receipt in again}

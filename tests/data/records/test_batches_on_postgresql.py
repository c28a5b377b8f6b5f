"""On PostgreSQL a batch reads its own rows, sends few statements, and takes its locks in one order.

Without statistics, which a new database lacks until it is analyzed, a plan made of `in` compared
all keys of a rollout with all keys of a batch.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import select, text

from rollout.data.database import bulk
from rollout.data.database.rollouts import match_cases
from rollout.data.database.session import Database
from rollout.data.records.external_keys import PURGED, ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore, IncomingCases
from rollout.data.records.records import RecordStore, load_batch_facts
from rollout.data.tables.tables import cases, external_keys
from rollout.engine.records.records import Case, Decision, Prediction
from tests.data.databases import fresh, on_postgresql
from tests.data.new_rollouts import created, rollout
from tests.factories import NOON

__all__ = ["rollout"]

STORED, BATCH = 2_000, 10
ROWS_READ = text(
    "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)"
    " from pg_stat_xact_user_tables where relname = any(:tables)"
)
RECORD_TABLES = ["external_keys", "cases", "predictions", "decisions", "exposures"]


def build_records(numbers, prefix="k"):
    keys = [f"{prefix}{number}" for number in numbers]
    return [
        *(Case(key=key, site="creek", window="day", occurred_at=NOON) for key in keys),
        *(Prediction(key=key, version="v1", answers={"alarm": "bear"}) for key in keys),
        *(
            Decision(key=key, reviewer="ana", answers={"alarm": "none"}, exposure="blind")
            for key in keys
        ),
    ]


def store(transaction, rollout, records):
    return RecordStore(transaction, rollout).store(records, received_at=NOON)


def count_rows_read(transaction, act):
    """Return how many rows of the record tables PostgreSQL reads for an action."""
    before = transaction.execute(ROWS_READ, {"tables": RECORD_TABLES}).scalar_one()
    act()
    return transaction.execute(ROWS_READ, {"tables": RECORD_TABLES}).scalar_one() - before


@pytest.fixture
def new_database(tmp_path):
    """Return a database whose tables nobody has analyzed."""
    with fresh("postgresql", tmp_path, reused=False) as url:
        made = Database(url)
        yield made
        made.close()


@pytest.mark.parametrize("is_analyzed", [False, True])
@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_a_batch_reads_its_own_rows_however_many_are_stored(new_database, plans, is_analyzed):
    rollout = created(new_database)
    repeated = build_records(range(BATCH))
    with new_database.begin_write() as transaction:
        driver = transaction.connection.connection.driver_connection
        driver.prepare_threshold = 0  # plans are made now, while the tables are empty
        transaction.execute(text(f"set local plan_cache_mode = {plans}"))
        for _ in range(2):
            store(transaction, rollout, build_records([-1]))
        case_ids = list(store(transaction, rollout, repeated).case_ids.values())
        incoming = IncomingCases(transaction, rollout)
        incoming.load_cases(case_ids)
        store(transaction, rollout, build_records(range(BATCH, STORED)))
        if is_analyzed:
            transaction.execute(text("analyze"))
        for records in (build_records(range(STORED, STORED + BATCH)), repeated):
            rows = count_rows_read(
                transaction, lambda sent=records: store(transaction, rollout, sent)
            )
            assert rows <= 6 * BATCH
        find_keys = ExternalKeys(transaction, rollout).find_keys  # as a tick does, for its cases
        find_keys(case_ids)
        for load in (incoming.load_cases, incoming.load_sites, find_keys):
            rows = count_rows_read(transaction, lambda load=load: load(case_ids))
            assert rows <= 3 * BATCH


@pytest.mark.parametrize("count", [1, 100])
def test_cases_are_not_matched_by_comparing_each_with_each(new_database, count):
    rollout = created(new_database)
    with new_database.begin_read() as transaction:
        own = match_cases(transaction, rollout, cases, range(count))
        query = select(cases.c.site).where(*own)
        compiled = query.compile(dialect=transaction.connection.dialect)
        plan = transaction.connection.exec_driver_sql(f"explain {compiled}", compiled.params)
        assert not [line for (line,) in plan if "Join Filter" in line]


def test_no_exposures_are_read_to_see_that_a_rollout_has_none(new_database):
    rollout, other_rollout = created(new_database), created(new_database)
    with new_database.begin_write() as transaction:
        shown = [(number, "case") for number in range(STORED)]
        ExposureStore(transaction, other_rollout).add(shown, reviewer="bo", page="p", at=NOON)
        transaction.execute(text("analyze"))
        transaction.execute(text("set local plan_cache_mode = force_generic_plan"))
        rows = count_rows_read(transaction, lambda: load_batch_facts(transaction, rollout, "bo"))
        assert rows == 0


@on_postgresql
def test_the_number_of_statements_does_not_depend_on_the_batch(database, rollout, monkeypatch):
    sent = []
    execute = psycopg.Cursor.execute

    def listen(cursor, query, *more, **options):
        sent.append(query)
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", listen)
    counts = []
    for batch in (build_records(range(1)), build_records(range(10, 200))):
        for _ in ("new", "sent again"):
            with database.begin_write() as transaction:
                sent.clear()
                store(transaction, rollout, batch)
                counts.append(len(sent))
    # a lock; erased names; keys inserted, or locked and found; hashed keys; one insert or 3 reads
    assert counts == [5, 8, 5, 8]


@on_postgresql
def test_only_cases_that_are_new_are_queued_without_looking_for_their_entries(
    database, rollout, monkeypatch
):
    sent = []
    run_statement = bulk.run_statement

    def listen(transaction, text, values):
        sent.append(text)
        run_statement(transaction, text, values)

    monkeypatch.setattr(bulk, "run_statement", listen)
    with database.begin_write() as transaction:
        ids = store(transaction, rollout, build_records(range(2))).case_ids.values()
        queue = IncomingCases(transaction, rollout).queue_entries
        entries = [(1, number, "unit") for number in ids]
        for new_cases, end in ((set(ids), ")"), (set(), "on conflict do nothing")):
            queue(entries, new_cases)
            assert sent.pop().strip().endswith(end)
        queue([(2, number, "unit") for number in [*ids, *ids]], set(ids))  # not sent twice
        assert sent.pop().strip().endswith("on conflict do nothing")


@on_postgresql
def test_a_batch_that_waits_for_a_key_holds_no_later_one(database, other, rollout):
    with database.begin_write() as transaction:
        ExternalKeys(transaction, rollout).assign_ids(["c"])
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            first = ExternalKeys(transaction, rollout)
            first.assign_ids(["b"])
            second = pool.submit(assign, other, rollout, ["c", "b"])
            wait_for_lock(transaction)
            first.assign_ids(["c"])  # in the sorted order, as one batch takes them
        assert second.result().keys() == {"b", "c"}


def assign(database, rollout, keys, received_at=None):
    with database.begin_write() as transaction:
        own_keys = ExternalKeys(transaction, rollout)
        return own_keys.assign_ids(keys, received_at=received_at).by_key


def wait_for_lock(transaction, number=1):
    """Wait until so many other transactions wait for a lock."""
    query = text(
        "select count(*) from pg_locks where not granted and database = "
        "(select oid from pg_database where datname = current_database())"
        " or not granted and locktype = 'transactionid'"
    )
    for _ in range(200):
        if transaction.execute(query).scalar_one() >= number:
            return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


@on_postgresql
@pytest.mark.parametrize("new_keys", [[], ["new"]])
def test_a_batch_that_waits_for_a_purge_gets_the_purged_numbers(database, other, rollout, new_keys):
    with database.begin_write() as transaction:
        purged = ExternalKeys(transaction, rollout).assign_ids(["a", "b"]).by_key
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            ExternalKeys(transaction, rollout).purge(list(purged.values()))
            waiting = pool.submit(assign, other, rollout, ["b", "a", *new_keys])
            wait_for_lock(transaction)
        numbers = waiting.result()
    assert {key: numbers[key] for key in purged} == purged
    with database.begin_read() as transaction:
        kinds = transaction.execute(select(external_keys.c.kind)).scalars().all()
    assert sorted(kinds) == [*("case" for _ in new_keys), PURGED, PURGED]


@on_postgresql
def test_known_keys_use_up_no_numbers(database, rollout):
    keys = [f"k{number}" for number in range(BATCH)]
    for _ in range(3):  # predictions, decisions and repeats of the same cases
        with database.begin_write() as transaction:
            known = ExternalKeys(transaction, rollout).assign_ids(keys).by_key
    with database.begin_write() as transaction:
        number = ExternalKeys(transaction, rollout).assign_ids(["next"]).by_key["next"]
    assert number == max(known.values()) + 1


@on_postgresql
def test_a_repeated_import_locks_known_keys_in_the_order_of_other_batches(database, other, rollout):
    keys = ["a", "m", "z"]
    times = {key: NOON - timedelta(days=day) for day, key in enumerate(keys)}  # z came first
    known = assign(database, rollout, keys)
    with ThreadPoolExecutor(2) as threads:
        with database.begin_write() as transaction:
            ExternalKeys(transaction, rollout).assign_ids(["m"])
            batch = threads.submit(
                assign, other, rollout, keys
            )  # holds a and waits for m, and then wants z
            wait_for_lock(transaction)
            repeated_import = threads.submit(assign, other, rollout, keys, times)
            wait_for_lock(transaction, 2)
        assert batch.result() == repeated_import.result() == known

"""A purge deletes records, keeps counts, and nothing is counted again."""

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.sqlite import dialect

from rollout.data.counting.count_queue import CountQueue, DueCase, StoredArrivals
from rollout.data.counting.purge import _select_old_cases, list_old_cases, purge_records
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import PURGED_TEXT, RecordStatus
from rollout.data.tables.record_tables import RECORD_UNSEALED
from rollout.data.tables.tables import count_queue, external_keys
from tests.data.counted_units import counts, marks, unit, wrong
from tests.data.databases import on_sqlite
from tests.data.records.test_records import CASE, EACH, OUTCOME, PREDICTION, keep
from tests.factories import DAY, NOON

OLD = [replace(record, key=key) for key in ("a", "b") for record in EACH]
YOUNG = replace(CASE, key="young", occurred_at=NOON + DAY)


@pytest.fixture
def rollout(database):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create("bear-alarm", salt=bytes(range(32)), at=NOON)


def keep_counted(database, rollout, *records, **more):
    """Store records, and let a tick have counted them."""
    answers = keep(database, rollout, *records, **more)
    with database.begin_write() as transaction:
        transaction.execute(delete(count_queue).where(count_queue.c.track == RECORD_UNSEALED))
    return answers


def purged(database, rollout, before=NOON + DAY, limit=1_000):
    with database.begin_read() as transaction:
        old = list_old_cases(transaction, rollout, before=before, limit=limit)
    with database.begin_write() as transaction:
        return purge_records(transaction, rollout, before=before, case_ids=old, revision=1).rows


def sizes(database):
    with database.begin_read() as transaction:
        tables = [form.table for form in RECORD_SCHEMAS.values()]
        return [
            transaction.execute(select(func.count()).select_from(table)).scalar()
            for table in tables
        ]


def test_old_cases_leave_with_all_that_was_said_of_them(database, rollout):
    keep_counted(database, rollout, *OLD, YOUNG)
    found = purged(database, rollout)
    assert found == dict.fromkeys(("predictions", "decisions", "actions", "outcomes", "cases"), 2)
    assert sizes(database) == [1, 0, 0, 0, 0]
    assert purged(database, rollout) == {}


def test_what_is_in_no_ticks_digest_yet_stays(database, rollout):
    keep(database, rollout, *OLD)
    assert purged(database, rollout) == {}


def test_a_purge_goes_in_batches(database, rollout):
    keep_counted(database, rollout, *OLD)
    assert purged(database, rollout, limit=1)["cases"] == 1
    assert purged(database, rollout, limit=1)["cases"] == 1
    assert purged(database, rollout, limit=1) == {}


def test_what_still_waits_to_be_counted_stays(database, rollout):
    keep_counted(database, rollout, *OLD)
    with database.begin_write() as transaction:
        number = ExternalKeys(transaction, rollout).find_ids(["a"])["a"]
        CountQueue(transaction, rollout).add([DueCase(NOON, number, "gate")])
    assert purged(database, rollout)["cases"] == 1
    assert sizes(database) == [1] * 5


def test_what_a_replica_may_not_have_read_yet_stays(database, rollout):
    keep_counted(database, rollout, *OLD)
    with database.begin_write() as transaction:
        number = ExternalKeys(transaction, rollout).find_ids(["a"])["a"]
        StoredArrivals(transaction, rollout).add([(NOON, number)])
    assert purged(database, rollout)["cases"] == 1
    assert sizes(database) == [1] * 5


def test_a_case_that_was_corrected_lately_stays(database, rollout):
    keep_counted(database, rollout, CASE)
    keep_counted(database, rollout, replace(CASE, site="lake", revision=2), at=NOON + 2 * DAY)
    assert purged(database, rollout) == {}


def test_what_a_correction_reached_between_looking_and_deleting_stays(database, rollout):
    keep_counted(database, rollout, *OLD)
    with database.begin_read() as transaction:
        old = list_old_cases(transaction, rollout, before=NOON + DAY, limit=9)
        numbers = ExternalKeys(transaction, rollout).find_ids(["a", "b"])
    assert sorted(old) == sorted(numbers.values())
    keep_counted(
        database, rollout, replace(CASE, key="a", site="lake", revision=2), at=NOON + 2 * DAY
    )
    with database.begin_write() as transaction:
        CountQueue(transaction, rollout).add([DueCase(NOON, numbers["b"], "gate")])
    with database.begin_write() as transaction:
        assert (
            purge_records(transaction, rollout, before=NOON + DAY, case_ids=old, revision=1).rows
            == {}
        )


def test_no_other_cases_leave_than_those_that_were_named(database, rollout):
    keep_counted(database, rollout, *OLD)
    with database.begin_write() as transaction:
        number = ExternalKeys(transaction, rollout).find_ids(["b"])["b"]
        gone = purge_records(
            transaction, rollout, before=NOON + DAY, case_ids=[number], revision=1
        ).rows
    assert gone["cases"] == 1
    assert len(RECORD_SCHEMAS) * [1] == sizes(database)


def test_what_waited_for_a_case_that_never_came_leaves(database, rollout):
    keep_counted(database, rollout, PREDICTION)
    assert purged(database, rollout, before=NOON) == {}
    assert purged(database, rollout) == {"predictions": 1}


def test_items_that_were_set_aside_leave_too(database, rollout):
    keep_counted(database, rollout, CASE, replace(CASE, site="lake"))
    assert purged(database, rollout) == {"cases": 1, "rejected_records": 1}


def test_marks_and_tallies_stay_and_still_agree(database, rollout):
    keep_counted(database, rollout, *OLD)
    counts(database, rollout, unit("a"), unit("b"))
    before = marks(database, rollout)
    purged(database, rollout)
    assert marks(database, rollout) == before
    assert wrong(database, rollout) == {}


def test_a_record_that_comes_once_more_is_known_and_not_kept_again(database, rollout):
    keep_counted(database, rollout, *OLD)
    counts(database, rollout, unit("a"))
    purged(database, rollout)
    late = replace(PREDICTION, key="a", version="v9")
    answers = keep_counted(
        database, rollout, replace(CASE, key="a"), late, replace(OUTCOME, key="new")
    )
    assert [a.status for a in answers] == [*[RecordStatus.DUPLICATE] * 2, RecordStatus.ACCEPTED]
    assert answers[0].reason == PURGED_TEXT
    assert sizes(database) == [0, 0, 0, 0, 1]
    assert counts(database, rollout, unit("a")) == 0


def test_nothing_that_is_left_tells_the_key(database, rollout):
    keep_counted(database, rollout, *OLD)
    purged(database, rollout)
    with database.begin_read() as transaction:
        keys = transaction.execute(select(external_keys.c.key)).scalars().all()
    assert [len(key) for key in keys] == [64, 64]


def test_another_rollouts_records_stay(database, rollout):
    with database.begin_write() as transaction:
        other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    keep(database, other, *OLD)
    assert purged(database, rollout) == {}


def test_an_hourly_search_leaves_out_what_has_no_case(database, rollout):
    keep_counted(database, rollout, *OLD, replace(PREDICTION, key="alone"))
    before = NOON + DAY
    with database.begin_read() as transaction:
        search = {"before": before, "limit": 9}
        hourly = list_old_cases(transaction, rollout, **search, with_orphans=False)
        daily = list_old_cases(transaction, rollout, **search)
        keys = ExternalKeys(transaction, rollout).find_keys(daily)
    assert [keys[number] for number in hourly] == ["a", "b"]
    assert sorted(keys.values()) == ["a", "alone", "b"]


@on_sqlite
def test_old_cases_are_found_by_an_index(database, rollout):
    keep_counted(database, rollout, *OLD, YOUNG)
    query = str(
        _select_old_cases(rollout, NOON).compile(
            dialect=dialect(), compile_kwargs={"literal_binds": True}
        )
    )
    with database.begin_read() as transaction:
        plan = transaction.execute(text(f"explain query plan {query}")).all()
    found = " ".join(row.detail for row in plan)
    assert "ix_cases_rollout_received_at (rollout=? AND received_at<?)" in found
    assert "SCAN cases" not in found

"""Sent records are stored one by one as in batches; batches lose no row."""

import json
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import BigInteger, func, select, type_coerce
from sqlalchemy.exc import DBAPIError, IntegrityError

from rollout.data.database.bulk import (
    IGNORE_CONFLICTS,
    ROWS_PER_STATEMENT,
    Repeated,
    insert_columns,
)
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import cases, heartbeats
from rollout.engine.files.parse import ItemReader
from rollout.engine.records.records import Action, Case, Decision, Outcome, Prediction
from tests.data.databases import on_postgresql
from tests.factories import NOON

NAMES = (f"sent-{number}" for number in count(1))
READER = ItemReader(lambda *_: "day", NOON)

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
names = st.text(letters, min_size=1, max_size=200)
texts = st.dictionaries(names, names, max_size=6)
answers = st.dictionaries(names, names | st.none(), min_size=1, max_size=6)
instants = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 - its zone is drawn beside it
    datetime(2026, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([timezone(timedelta(hours=h)) for h in (-5, 0, 2)]),
)
times = instants.map(datetime.isoformat)
shares = st.floats(0, 1)


def an_item(kind, **more):
    return st.fixed_dictionaries({"kind": st.just(kind), "key": names}, optional=more)


def answering(item, is_empty, **more):
    """Add answers, none to what failed or is unsure."""
    more["answers"] = st.just({}) if is_empty else answers
    return st.builds(lambda **more: item | more, **more)


items = st.one_of(
    an_item("case", episode=st.none() | names, attributes=texts, media=texts).flatmap(
        lambda item: st.builds(lambda **more: item | more, site=names, occurred_at=times)
    ),
    an_item(
        "prediction",
        confidence=st.none() | shares,
        probabilities=st.none() | st.dictionaries(names, shares, max_size=3),
        latency_ms=st.none() | st.floats(0, 1e6),
        error=st.none() | names,
        at=st.none() | times,
        revision=st.integers(1, 9),
    ).flatmap(lambda item: answering(item, item.get("error") is not None, version=names)),
    an_item(
        "decision",
        unsure=st.booleans(),
        exposure=st.sampled_from(["blind", "assisted", "revealed", "unknown"]),
        started_at=st.none() | times,
        submitted_at=st.none() | times,
        note=st.none() | names,
    ).flatmap(lambda item: answering(item, item.get("unsure", False), reviewer=names)),
)


def read(item):
    (found,) = READER.read_body(json.dumps([item]).encode())
    return found


@pytest.mark.slow
@given(st.lists(items, min_size=1, max_size=6))
def test_a_batch_is_stored_as_each_of_its_records_alone(batch):
    records = [read(item) for item in batch]
    for kind in set(map(type, records)):
        form, some = RECORD_SCHEMAS[kind], [record for record in records if type(record) is kind]
        together, alone = (
            form.build_columns(some),
            [form.build_columns([record]) for record in some],
        )
        for name, cells in together.items():
            assert list(cells) == [one[name][0] for one in alone]
        assert form.compute_hashes(together) == [form.compute_hashes(one)[0] for one in alone]


def test_numbers_that_are_equal_have_one_hash_however_they_are_written():
    form = RECORD_SCHEMAS[Prediction]
    said = Prediction(key="a", version="v1", answers={}, confidence=0.0)
    batch = [said, replace(said, confidence=-0.0), replace(said, confidence=0), said]
    assert [
        form.compute_hashes(form.build_columns([one]))[0] for one in batch
    ] == form.compute_hashes(form.build_columns(batch))
    assert len(set(form.compute_hashes(form.build_columns(batch)))) == 1


HASHES = [
    (Case(key="a", site="creek", window="day", occurred_at=NOON), "81e15df91b51eae0"),
    (
        Case(
            key="a",
            site="ö",
            window="day",
            occurred_at=NOON,
            episode="e",
            attributes={"b": "1", "a": "2"},
            media={"m": "n"},
        ),
        "c379f573b9465541",
    ),
    (
        Prediction(key="a", version="v1", answers={"alarm": "bear"}, confidence=0.5),
        "5fd775b59da18453",
    ),
    (
        Prediction(
            key="a",
            version="v1",
            answers={"alarm": "bär", "speed": None},
            confidence=1.0,
            probabilities={"bear": 0.1},
            latency_ms=3.5,
            error='it\'s "off"',
            at=NOON,
        ),
        "2e8aafb87020473d",
    ),
    (
        Decision(key="a", reviewer="ana", answers={"alarm": "none"}, exposure="blind"),
        "836333616d75fcbb",
    ),
    (
        Decision(
            key="a",
            reviewer="ana",
            answers={},
            exposure="blind",
            unsure=True,
            claims="blind",
            started_at=NOON,
            submitted_at=NOON,
            note="fog\n",
        ),
        "fbb67c33983aee91",
    ),
    (
        Action(key="a", lever="alarm", action="siren", by="model", at=NOON, permission="x"),
        "9287b7ae13bb57d1",
    ),
    (Outcome(key="a", at=NOON, harm="sheep"), "7e1a13462517870a"),
]


@pytest.mark.parametrize(("record", "begins"), HASHES)
@pytest.mark.parametrize("beside", [0, 1, 5])
def test_a_hash_is_the_one_that_it_always_was(record, begins, beside):
    form = RECORD_SCHEMAS[type(record)]
    others = [replace(record, key="other", revision=2), *(other for other, _ in HASHES)]
    batch = [record, *(other for other in others if type(other) is type(record))][: beside + 1]
    first, *_ = form.compute_hashes(form.build_columns(batch))
    assert first.hex().startswith(begins)


@given(items)
def test_a_record_says_what_was_sent(item):
    record = read(item)
    for name in item.keys() - {"kind"}:
        said = getattr(record, name)
        assert (said.isoformat() if isinstance(said, datetime) else said) == item[name]


@on_postgresql
def test_a_text_that_can_not_be_stored_is_refused_and_not_parted(database):
    columns = {"rollout": [1, 1], "site": ["a\0b", "c"], "at": [1, 1], "received_at": [1, 1]}
    with pytest.raises(DBAPIError), database.begin_write() as transaction:
        insert_columns(transaction, heartbeats, columns)


@pytest.mark.parametrize(
    "number", [1, ROWS_PER_STATEMENT - 1, ROWS_PER_STATEMENT, 2 * ROWS_PER_STATEMENT + 3]
)
def test_every_row_of_a_batch_is_inserted(database, number):
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
        made = [Case(key=f"c{n}", site="s", window="day", occurred_at=NOON) for n in range(number)]
        kept = RecordStore(transaction, rollout).store(made, received_at=NOON)
        query = select(func.count()).where(cases.c.rollout == rollout.number)
        assert transaction.execute(query).scalar_one() == number
        assert kept.changed_cases == kept.new_cases == set(kept.case_ids.values())


@pytest.mark.parametrize("again", [0, ROWS_PER_STATEMENT])
def test_a_row_that_is_there_already_is_named_as_elsewhere(database, again):
    with database.begin_write() as transaction:
        number = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON).number
    at = [*range(ROWS_PER_STATEMENT + 2), again]
    columns = {"rollout": [number] * len(at), "site": ["s"] * len(at), "at": at, "received_at": at}
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        insert_columns(transaction, heartbeats, columns)


@pytest.mark.parametrize("repeat", [Repeated, tuple])
@pytest.mark.parametrize("extra", [0, 3])
def test_values_that_rows_share_are_stored_in_each_row(database, extra, repeat):
    row_count = 2 * ROWS_PER_STATEMENT + extra
    sites = [
        "creek",
        *(f"site-{n % 3}" for n in range(row_count - 2)),
        "creek",
    ]  # equal at the ends
    columns = {
        "site": sites,
        "at": range(row_count),
        "received_at": repeat((9,) * row_count),
    }
    with database.begin_write() as transaction:
        number = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON).number
        columns["rollout"] = repeat((number,) * row_count)
        insert_columns(transaction, heartbeats, columns)
        times = (type_coerce(heartbeats.c[name], BigInteger) for name in ("at", "received_at"))
        query = select(*times, heartbeats.c.site).where(heartbeats.c.rollout == number)
        rows = transaction.execute(query.order_by(heartbeats.c.at)).all()
    assert rows == [(n, 9, site) for n, site in enumerate(sites)]


def test_rows_that_are_equal_in_all_columns_are_stored_once(database):
    row_count = ROWS_PER_STATEMENT + 1
    with database.begin_write() as transaction:
        number = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON).number
        row = {"rollout": number, "site": "creek", "at": 1, "received_at": 2}
        columns = {name: (value,) * row_count for name, value in row.items()}
        insert_columns(transaction, heartbeats, columns, IGNORE_CONFLICTS)
        query = select(func.count()).where(heartbeats.c.rollout == number)
        assert transaction.execute(query).scalar_one() == 1

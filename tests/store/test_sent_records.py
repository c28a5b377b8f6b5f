"""What comes as a light tuple is kept as its record is; of many rows a statement none is lost."""

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from rollout.core.records import Case, Decision, Prediction
from rollout.core.sent import SentCase, SentDecision, SentPrediction, record_of
from rollout.formats.live_items import Reader
from rollout.store.bulk import insert_columns
from rollout.store.driver import AT_ONCE
from rollout.store.listed import array
from rollout.store.record_rows import FORM_OF
from rollout.store.records import Records, Verdict
from rollout.store.rollouts import Rollouts
from rollout.store.tables import cases, heartbeats
from tests.factories import NOON

NAMES = (f"sent-{number}" for number in count(1))
READER = Reader(lambda *_: "day", NOON)

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
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
    ).flatmap(lambda item: st.builds(lambda **more: item | more, version=names, answers=answers)),
    an_item(
        "decision",
        unsure=st.booleans(),
        exposure=st.sampled_from(["blind", "assisted", "revealed", "unknown"]),
        started_at=st.none() | times,
        submitted_at=st.none() | times,
        note=st.none() | names,
    ).flatmap(lambda item: st.builds(lambda **more: item | more, reviewer=names, answers=answers)),
)


@pytest.mark.parametrize(
    ("light", "record"),
    [(SentCase, Case), (SentPrediction, Prediction), (SentDecision, Decision)],
)
def test_a_light_record_has_the_fields_of_its_record(light, record):
    assert sorted(light._fields) == sorted(field.name for field in fields(record))


@given(items)
def test_a_light_record_is_stored_as_its_record_is(item):
    light = READER._record(item)
    record = record_of(light)
    assert type(light) is not type(record)
    assert FORM_OF[type(light)] is FORM_OF[type(record)]
    form = FORM_OF[type(record)]
    assert form.written(light) == form.written(record)
    assert all(
        getattr(light, field.name) == getattr(record, field.name) for field in fields(record)
    )


@given(items)
def test_a_light_record_says_what_was_sent(item):
    light = READER._record(item)
    for name in item.keys() - {"kind"}:
        said = getattr(light, name)
        assert (said.isoformat() if isinstance(said, datetime) else said) == item[name]


@given(st.lists(names) | st.lists(st.integers()) | st.lists(st.none() | names))
def test_an_array_says_what_its_values_are_or_leaves_them_to_the_driver(values):
    written = array(values)
    if isinstance(written, list):
        assert written == values
        return
    inner = written[1:-1]
    assert (written[0], written[-1]) == ("{", "}")
    if isinstance(values[0], int):
        assert [int(text) for text in inner.split(",")] == values
    else:
        assert inner[1:-1].split('","') == values
        assert "\\" not in written


def test_what_came_light_is_a_duplicate_of_its_record(database):
    sent = [
        {"kind": "case", "key": "a", "site": "creek", "occurred_at": "2026-01-01T00:00+02:00"},
        {"kind": "prediction", "key": "a", "version": "v1", "answers": {"alarm": "bear"}},
        {"kind": "decision", "key": "a", "reviewer": "ana", "answers": {"alarm": "none"}},
    ]
    light = [READER._record(item) for item in sent]
    with database.writing() as transaction:
        rollout = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
        store = Records(transaction, rollout)
        first = store.keep(light, received_at=NOON)
        again = store.keep([record_of(item) for item in light], received_at=NOON)
    assert {answer.verdict for answer in first.answers} == {Verdict.ACCEPTED}
    assert {answer.verdict for answer in again.answers} == {Verdict.DUPLICATE}


@pytest.mark.parametrize("number", [1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 3])
def test_every_row_of_a_batch_is_inserted(database, number):
    with database.writing() as transaction:
        rollout = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
        made = [Case(key=f"c{n}", site="s", window="day", occurred_at=NOON) for n in range(number)]
        kept = Records(transaction, rollout).keep(made, received_at=NOON)
        query = select(func.count()).where(cases.c.rollout == rollout.number)
        assert transaction.execute(query).scalar_one() == number
        assert kept.touched == kept.new == set(kept.case_ids.values())


@pytest.mark.parametrize("again", [0, AT_ONCE])
def test_a_row_that_is_there_already_is_named_as_elsewhere(database, again):
    with database.writing() as transaction:
        number = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON).number
    at = [*range(AT_ONCE + 2), again]
    columns = {"rollout": [number] * len(at), "site": ["s"] * len(at), "at": at, "received_at": at}
    with pytest.raises(IntegrityError), database.writing() as transaction:
        insert_columns(transaction, heartbeats, columns)

"""Records are stored once, in any order, with a receipt for each item."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from operator import attrgetter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import select, text

from rollout.data.records.case_pages import CasePages
from rollout.data.records.record_check import find_changed_records
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import (
    NO_CASE_YET,
    RecordReceipt,
    RecordStatus,
    RecordStore,
    RejectedRecords,
)
from rollout.data.tables.tables import external_keys, outcomes
from rollout.engine.records.records import Action, Case, Decision, Heartbeat, Outcome, Prediction
from tests.data.databases import on_sqlite
from tests.data.new_rollouts import created, rollout
from tests.factories import DAY, MINUTE, NOON

__all__ = ["rollout"]

ACCEPTED = RecordReceipt(RecordStatus.ACCEPTED)
WAITS = RecordReceipt(RecordStatus.ACCEPTED, NO_CASE_YET)
DUPLICATE = RecordReceipt(RecordStatus.DUPLICATE)

CASE = Case(key="a", site="creek", window="day", occurred_at=NOON)
PREDICTION = Prediction(key="a", version="v1", answers={"alarm": "bear"}, confidence=0.5)
DECISION = Decision(key="a", reviewer="ana", answers={"alarm": "none"}, exposure="blind")
ACTION = Action(
    key="a", lever="alarm", action="siren", by="model", at=NOON, permission="authorized"
)
OUTCOME = Outcome(key="a", at=NOON, harm="sheep")
EACH = (CASE, PREDICTION, DECISION, ACTION, OUTCOME)
CHANGED = (
    replace(CASE, site="lake"),
    replace(PREDICTION, confidence=0.25),
    replace(DECISION, claims="assisted"),
    replace(ACTION, by="person"),
    replace(OUTCOME, harm=None),
)
PAIRS = list(zip(EACH, CHANGED, strict=True))


def keep(database, rollout, *items, at=NOON):
    with database.begin_write() as transaction:
        return RecordStore(transaction, rollout).store(items, received_at=at).results


def aside(database, rollout):
    with database.begin_read() as transaction:
        return [kept.item for kept in RejectedRecords(transaction, rollout).list_after()]


def contents(database, rollout):
    """Return every row by table, under the callers' keys instead of our numbers."""
    with database.begin_read() as transaction:
        keys = {row.id: row.key for row in transaction.execute(select(external_keys))}
        found = {}
        for form in RECORD_SCHEMAS.values():
            query = select(form.table).where(form.table.c.rollout == rollout.number)
            rows = [row._asdict() for row in transaction.execute(query)]
            found[form.name] = sorted(str(plain_row(row, keys)) for row in rows)
        return found


def plain_row(row, keys):
    named = {"case_id": keys[row["case_id"]], "episode": keys.get(row.get("episode"))}
    chance = {"salt": b"", "record_hash": b""}  # differ each time that a record is stored
    return sorted({**row, **named, **chance, "rollout": 0}.items())


# One item


@pytest.mark.parametrize("record", EACH, ids=lambda record: type(record).__name__)
def test_an_item_is_accepted_once_and_then_a_duplicate(database, rollout, record):
    keep(database, rollout, CASE)
    first = DUPLICATE if record is CASE else ACCEPTED
    assert keep(database, rollout, record) == (first,)
    before = contents(database, rollout)
    assert keep(database, rollout, record, at=NOON + DAY) == (DUPLICATE,)
    assert contents(database, rollout) == before


@pytest.mark.parametrize(("record", "other"), PAIRS)
def test_other_content_under_a_known_key_is_set_aside(database, rollout, record, other):
    keep(database, rollout, CASE, record)
    before = contents(database, rollout)
    for _ in range(2):
        (answer,) = keep(database, rollout, other)
        assert answer.status is RecordStatus.CONFLICT
    assert contents(database, rollout) == before
    (item,) = aside(database, rollout)
    assert (item.kind, item.key, item.reason) == (
        RECORD_SCHEMAS[type(record)].name,
        "a",
        answer.reason,
    )


SAID = [
    (CASE, {"site": "lake", "occurred_at": NOON + DAY, "episode": "e", "attributes": {"a": "b"}}),
    (CASE, {"media": {"still": "a.jpg"}}),
    (PREDICTION, {"answers": {}, "confidence": None, "probabilities": {"bear": 0.5}}),
    (PREDICTION, {"latency_ms": 3.5, "error": "timed out", "at": NOON}),
    (DECISION, {"answers": {}, "unsure": True, "claims": "blind", "note": "fog"}),
    (DECISION, {"started_at": NOON, "submitted_at": NOON}),
    (ACTION, {"action": "wait", "by": "person", "version": "v1", "at": NOON + DAY}),
    (OUTCOME, {"answers": {"alarm": "bear"}, "harm": None, "at": NOON + DAY, "source": "vet"}),
]


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [(record, field, value) for record, said in SAID for field, value in said.items()],
)
def test_whatever_a_caller_says_differently_is_a_conflict(database, rollout, record, field, value):
    keep(database, rollout, record)
    (answer,) = keep(database, rollout, replace(record, **{field: value}))
    assert answer.status is RecordStatus.CONFLICT


@pytest.mark.parametrize(("record", "other"), PAIRS)
def test_a_correction_stands_beside_what_it_corrects(database, rollout, record, other):
    further = replace(other, revision=2)
    answers = keep(database, rollout, CASE, record, further)
    assert answers[-1] == ACCEPTED
    assert len(contents(database, rollout)[RECORD_SCHEMAS[type(record)].name]) == 2


@pytest.mark.parametrize("record", EACH[1:], ids=lambda record: type(record).__name__)
def test_what_comes_before_its_case_waits_for_it(database, rollout, record):
    assert keep(database, rollout, record) == (WAITS,)
    assert keep(database, rollout, CASE) == (ACCEPTED,)
    assert keep(database, rollout, replace(record, revision=2)) == (ACCEPTED,)


def test_what_the_service_fills_in_makes_no_conflict(database, rollout):
    keep(database, rollout, *EACH)
    again = (
        replace(CASE, window="night"),
        replace(PREDICTION, scope_revision=7, decider="model", exposure="blind", share=0.1),
        replace(ACTION, scope_revision=7),
        replace(DECISION, exposure="revealed", seat=2, review=9),
        replace(ACTION, permission="authorized_within_lease"),
    )
    assert set(keep(database, rollout, *again)) == {DUPLICATE}


NAIVE = datetime(2027, 6, 1, 12)  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (replace(CASE, occurred_at=NAIVE), "no time zone"),
        (replace(PREDICTION, at=NAIVE), "no time zone"),
        (replace(DECISION, started_at=NAIVE), "no time zone"),
        (replace(CASE, key=""), "1 to 200 letters"),
        (replace(CASE, key="x" * 201), "1 to 200 letters"),
        (replace(CASE, key="a\0"), "NUL"),
        (replace(CASE, key="\ud800"), "surrogates"),
        (replace(CASE, site="creek\0"), "NUL"),
        (replace(DECISION, note="\ud800"), "surrogates"),
        (replace(PREDICTION, confidence=float("nan")), "JSON"),
        (replace(PREDICTION, probabilities={"bear": float("inf")}), "JSON"),
        (replace(PREDICTION, revision=0), "the first is 1"),
        (replace(PREDICTION, revision=2**31), "is invalid"),
    ],
)
def test_one_bad_item_is_set_aside_and_its_neighbours_kept(database, rollout, record, says):
    good = replace(CASE, key="good")
    first, bad, last = keep(database, rollout, good, record, replace(good, key="fine"))
    assert (first, last) == (ACCEPTED, ACCEPTED)
    assert bad.status is RecordStatus.REJECTED
    assert says in bad.reason
    assert [item.reason for item in aside(database, rollout)] == [bad.reason]


def test_a_repeat_within_a_batch_is_a_duplicate_and_a_contradiction_a_conflict(database, rollout):
    answers = keep(database, rollout, CASE, CASE, replace(CASE, site="lake"), PREDICTION)
    verdicts = [answer.status.value for answer in answers]
    assert verdicts == ["accepted", "duplicate", "conflict", "accepted"]


def test_of_many_items_those_that_fit_are_kept_whatever_stands_between_them(database, rollout):
    bad = [replace(CASE, key=""), replace(CASE, occurred_at=NAIVE), replace(CASE, site="a\0")]
    good = [replace(CASE, key=f"c{n}", site=f"site-{n}") for n in range(4)]
    answers = keep(database, rollout, good[0], *bad, *good[1:], PREDICTION, CASE)
    verdicts = [answer.status.value for answer in answers]
    assert verdicts == ["accepted", *["rejected"] * 3, *["accepted"] * 5]
    assert len({answer.reason for answer in answers[1:4]}) == 3
    assert keep(database, rollout, *good, PREDICTION, CASE) == (DUPLICATE,) * 6
    rows = contents(database, rollout)["case"]
    assert [f"('case_id', 'c{n}')" in row for n, row in enumerate(rows[1:])] == [True] * 4
    assert [f"('site', 'site-{n}')" in row for n, row in enumerate(rows[1:])] == [True] * 4


def test_letters_of_any_alphabet_come_back(database, rollout):
    odd = replace(CASE, key='é"\\\t\N{BEAR FACE}', attributes={"wetter": "weiß\n"})
    assert keep(database, rollout, odd) == (ACCEPTED,)
    assert keep(database, rollout, odd) == (DUPLICATE,)


def test_rollouts_share_no_records(database, rollout):
    keep(database, rollout, CASE)
    assert keep(database, created(database), PREDICTION) == (WAITS,)


def test_a_site_is_heard_once_at_an_instant(database, rollout):
    heard = Heartbeat(site="creek", at=NOON)
    with database.begin_write() as transaction:
        records = RecordStore(transaction, rollout)
        beats = [heard, heard, replace(heard, at=NOON + MINUTE), replace(heard, at=NAIVE)]
        answers = [records.store_heartbeat(beat, received_at=NOON).status.value for beat in beats]
    assert answers == ["accepted", "duplicate", "accepted", "rejected"]


# Any order, any batches, any number of times

keys = st.sampled_from("abc")
revisions = st.integers(1, 2)
instants = st.integers(0, 2).map(lambda n: NOON + n * MINUTE)
answered = st.fixed_dictionaries({"alarm": st.sampled_from(["bear", "none", None])})
records = st.one_of(
    st.builds(
        Case,
        key=keys,
        site=st.sampled_from(["creek", "lake"]),
        window=st.just("day"),
        occurred_at=instants,
        episode=st.sampled_from([None, "e1", "e2"]),
        revision=revisions,
    ),
    st.builds(
        Prediction,
        key=keys,
        version=st.sampled_from(["v1", "v2"]),
        answers=answered,
        revision=revisions,
    ),
    st.builds(
        Decision,
        key=keys,
        reviewer=st.sampled_from(["ana", "bo"]),
        answers=answered,
        exposure=st.just("blind"),
        revision=revisions,
    ),
    st.builds(Outcome, key=keys, at=instants, harm=st.sampled_from([None, "sheep"])),
)


def identity(record):
    return (type(record), record.key, attrgetter(*RECORD_SCHEMAS[type(record)].key)(record))


def feed(database, items, cuts):
    """Send items to a rollout of their own, in batches that end at the cuts."""
    rollout, start = created(database), 0
    for cut in sorted({cut % (len(items) + 1) for cut in cuts} | {len(items)}):
        keep(database, rollout, *items[start:cut])
        start = cut
    return rollout


COMPARED = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
cuts = st.lists(st.integers(0, 20), max_size=3)


@pytest.mark.slow
@given(st.lists(records, unique_by=identity, max_size=8), st.data())
@COMPARED
def test_any_order_and_any_repeats_come_to_the_same(database, items, data):
    repeats = data.draw(st.lists(st.sampled_from(items), max_size=4)) if items else []
    again = data.draw(st.permutations([*items, *repeats]))
    one, other = feed(database, items, []), feed(database, again, data.draw(cuts))
    assert contents(database, one) == contents(database, other)
    assert aside(database, other) == []


@pytest.mark.slow
@given(st.lists(records, max_size=10), cuts)
@COMPARED
def test_conflicts_come_to_the_same_however_batches_are_cut_and_repeated(database, items, cut):
    one, other = feed(database, items, []), feed(database, [*items, *items], cut)
    assert contents(database, one) == contents(database, other)
    assert aside(database, one) == aside(database, other)


@pytest.mark.slow
@given(st.lists(records, max_size=10), st.data())
@COMPARED
def test_nothing_that_was_said_is_ever_lost(database, items, data):
    """Each different content is either in its table or rejected, whatever the order."""
    rollout = feed(database, data.draw(st.permutations(items)), data.draw(cuts))
    kept = sum(len(rows) for rows in contents(database, rollout).values())
    said = {repr(item) for item in items}
    assert kept == len({identity(item) for item in items})
    assert kept + len(aside(database, rollout)) == len(said)


# At the same time


def test_two_who_send_the_same_at_once_are_answered_as_if_one_came_first(database, rollout):
    batch = [
        replace(record, key=f"case-{n}")
        for n in range(40)
        for record in (CASE, PREDICTION, DECISION)
    ]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(keep, database, rollout, *batch) for _ in range(4)]
        answers = [each.result() for each in sent]
    for item in zip(*answers, strict=True):
        assert sorted(a.status.value for a in item) == ["accepted", *["duplicate"] * 3]


def test_who_writes_of_a_case_that_another_is_writing_of_waits(database, other, rollout):
    keep(database, rollout, CASE)
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            RecordStore(transaction, rollout).store([PREDICTION], received_at=NOON)
            late = pool.submit(keep, other, rollout, PREDICTION)
            with pytest.raises(TimeoutError):
                late.result(timeout=0.3)
        assert late.result(timeout=10) == (DUPLICATE,)


def test_two_who_contradict_each_other_at_once_both_get_their_answer(database, rollout):
    batches = [
        [replace(CASE, key=f"case-{n}", site=site) for n in order]
        for site, order in (("creek", range(30)), ("lake", reversed(range(30))))
    ]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda batch: keep(database, rollout, *batch), batches))
    verdicts = sorted(a.status.value for both in answers for a in both)
    assert verdicts == ["accepted"] * 30 + ["conflict"] * 30
    assert len(aside(database, rollout)) == 30


def test_no_two_writers_of_the_same_cases_deadlock(database, rollout):
    """Each batch has old and new keys, in another order."""
    keep(database, rollout, *[replace(CASE, key=f"{n}") for n in range(10)])
    batches = [
        [replace(PREDICTION, key=f"{(n * step) % 23}", version=f"v{step}") for n in range(23)]
        for step in (1, 5, 7, 22)
    ]
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(lambda batch: keep(database, rollout, *batch), batches):
            assert {a.status for a in answers} == {RecordStatus.ACCEPTED}


def test_times_span_what_is_asked_of_them(database, rollout):
    far = [NOON - timedelta(days=40_000), NOON + timedelta(days=40_000)]
    items = [replace(CASE, key=str(n), occurred_at=at) for n, at in enumerate(far)]
    assert set(keep(database, rollout, *items)) == {ACCEPTED}


VALUED = Outcome(key="a", at=NOON, values={"profit": 12.5, "days": 3})


def test_values_are_content_and_equal_numbers_are_equal(database, rollout):
    assert keep(database, rollout, CASE, VALUED) == (ACCEPTED, ACCEPTED)
    again = replace(VALUED, values={"days": 3.0, "profit": 12.5})
    other = replace(VALUED, values={"profit": 12.4, "days": 3})
    (first, second) = keep(database, rollout, again, other)
    assert first == DUPLICATE
    assert second.status is RecordStatus.CONFLICT
    with database.begin_read() as transaction:
        (case_id,) = transaction.execute(select(outcomes.c.case_id)).scalars()
        assert CasePages(transaction, rollout).list_outcomes(case_id, "a") == [again]
    revised = replace(VALUED, values={"profit": 13.0}, revision=2)
    assert keep(database, rollout, revised) == (ACCEPTED,)
    with database.begin_read() as transaction:
        (newest,) = CasePages(transaction, rollout).list_outcomes(case_id, "a")
    assert newest == replace(revised, values={"days": 3.0, "profit": 13.0})


@on_sqlite
@pytest.mark.parametrize("values", ['{"profit":99.0}', None])
def test_edited_values_are_no_longer_those_of_the_hash(database, rollout, values):
    plain = replace(OUTCOME, key="b")
    keep(database, rollout, VALUED)
    keep(database, rollout, plain)
    with database.begin_write() as transaction:
        assert not list_changed(transaction, rollout)
        transaction.execute(text("drop trigger outcomes_refuses_update"))
        change = text("update outcomes set outcome_values = :values where case_id = 1")
        transaction.execute(change, {"values": values})
        assert list_changed(transaction, rollout) == [
            "the outcome of case a (revision 1) is not what its hash says"
        ]
        added = text("update outcomes set outcome_values = '{}' where case_id = 2")
        transaction.execute(added)
        assert len(list_changed(transaction, rollout)) == 2


def list_changed(transaction, rollout):
    schema = RECORD_SCHEMAS[Outcome]
    return find_changed_records(transaction, rollout, schema, range(1, 9))[1]

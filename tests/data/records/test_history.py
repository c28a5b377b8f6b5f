"""Stored records become the frames that counting reads, with the counts of a replay."""

from dataclasses import replace
from datetime import timedelta
from json import loads
from re import search

import numpy as np
import polars as pl
import pytest
from msgspec import structs
from sqlalchemy import event, select

from rollout.data.counting import counter
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.database.rollouts import match_cases
from rollout.data.records import history as stored_history
from rollout.data.records.history import HISTORY_COLUMNS, StoredHistory, parse_json
from rollout.data.records.records import RecordStore
from rollout.data.tables.record_tables import InstantType, JsonType
from rollout.data.tables.tables import cases
from rollout.engine.evidence.tallied_units import build_units
from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.kernel.calendar.instants import EPOCH
from rollout.kernel.policy.evidence_sources import ACCOUNT
from rollout.kernel.policy.policy import EvidenceRules
from tests.data.counted_units import load_unit_frame
from tests.data.databases import on_sqlite
from tests.data.new_rollouts import rollout
from tests.data.plans import steps
from tests.engine.evidence.histories import a_policy, resolved
from tests.factories import DAY, HOUR, MINUTE, NOON

__all__ = ["rollout"]

LABELS = ("bear", "fox", "none")
POLICY = a_policy(evidence=EvidenceRules(grace=2 * HOUR))


def said(number, *, episodes=False):
    """Return the records of one case: two versions' answers and one or two people's."""
    at = NOON + number * 7 * MINUTE
    case = Case(
        key=f"case-{number}",
        site="creek",
        window="always",
        occurred_at=at,
        episode=f"episode-{number // 3}" if episodes else None,
        attributes={"weather": "wet" if number % 2 else "dry"},
    )
    yield case
    for version, shift in (("v1", 0), ("v2", number % 4 == 0)):
        answer = LABELS[(number + shift) % 3]
        answers = {"alarm": answer if number % 11 else None}
        yield Prediction(key=case.key, version=version, answers=answers, confidence=0.9, at=at)
    if number % 5:
        yield Decision(
            key=case.key,
            reviewer="ana" if number % 2 else "bo",
            answers={"alarm": LABELS[number % 3]},
            exposure="assisted" if number % 7 == 0 else "blind",
            submitted_at=at + 3 * MINUTE,
        )
    if number % 6 == 0:
        yield Outcome(key=case.key, at=at + DAY, harm="sheep")


def keep(database, rollout, *items):
    """Keep records as if each case had been received when it occurred."""
    with database.begin_write() as transaction:
        return RecordStore(transaction, rollout).store(items, received_at=NOON)


def history(database, rollout, case_ids=None, levers=("alarm",)):
    with database.begin_read() as transaction:
        stored = StoredHistory(transaction, rollout, levers=levers, attributes=("weather",))
        return stored.load_records(case_ids)


def test_an_empty_rollout_is_an_empty_history(database, rollout):
    found = history(database, rollout)
    assert found.levers == ("alarm",)
    assert found.attributes == ("weather",)
    assert {found.cases.height, found.predictions.height, found.decisions.height} == {0}


def test_equal_answers_are_parsed_once_and_media_never(database, rollout, monkeypatch):
    """Parsing each record's JSON took a third of a read; media are pictures of many kilobytes."""
    parsed = []

    def parse(text):
        parsed.append(text)
        return parse_json(text)

    monkeypatch.setattr(stored_history, "parse_json", parse)
    records = [record for number in range(40) for record in said(number)]
    pictured = {"media": {"picture": "data:image/png;base64,AAAA"}}
    keep(
        database,
        rollout,
        *(structs.replace(r, **pictured) if isinstance(r, Case) else r for r in records),
    )
    found = history(database, rollout)
    assert (found.cases.height, found.predictions.height) == (40, 80)
    assert sorted(filter(None, parsed)) == [
        '{"alarm":"bear"}',
        '{"alarm":"fox"}',
        '{"alarm":"none"}',
        '{"alarm":null}',
        '{"weather":"dry"}',
        '{"weather":"wet"}',
        "{}",
    ]
    assert "media" not in HISTORY_COLUMNS["cases"]


def test_hashes_and_probabilities_are_read_only_where_they_are_used(database, rollout):
    """Each column costs a twentieth of a read, and guards read what counting has just read."""
    keep(database, rollout, *said(1))
    columns = []

    def note(table, rows):
        columns.append({*rows[0]._fields} if rows else set())
        return rows

    def load(select_rows=None, **options):
        statements = []
        with database.begin_read() as transaction:
            event.listen(
                transaction.connection,
                "before_cursor_execute",
                lambda _connection, _cursor, statement, *_: statements.append(statement),
            )
            stored = StoredHistory(transaction, rollout, levers=("alarm",), select_rows=select_rows)
            stored.load_records(**options)
        return " ".join(statements)

    plain, hashed, weighed = load(), load(note), load(for_report=True)
    assert ["record_hash" in text for text in (plain, hashed, weighed)] == [False, True, False]
    assert ["probabilities" in text for text in (plain, hashed, weighed)] == [False, False, True]
    assert all("record_hash" in names for names in columns if names)
    assert sum(map(bool, columns)) == 3


@on_sqlite
def test_cases_that_follow_each_other_are_read_in_one_go(database, rollout):
    keep(database, rollout, *(record for number in range(9) for record in said(number)))
    for case_ids, is_run in (({3, 4, 5}, True), ([3, 5], False), ([3, 3, 5], False), ((4,), False)):
        with database.begin_read() as transaction:
            query = select(cases.c.case_id).where(
                *match_cases(transaction, rollout, cases, case_ids)
            )
            found = steps(transaction, lambda query=query: transaction.execute(query))
            read = set(transaction.execute(query).scalars())
        assert read == {*case_ids}
        assert any("case_id>? AND case_id<?" in step for step in found) is is_run


def test_instants_and_json_are_read_as_stored():
    """Decoding each instant, and encoding it again for a frame, took a third of a read."""
    columns = [column for columns in HISTORY_COLUMNS.values() for column in columns.values()]
    column_types = {type(column.type) for column in columns}
    assert not column_types & {InstantType, JsonType}


def test_no_frame_of_records_is_built_from_a_dictionary_a_row(database, rollout, monkeypatch):
    """That took half of a read."""
    has_dictionaries = []
    build = pl.DataFrame.__init__

    def note(frame, data=None, *rest, **options):
        has_dictionaries.append(isinstance(data, list) and any(type(row) is dict for row in data))
        build(frame, data, *rest, **options)

    keep(database, rollout, *(record for number in range(12) for record in said(number)))
    monkeypatch.setattr(pl.DataFrame, "__init__", note)
    assert history(database, rollout).cases.height == 12
    assert has_dictionaries
    assert not any(has_dictionaries)


@pytest.mark.parametrize("fraction", [0, 1, 999_999])
def test_a_cases_text_is_its_time_in_iso_form(database, rollout, fraction):
    at = NOON + timedelta(microseconds=fraction)
    keep(database, rollout, Case(key="a", site="creek", occurred_at=at, window="always"))
    (case,) = history(database, rollout).cases.to_dicts()
    assert (case["occurred_text"], case["hour_written"]) == (at.isoformat(), 12)


def test_a_decision_of_1970_has_its_own_time(database, rollout):
    """Stored as 0, which is no missing time."""
    decision = Decision(
        key="case-1", reviewer="ana", answers={"alarm": None}, submitted_at=EPOCH, exposure="blind"
    )
    case, *_ = said(1)
    keep(database, rollout, case, structs.replace(decision, started_at=EPOCH))
    (found,) = history(database, rollout).decisions.to_dicts()
    assert (found["at"], found["started_at"], found["unsure"]) == (EPOCH, EPOCH, True)


def test_each_kind_of_record_is_read_once(database, rollout):
    """Predictions were read three times, to find who sent them, for decisions and for outcomes."""
    records = [record for number in range(12) for record in said(number)]
    with database.begin_write() as transaction:
        RecordStore(transaction, rollout).store(
            [_name_account(record) for record in records], received_at=NOON, sender="client"
        )
    with database.begin_read() as transaction:
        statements = []
        connection = transaction.connection
        event.listen(connection, "before_cursor_execute", lambda *sent: statements.append(sent[2]))
        StoredHistory(transaction, rollout, levers=("alarm",)).load_records()
    for table in ("cases", "predictions", "decisions", "outcomes"):
        assert sum(bool(search(rf"FROM {table}\b", text)) for text in statements) == 1, table


def _name_account(record):
    if isinstance(record, Decision):
        return structs.replace(record, source=ACCOUNT)
    return structs.replace(record, source_kind=ACCOUNT) if isinstance(record, Outcome) else record


def test_records_come_back_as_frames(database, rollout):
    keep(database, rollout, *said(6))
    found = history(database, rollout)
    (case,) = found.cases.to_dicts()
    assert (case["case_key"], case["site"], case["attribute:weather"]) == (
        "case-6",
        "creek",
        "dry",
    )
    assert (case["occurred_at"], case["received_at"]) == (NOON + 42 * MINUTE, NOON)
    first, second = found.predictions.to_dicts()
    assert (first["version"], first["value:alarm"], first["confidence"]) == ("v1", "bear", 0.9)
    assert second["version"] == "v2"
    (decision,) = found.decisions.to_dicts()
    assert (decision["reviewer"], decision["exposure"], decision["at"]) == (
        "bo",
        "blind",
        NOON + 45 * MINUTE,
    )
    (outcome,) = found.outcomes.to_dicts()
    assert (outcome["harm"], outcome["value:alarm"]) == ("sheep", None)


def test_the_highest_revision_holds_whenever_it_came(database, rollout):
    case, *_, decision = said(1)
    corrected = structs.replace(decision, answers={"alarm": "none"}, revision=2)
    keep(database, rollout, corrected)
    keep(database, rollout, case, decision)
    assert history(database, rollout).decisions["value:alarm"].to_list() == ["none"]


def test_two_spellings_of_a_name_are_one_decision_the_newest(database, rollout):
    case, *_, decision = said(1)  # by ana
    keep(database, rollout, case, decision)
    others = {"Ana": 1, " ANA ": 2, "bo": 3}
    for name, hours in others.items():
        again = structs.replace(decision, reviewer=name, answers={"alarm": "none"})
        with database.begin_write() as transaction:
            at = NOON + hours * HOUR
            RecordStore(transaction, rollout).store([again], received_at=at)
    found = history(database, rollout).decisions.sort("received_at")
    assert found["reviewer"].to_list() == [" ANA ", "bo"]


def test_what_waits_for_its_case_stays_out_until_it_comes(database, rollout):
    case, *rest = said(1)
    keep(database, rollout, *rest)
    assert history(database, rollout).predictions.is_empty()
    keep(database, rollout, case)
    assert history(database, rollout).predictions.height == 2


def test_some_cases_are_read_without_the_others(database, rollout):
    kept = keep(database, rollout, *said(1), *said(2), *said(3))
    found = history(database, rollout, [kept.case_ids["case-2"]])
    assert set(found.predictions["case_key"]) == {"case-2"}


def test_a_lever_that_was_not_answered_is_none(database, rollout):
    keep(database, rollout, *said(1))
    found = history(database, rollout, levers=("alarm", "siren"))
    assert found.predictions["value:siren"].to_list() == [None, None]
    assert found.decisions["unsure"].to_list() == [True]


def test_a_case_is_found_with_its_whole_episode(database, rollout):
    kept = keep(database, rollout, *(r for n in range(6) for r in said(n, episodes=True)))
    with database.begin_read() as transaction:
        stored = StoredHistory(transaction, rollout, levers=("alarm",))
        found = stored.add_episode_cases([kept.case_ids["case-1"]])
    assert found == {kept.case_ids[f"case-{n}"] for n in range(3)}


@on_sqlite
def test_other_episodes_are_not_read_for_it(database, rollout):
    with database.begin_read() as transaction:
        stored = StoredHistory(transaction, rollout, levers=("alarm",))
        found = steps(transaction, lambda: stored.add_episode_cases([1]))
    searched = [step.partition("(rollout=? AND ")[2] for step in found if "cases" in step]
    assert searched == ["episode=?)", "case_id=?)"]


def test_a_case_without_an_episode_is_found_with_those_of_its_span(database, rollout):
    times = {"a": 0, "b": 9, "c": 10, "d": 3}  # minutes after noon; the grid's spans are ten long
    sites = {"d": "elsewhere"}
    kept = keep(
        database,
        rollout,
        *(
            Case(
                key=key,
                site=sites.get(key, "creek"),
                occurred_at=NOON + minutes * MINUTE,
                window="always",
            )
            for key, minutes in times.items()
        ),
        Case(key="e", site="creek", occurred_at=NOON, window="always", episode="named"),
    )
    with database.begin_read() as transaction:
        stored = StoredHistory(transaction, rollout, levers=("alarm",))
        found = stored.add_span_cases([kept.case_ids["a"]], 10 * MINUTE)
        named = stored.add_span_cases([kept.case_ids["e"]], 10 * MINUTE)
    assert found == {kept.case_ids["a"], kept.case_ids["b"]}
    assert named == set()


@pytest.mark.parametrize("unit", ["case", "episode"])
def test_what_is_counted_live_gathers_into_the_same_units_as_a_replay(database, rollout, unit):
    """The seam: counted in batches, in any order, read back from the tables."""
    policy = replace(POLICY, evidence=replace(POLICY.evidence, unit=unit))
    items = [r for n in range(60) for r in said(n, episodes=unit == "episode")]
    keep(database, rollout, *reversed(items))
    frame = resolved(history(database, rollout), policy)
    known = frame.with_columns(definition=pl.lit("d"), attempt=pl.lit(1), bucket=pl.lit(0))
    for part in (known.filter(pl.col("track") != "gate"), known):
        with database.begin_write() as transaction:
            counter.count_units(transaction, rollout, part, by_episode=unit == "episode")
    with database.begin_read() as transaction:
        read = load_unit_frame(transaction, rollout, after=0, until=2**40)
    live, replayed = build_units(read, policy), build_units(frame, policy)
    assert live.unit_keys.equals(replayed.unit_keys)
    assert live.reviewers == replayed.reviewers
    assert live.cells.keys() == replayed.cells.keys()
    for key, rows in replayed.cells.items():
        for track in ("gate", "guard", "assisted"):
            one, other = getattr(rows, track), getattr(live.cells[key], track)
            for name in ("slot", "occurred", "reviewer", "day", "unit"):
                assert np.array_equal(getattr(one, name), getattr(other, name))
            kinds = [replayed.unit_classes.classes[kind] for kind in one.unit_class]
            assert kinds == [live.unit_classes.classes[kind] for kind in other.unit_class]


def test_the_classes_of_counted_units_are_not_parsed_one_by_one(database, rollout, monkeypatch):
    """A list for each unit, from JSON and then for the frame, took most of a first read."""
    parsed = []
    keep(database, rollout, *(record for number in range(12) for record in said(number)))
    units = resolved(history(database, rollout), POLICY)
    known = units.with_columns(definition=pl.lit("d"), attempt=pl.lit(1), bucket=pl.lit(0))
    with database.begin_write() as transaction:
        counter.count_units(transaction, rollout, known, by_episode=False)
    monkeypatch.setattr("json.loads", lambda text: parsed.append(text) or loads(text))
    with database.begin_read() as transaction:
        (part,) = CountedUnits(transaction, rollout).load_units(after=0, until=2**40)
    assert len(part) > 12
    assert len(parsed) == len({*part.class_ids})


def test_an_empty_count_has_no_parts(database, rollout):
    with database.begin_read() as transaction:
        assert list(CountedUnits(transaction, rollout).load_units(after=0, until=9)) == []

"""The chain: one canonical form, every link checked, a broken one named by its line."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import UnionType
from typing import get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import (
    EVENT_TYPES,
    LedgerEvent,
    PolicyApplied,
    VersionFirstUsed,
)
from rollout.engine.ledger.ledger import (
    BrokenLedgerError,
    CanonicalRow,
    build_ledger,
    build_row,
    list_fields,
    parse_event,
    to_canonical_json,
    verify_lines,
)
from rollout.kernel.calendar.instants import Cell, to_micros
from rollout.kernel.facts import (
    AlarmSubject,
    FreshFact,
    LooserRule,
    StoredAlarm,
    StoredReading,
    Trigger,
    parse_condition,
    to_facts,
)
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.evidence_sources import (
    CountedOutcomeSource,
    CountedSource,
    FrozenVouching,
    RegisteredUnits,
)
from rollout.kernel.populations import ALL_UNITS, BothArms, EachValue, PlantedUnits
from rollout.kernel.units import OutcomeRule
from rollout.kernel.words import VOID_CAUSES
from tests.engine.ledger.golden import ACCESS, ROLLOUT
from tests.factories import NOON, SALTS, eventful

EVENTS = eventful().events
LINES = [row.format() for row in build_ledger("bear-alarm", EVENTS, SALTS)]

names = st.text(max_size=8)
instants = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001 - the zone comes with `timezones`
    datetime(2250, 1, 1),  # noqa: DTZ001 - 2**53 microseconds last until 2255
    timezones=st.sampled_from([UTC, ZoneInfo("America/Denver")]),
).map(lambda at: at.astimezone(UTC))  # the hour that a clock shows twice has one instant
cells = st.builds(Cell, names, names)
numbers = st.floats(-1e6, 1e6)
labels = st.none() | st.text(min_size=1, max_size=8)
outcomes = st.builds(
    OutcomeRule,
    names,
    numbers,
    numbers,
    st.timedeltas(timedelta(0), timedelta(days=99)),
    names,
    st.sampled_from(["more", "less"]),
    numbers,
)
populations = st.one_of(
    st.just(ALL_UNITS),
    st.builds(EachValue, names, labels),
    st.just(PlantedUnits()),
    st.builds(BothArms, outcomes, names),
)
conditions = st.builds(
    Condition, st.sampled_from([*MEASURES.values()]), numbers, labels, labels, labels, populations
)
decimals = st.floats(0.001, 1).map(repr)
readings = st.builds(
    StoredReading,
    conditions.map(to_facts),
    st.lists(st.integers(0, 10**6), min_size=2, max_size=3).map(tuple),
    decimals,
    decimals,
    st.just("") | decimals,
)
alarms = st.builds(
    StoredAlarm,
    conditions,
    st.none() | st.timedeltas(timedelta(0), timedelta(days=99)),
    st.integers(-(10**6), 10**6),
    st.integers(0, 10**6),
    st.none() | st.builds(AlarmSubject, names, names, names, st.none() | st.floats(0, 1)),
    st.integers(0, 9),
)
fresh_facts = st.builds(
    FreshFact, names, st.none() | conditions, st.integers(0, 10**6), st.integers(0, 10**6)
)


looser_rules = st.builds(
    LooserRule,
    st.just("bins"),
    st.fixed_dictionaries({"attribute": names}),
    st.lists(cells, max_size=3).map(tuple),
    st.integers(0, 9),
)


triggers = st.builds(
    Trigger, st.just("no-permit"), st.fixed_dictionaries({}, optional={"later": names})
)
COUNTS = {CountedSource, CountedOutcomeSource, FrozenVouching, RegisteredUnits}


def of_hint(hint: object) -> st.SearchStrategy:
    """Return values of a field's type."""
    if get_origin(hint) is tuple:
        return st.lists(of_hint(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is UnionType:
        return st.none() | of_hint(get_args(hint)[0])
    simple = {str: names, int: st.integers(0, 2**53 - 1), bool: st.booleans()}
    if hint in COUNTS:
        return of_kind(hint)
    return {
        timedelta: st.timedeltas(timedelta(0), timedelta(days=99)),
        datetime: instants,
        Cell: cells,
        FreshFact: fresh_facts,
        LooserRule: looser_rules,
        StoredAlarm: alarms,
        Trigger: triggers,
        StoredReading: readings,
        **simple,
    }[hint]


def of_kind(kind: type[LedgerEvent]) -> st.SearchStrategy[LedgerEvent]:
    hints = get_type_hints(kind)
    causes = {"cause": st.sampled_from(sorted(VOID_CAUSES))} if "cause" in hints else {}
    values = {f.name: of_hint(hints[f.name]) for f in fields(kind)}
    return st.builds(kind, **values | causes)


@given(conditions)
def test_a_condition_is_read_back_from_its_facts(condition):
    facts = json.loads(to_canonical_json(to_facts(condition)))
    assert parse_condition(facts) == condition


events = st.one_of([of_kind(kind) for kind in EVENT_TYPES.values()])


def broken(lines: list[str]) -> tuple[int, str]:
    with pytest.raises(BrokenLedgerError) as caught:
        list(verify_lines(lines))
    return caught.value.line, str(caught.value)


# There and back


@pytest.mark.slow
@given(st.lists(events, max_size=4))
@settings(deadline=None)
def test_every_event_comes_back_as_it_went_in(happened):
    rows = list(verify_lines([row.format() for row in build_ledger("r", happened, SALTS)]))
    assert [parse_event(row) for row in rows] == happened


def test_a_name_that_many_rows_say_is_one_text_in_memory():
    seen = VersionFirstUsed(at=NOON, by="policy", version="v-17")
    texts = [row.format() for row in build_ledger("a", [seen], SALTS)]
    (one,), (other,) = (map(parse_event, verify_lines(texts)) for _ in range(2))
    assert one.version is other.version


def test_replaying_the_written_ledger_gives_the_same_scope():
    again = [parse_event(row) for row in verify_lines(line + "\n" for line in LINES)]
    assert again == EVENTS
    assert apply_events(again) == apply_events(EVENTS)


def test_a_row_is_one_line_of_the_columns_that_are_promised():
    first = json.loads(LINES[0])
    assert list(first) == sorted(
        [
            *("rollout", "revision", "at", "slot", "kind", "actor", "body"),
            *("access_head", "previous", "hash"),
        ]
    )
    assert (first["rollout"], first["revision"], first["kind"]) == (
        "bear-alarm",
        1,
        "PolicyApplied",
    )
    assert (first["access_head"], first["previous"], first["actor"]) == (None, "", "ana")
    assert first["at"] == to_micros(NOON) == NOON.timestamp() * 1_000_000


def test_a_row_leaves_out_marked_fields_while_they_are_empty():
    applied = PolicyApplied(at=NOON, by="ana", number=1, policy_hash="a")
    row = list_fields(applied)
    assert {"renamed", "former", "confidence_floors"}.isdisjoint(row)
    assert row["cleared"] == []
    assert list_fields(replace(applied, confidence_floors=("0.8",)))["confidence_floors"] == ["0.8"]


def test_site_window_and_version_stand_in_the_body():
    (body,) = [r["body"] for r in map(json.loads, LINES) if r["kind"] == "TakenOver"]
    assert (body["site"], body["window"], body["version"]) == ("creek", "day", "v2")
    assert "cell" not in body


def test_a_hash_is_that_of_the_canonical_content_under_its_domain():
    content = json.loads(LINES[3])
    own = content.pop("hash")
    content.pop("texts", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert own == sha256(b"rollout-ledger-1\n" + text.encode()).hexdigest()
    assert json.loads(LINES[4])["previous"] == own


def test_an_empty_chain_is_whole():
    assert list(verify_lines([])) == []


# Canonical form


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1.0, "is a float"),
        ([{"a": [0.5]}], "is a float"),
        (float("nan"), "is a float"),
        (2**53, "too large"),
        ({"a": -(2**53)}, "too large"),
        ({"ä": 1}, "ASCII"),
        ({1: 1}, "ASCII"),
    ],
)
def test_what_has_no_one_form_is_refused(value, says):
    with pytest.raises(ValueError, match=says):
        to_canonical_json(value)


def test_a_row_with_a_float_is_never_written():
    row = build_row("r", 1, VersionFirstUsed(at=NOON, by="policy", version="v1"), "", salts=SALTS)
    with pytest.raises(ValueError, match="float"):
        replace(row, body={"share": 0.5}).format()


def test_the_form_is_sorted_dense_and_unescaped():
    assert to_canonical_json({"b": [True, None, 2**53 - 1], "a": 'ü"'}) == (
        '{"a":"ü\\"","b":[true,null,9007199254740991]}'
    )


# Broken


def edited(number: int, change: Callable[[dict], None]) -> list[str]:
    """Return the chain with one line's content changed and its hash left."""
    content = json.loads(LINES[number - 1])
    change(content)
    line = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return [*LINES[: number - 1], line, *LINES[number:]]


@pytest.mark.parametrize("number", [1, 2, 7, len(LINES)])
@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(actor="eve"),
        lambda row: row.update(at=row["at"] + 1),
        lambda row: row.update(revision=row["revision"] + 1),
        lambda row: row.update(rollout="other"),
        lambda row: row.update(access_head=1),
        lambda row: row["body"].update(reason="other"),
        lambda row: row.update(hash="0" * 64),
        lambda row: row.update(previous="0" * 64),
    ],
    ids=["actor", "at", "revision", "rollout", "access_head", "body", "hash", "previous"],
)
def test_an_edited_line_is_named(number, change):
    assert broken(edited(number, change)) == (
        number,
        f"line {number}: its hash is not that of its content",
    )


def test_a_line_whose_hash_was_made_anew_breaks_the_next_one():
    row = next(iter(verify_lines([LINES[0]])))
    forged = replace(row, actor="eve").format()
    assert broken([forged, *LINES[1:]]) == (2, "line 2: does not follow the line before it")


@given(st.integers(1, len(LINES) - 1))
def test_a_deleted_line_is_found_at_the_one_after_it(number):
    assert broken([*LINES[: number - 1], *LINES[number:]])[0] == number


@given(st.integers(0, len(LINES) - 1), st.integers(0, len(LINES) - 1))
def test_swapped_lines_are_found_at_the_first_of_them(one, other):
    swapped = list(LINES)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    if one == other:
        assert len(list(verify_lines(swapped))) == len(LINES)
    else:
        assert broken(swapped)[0] == min(one, other) + 1


@given(st.integers(1, len(LINES)))
def test_a_doubled_line_is_found(number):
    assert broken([*LINES[:number], *LINES[number - 1 :]])[0] == number + 1


def test_a_chain_begins_with_its_first_revision():
    row = next(iter(verify_lines(LINES[:1])))
    assert "out of place" in broken([replace(row, revision=2).format()])[1]


def test_a_row_of_another_rollout_is_out_of_place():
    first, second = list(verify_lines(LINES[:2]))
    assert "out of place" in broken([first.format(), replace(second, rollout="other").format()])[1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "not an entry"),
        ("nonsense", "not an entry"),
        ("[]", "not an entry"),
        ("null", "not an entry"),
        ("{}", "not an entry"),
        (LINES[0][:-5], "not an entry"),
        ("[" * 100_000, "not an entry"),
        (LINES[0].replace('"actor":"ana"', '"actor":"eve","actor":"ana"'), "a key stands twice"),
        (LINES[0].replace('"number":1', '"number":1,"number":1'), "a key stands twice"),
        (LINES[0].replace('"number":1', '"number":1.0'), "is a float"),
        (LINES[0].replace('"number":1', '"number":NaN'), "is a float"),
        (LINES[0].replace('"number":1', '"number":1e0'), "is a float"),
        (LINES[0].replace(",", ", "), "not written in canonical form"),
        (LINES[0].replace("ana", "\\u0061na"), "not written in canonical form"),
        (
            LINES[0].replace('{"access_head"', '{"added":1,"access_head"'),
            "not written in canonical form",
        ),
        (" " + LINES[0], "not written in canonical form"),
        (LINES[0] + "\r\n", "not written in canonical form"),
    ],
)
def test_a_line_that_is_not_a_row_in_canonical_form_is_named(line, says):
    number, text = broken([line, *LINES[1:]])
    assert number == 1
    assert says in text


@pytest.mark.parametrize("kind", ["Invented", "", [], None])
def test_a_kind_that_nobody_knows_is_named(kind):
    row = replace(next(iter(verify_lines(LINES[:1]))), kind=kind)
    assert broken([row.format()])[0] == 1


def test_a_chain_cut_off_at_its_end_looks_whole():
    """So heads are kept elsewhere; the module says it."""
    assert len(list(verify_lines(LINES[:-3]))) == len(LINES) - 3


def test_rows_are_read_one_by_one():
    rows = verify_lines([LINES[0], "nonsense"])
    assert isinstance(next(rows), CanonicalRow)
    with pytest.raises(BrokenLedgerError):
        next(rows)


# Golden ledgers


@pytest.mark.parametrize(
    ("lines", "head"),
    [
        (ROLLOUT, "6a5a44894188657dce63756690124ddf1c84f6ec5490ded9a9428c4264244c7e"),
        (ACCESS, "3ae9e2d206fbb17e64fa2a7c9768b26506dbd632591ca548550daf5338329e96"),
    ],
)
def test_a_golden_ledger_verifies_and_is_written_again_as_it_is(lines, head):
    rows = list(verify_lines(lines))
    assert [row.format() for row in rows] == lines
    assert rows[-1].hash == head
    events = [parse_event(row) for row in rows]
    assert [row.kind for row in rows] == [type(event).__name__ for event in events]

"""What is read at once is what is read item by item: the structs take what the forms take."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files.parse import (
    BUILDERS,
    ITEM_ADAPTER,
    ITEM_FORMS,
    KIND,
    MAX_ITEMS,
    MAX_LINE_BYTES,
    STRUCTS,
    ItemReader,
    TooManyItemsError,
    UnreadableBodyError,
    find_default,
    split_lines,
)
from rollout.engine.records.records import RejectedItem
from tests.engine.files.spoilt import spoilt

READER = ItemReader(lambda *_: "day", datetime(2026, 1, 1, tzinfo=UTC))
AT = "2025-06-01T12:00:00Z"
CASE = {"kind": "case", "key": "a", "site": "creek", "occurred_at": AT}
PREDICTION = {"kind": "prediction", "key": "a", "version": "v1", "answers": {"alarm": "bear"}}
DECISION = {"kind": "decision", "key": "a", "reviewer": "ana", "answers": {"alarm": "bear"}}
ACTION = {"kind": "action", "key": "a", "lever": "alarm", "action": "bear", "by": "person"}
OUTCOME = {"kind": "outcome", "key": "a", "at": AT, "harm": "bitten"}
HEARTBEAT = {"kind": "heartbeat", "site": "creek", "at": AT}
HEARD = json.dumps(HEARTBEAT).encode()
GOOD = (CASE, PREDICTION, DECISION, ACTION | {"at": AT}, OUTCOME, HEARTBEAT)
RICH = (
    *(item | {"revision": 2} for item in GOOD[:-1]),
    CASE | {"episode": "e", "attributes": {"weather": "dry"}, "media": {"picture": "a.jpg"}},
    PREDICTION | {"confidence": 0.5, "probabilities": {"bear": 0.5}, "latency_ms": 8, "at": AT},
    DECISION
    | {"answers": {}, "unsure": True, "exposure": "blind", "submitted_at": AT, "note": "n"},
)
NAMES = sorted({name for form in ITEM_FORMS.values() for name in form.__annotations__})

EDGES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, -0.0, 0.5, 1.5, 1e5, 1e300, 10**15, -(10**15)),
    *(10**15 + 1, 10**30, 2**31 - 1, 2**31, "", "a", "ö\ud83d\ude00", "a" * 200, "a" * 201),
    *("a" * 2_000, "a" * 2_001, "a" * 10_001, AT, "2025-06-01", "2025-06-01T12:00", "blind"),
    *("revealed", "model", "person", "case", "\u2028", "\x7f", '"', "\\", "\n", {}, [], [1]),
    *({"": "a"}, {"a": ""}, {"a": None}, {"a": 1}, {"a": 1.5}, {"a": True}, {"a": {}}),
    *({"a" * 201: "a"}, {"a": "a" * 2_001}, {str(n): "a" for n in range(101)}),
]
spoiled = st.builds(
    lambda item, without, more: {k: v for k, v in item.items() if k not in without} | more,
    st.sampled_from(GOOD),
    st.sets(st.sampled_from(NAMES), max_size=1),
    st.dictionaries(st.sampled_from([*NAMES, "unheard_of"]), st.sampled_from(EDGES), max_size=2),
)


def at_once(items, wrapped):
    return READER.read_body(json.dumps({"items": items} if wrapped else items).encode())


def one_by_one(items):
    """Read items with an unreadable one, so that they are read one by one."""
    *read, last = READER.read_body(json.dumps([*items, {}]).encode())
    assert isinstance(last, RejectedItem)
    return read


class Slowly(ItemReader):
    """A reader that reads nothing at once."""

    def _read_all(self, items, body):  # noqa: ARG002 - the reader's form
        raise ValueError


def whole(reader, body):
    """Return what a body is read as, or why it isn't."""
    try:
        return repr(reader.read_body(body))
    except (UnreadableBodyError, TooManyItemsError) as refused:
        return repr(refused)


@pytest.mark.parametrize("item", GOOD, ids=lambda item: item["kind"])
def test_every_limit_of_every_name_holds_at_once_as_one_by_one(item):
    items = [item | {name: edge} for name in [*NAMES, "unheard_of"] for edge in EDGES]
    items += [{k: v for k, v in item.items() if k != name} for name in item]
    assert [repr(at_once([one], wrapped=True)) for one in items] == [
        repr([read]) for read in one_by_one(items)
    ]


@given(st.lists(spoiled, max_size=3), st.booleans())
def test_what_is_read_at_once_is_what_is_read_one_by_one(items, wrapped):
    assert repr(at_once(items, wrapped)) == repr(one_by_one(items))


@given(st.lists(spoiled, min_size=1, max_size=3))
def test_lines_are_read_as_a_body_is(items):
    lines = [json.dumps(item).encode() for item in items]
    assert repr(READER.read_lines(lines)) == repr(at_once(items, wrapped=False))


@pytest.mark.parametrize("item", GOOD, ids=lambda item: item["kind"])
def test_a_good_item_is_read_at_once(item, monkeypatch):
    monkeypatch.setattr(ItemReader, "_read_item", None)
    (read,) = at_once([item], wrapped=True)
    assert not isinstance(read, RejectedItem)


@pytest.mark.parametrize("kind", ITEM_FORMS)
def test_a_struct_has_the_names_of_its_form(kind):
    assert {KIND, *STRUCTS[kind].__struct_fields__} == ITEM_FORMS[kind].__annotations__.keys()
    assert BUILDERS.keys() == set(STRUCTS.values())
    assert ITEM_FORMS.keys() == ITEM_ADAPTER.json_schema()["discriminator"]["mapping"].keys()


def test_what_is_left_out_claims_nothing():
    case, prediction, decision, acted, outcome, _ = at_once(GOOD, wrapped=True)
    assert (case.episode, case.attributes, case.media) == (None, {}, {})
    assert (decision.exposure, decision.claims, decision.unsure) == ("unknown", "unknown", False)
    assert (outcome.answers, outcome.source, acted.permit) == ({}, "", "")
    records = (case, prediction, decision, acted.action, outcome)
    assert [record.revision for record in records] == [1] * 5


def test_a_prediction_with_an_error_has_failed_whatever_it_says():
    (failed,) = at_once([PREDICTION | {"error": "time-out"}], wrapped=True)
    assert (failed.answers, failed.error) == ({}, "time-out")


def test_of_a_name_written_twice_in_an_item_the_last_counts():
    body = json.dumps([CASE]).replace('"site"', '"site": "nowhere", "site"', 1)
    (read,) = READER.read_body(body.encode())
    assert read.site == CASE["site"]


def test_a_decision_is_unsure_or_has_an_answer():
    (both,) = at_once([DECISION | {"unsure": True}], wrapped=True)
    assert both.reason.endswith("or says `unsure: true`; send one of them")
    (unsure,) = at_once([DECISION | {"answers": {"alarm": None}, "unsure": True}], wrapped=True)
    assert (unsure.answers, unsure.unsure) == ({"alarm": None}, True)


@pytest.mark.parametrize("item", GOOD, ids=lambda item: item["kind"])
def test_a_default_value_can_be_sent(item):
    form = ITEM_FORMS[item["kind"]]
    said = {name: find_default(item["kind"], name) for name in form.__optional_keys__}
    assert ITEM_ADAPTER.validate_python(said | item) == said | item
    assert repr(at_once([said | item], wrapped=False)) == repr(at_once([item], wrapped=False))


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"kind": "heartbeat", "site": "creek", "at": "}', b'{"}'],
        [b'{"a": [{}', b"{}]}"],
        [b'%b, {"kind": "heartbeat", "at": "%b", "site": "}' % (HEARD, AT.encode()), b'{"}'],
        [b'{"kind": "heartbeat", "site": "creek"', b'"at": "%b"}, %b' % (AT.encode(), HEARD)],
    ],
    ids=["a text", "a list", "two in one line, the second in a text", "an item beside another"],
)
def test_no_item_goes_on_in_the_next_line(lines):
    read = READER.read_lines(lines)
    assert len(read) == len(lines)
    assert all(isinstance(item, RejectedItem) for item in read)


@pytest.mark.parametrize("more", [0, 1])
def test_a_line_is_too_long_alone_as_beside_a_bad_one(more):
    line = HEARD.replace(b" ", b" " * (MAX_LINE_BYTES - len(HEARD) + 1 + more), 1)
    (alone,) = READER.read_lines([line])
    assert isinstance(alone, RejectedItem) is bool(more)
    assert READER.read_lines([line, b"{}"])[0] == alone


@given(spoilt(*map(json.dumps, RICH), json.dumps({"items": RICH}), json.dumps(RICH)))
def test_a_spoilt_body_is_read_at_once_as_one_by_one(body):
    assert whole(READER, body) == whole(Slowly(READER.find_window, READER.now), body)


@given(spoilt("\n".join(map(json.dumps, RICH)), f"{HEARD.decode()}\n" * 3))
def test_spoilt_lines_are_read_at_once_as_one_by_one(body):
    for _, lines in split_lines(body):
        assert repr(READER.read_lines(lines)) == repr(
            [READER.read_lines([line, b"{}"])[0] for line in lines]
        )


def test_of_a_repeated_name_the_last_value_is_used():
    (read,) = READER.read_body(
        b'[{"kind": "heartbeat", "site": "a", "at": "%b", "site": "b"}]' % AT.encode()
    )
    assert read.site == "b"
    (read,) = READER.read_body(
        b'[{"kind": "case", "site": "a", "at": "%b", "kind": "heartbeat"}]' % AT.encode()
    )
    assert read.site == "a"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"1", b'"a"', b"{}", b'{"items": 1}', b'{"items": [], "more": 1}'),
        *(
            b"[" * 100_000,
            b'{"items": [',
            b"[\xff]",
            b'[{"a": "\xff"}]',
            b"\xef\xbb\xbf[]",
            b"[1,]",
        ),
    ],
)
def test_what_holds_no_items_is_refused_as_a_whole(body):
    with pytest.raises(UnreadableBodyError):
        READER.read_body(body)


def test_too_many_items_are_refused_as_a_whole():
    bodies = json.dumps([HEARTBEAT] * (MAX_ITEMS + 1)).encode()
    with pytest.raises(TooManyItemsError, match="10001 items"):
        READER.read_body(bodies)


def test_a_nul_character_is_named_in_its_item_and_takes_nothing_from_its_neighbours():
    first, second = at_once([HEARTBEAT, HEARTBEAT | {"site": "a\0b"}], wrapped=True)
    assert first.site == "creek"
    assert second.reason == "a text has a NUL character; leave it out"


def test_half_of_a_character_is_no_text():
    body = b'[{"kind": "heartbeat", "site": "\\ud83d", "at": "%b"}, %b]'
    broken, good = READER.read_body(body % (AT.encode(), json.dumps(HEARTBEAT).encode()))
    assert isinstance(broken, RejectedItem)
    assert good.site == "creek"


def test_thousands_of_faults_are_only_counted():
    (read,) = at_once([HEARTBEAT | {f"x{n}": 1 for n in range(1_001)}], wrapped=True)
    assert read.reason == "1001 faults; look at the form of its kind"
    (read,) = at_once([HEARTBEAT | {f"x{n}": 1 for n in range(1_000)}], wrapped=True)
    assert read.reason.endswith("and 997 more")


def test_an_item_without_a_kind_is_told_which_there_are():
    (item,) = READER.read_body(b'{"items": [{"Kind": "case", "case_key": "a"}]}')
    assert isinstance(item, RejectedItem)
    assert item.reason == f"name its kind: {', '.join(ITEM_FORMS)}"

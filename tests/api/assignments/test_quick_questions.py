"""Questions are read into structs as their forms read them, or left to the forms."""

import json
from dataclasses import fields
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from pydantic import ValidationError

from api.assignments.routes import (
    BODY_ADAPTER,
    MAX_QUESTIONS,
    AssignmentQuestion,
    _parse_body,
    parse_quickly,
)
from tests.engine.files.spoilt import spoilt

AT = "2027-06-01T12:00:00"
QUESTION = {
    "site": "creek",
    "at": f"{AT}+02:00",
    "key": "creek-1",
    "version": "v7",
    "episode": "e1",
    "confidence": 0.93,
    "attributes": {"weather": "dry"},
    "media": {"picture": "a.jpg"},
}
SEEN = {"revision": 41, "hash": "9f2c"}
NAMES = [field.name for field in fields(AssignmentQuestion)]
TIMES = [
    *(
        AT,
        f"{AT}Z",
        f"{AT}z",
        f"{AT}+00:00",
        f"{AT}-11:30",
        f"{AT}+0200",
        f"{AT}+02",
        f"{AT}-00:00",
    ),
    *(f"{AT}.5Z", f"{AT}.123456Z", f"{AT}.1234567Z", f"{AT}.9999999Z", f"{AT}.123456789+02:00"),
    *("2027-06-01T12:00Z", "2027-06-01", "20270601T120000Z", "2027-06-01 12:00:00Z", "1811851200"),
    *("2027-06-01t12:00:00Z", "2027-06-01_12:00:00Z", "2027-02-30T12:00:00Z", "T", "", "now"),
    *("2027-06-01T24:00:00Z", "2027-06-01T12:00:60Z", "2027-06-01T12:00:00+24:00", "0001-01-01"),
    *("9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2027-W22-2T12:00:00Z"),
]
EDGES: list[Any] = [
    *(None, True, 0, 1, -1, 1.5, -0.0, 1e300, 10**30, 2**53 - 1, 2**53, "", "a" * 200, "a" * 201),
    *("ö\ud83d\ude00", "\ud83d", "\0", [], {}, [1], {"a": 1}, {"a": None}, {"": "a"}, {"a": ""}),
    *({"a" * 201: "a"}, {"a": "a" * 2_001}, {str(n): "a" for n in range(101)}, *TIMES),
    *({"answers": {"alarm": "bear"}}, SEEN, SEEN | {"revision": 2**53}, SEEN | {"hash": "a" * 101}),
    *({"revision": 1}, SEEN | {"more": 1}, [QUESTION], [QUESTION, QUESTION | {"more": 1}]),
]


def told(asked):
    """Return what is asked, by its letters: 1 is not 1.0, and 12:00Z is not 14:00+02:00."""
    at = None if asked.at is None else asked.at.isoformat()
    return repr([at, *(getattr(asked, name) for name in NAMES if name != "at")])


def alike(body):
    """Assert that what is read quickly is what the forms read, and return whether it was."""
    quick = parse_quickly(body)
    if quick is None:
        return False
    form = BODY_ADAPTER.validate_json(body)
    assert not form.mixes_forms
    assert quick.is_batch is form.is_batch
    for one, other in zip(
        quick.questions if quick.is_batch else [quick],
        form.questions if form.is_batch else [form],
        strict=True,
    ):
        assert told(one) == told(other)
        assert (one.has_prediction, one.build_records()) == (
            other.has_prediction,
            other.build_records(),
        )
    assert (quick.ledger_head is None) is (form.ledger_head is None)
    if form.ledger_head is not None:
        assert (quick.ledger_head.revision, quick.ledger_head.hash) == (
            form.ledger_head.revision,
            form.ledger_head.hash,
        )
    return True


@pytest.mark.parametrize("name", [*NAMES, "ledger_head", "questions", "unheard_of"])
def test_every_limit_of_every_name_holds_quickly_as_by_the_forms(name):
    for edge in EDGES:
        one = json.dumps(QUESTION | {name: edge}).encode()
        alike(one)
        alike(b'{"questions": [%b]}' % one)


def test_what_boxes_send_is_read_quickly():
    assert alike(json.dumps(QUESTION).encode())
    assert alike(json.dumps(QUESTION | {"ledger_head": SEEN}).encode())
    assert alike(json.dumps({"questions": [QUESTION] * 3, "ledger_head": SEEN}).encode())
    assert alike(b"{}")
    assert alike(b'{"questions": []}')


@pytest.mark.parametrize("parts", ["1234567", "123456789"])
def test_a_time_in_less_than_microseconds_is_left_to_the_forms(parts):
    body = json.dumps(QUESTION | {"at": f"{AT}.{parts}Z"}).encode()
    assert parse_quickly(body) is None
    assert BODY_ADAPTER.validate_json(body).at.microsecond == 123_456


@pytest.mark.parametrize("said", [0.1234567890123456, 12.12345678, 1e-7])
def test_a_confidence_may_have_any_number_of_digits(said):
    assert alike(json.dumps(QUESTION | {"confidence": said, "at": f"{AT}.123456Z"}).encode())


@pytest.mark.parametrize(
    "at",
    [
        rf"{AT}.123456\u0037Z",
        rf"{AT}\u002e1234567Z",
        rf"{AT}\u002E\u0031234567Z",
        rf"{AT}\u0000.5Z",
    ],
)
def test_a_time_with_escaped_letters_is_left_to_the_forms(at):
    assert parse_quickly(b'{"at": "%b"}' % at.encode()) is None


def test_texts_with_escaped_letters_are_read_quickly():
    assert alike(json.dumps(QUESTION | {"site": "Z\u00fcrich", "key": '"\\/\n'}).encode())


@given(
    spoilt(
        json.dumps(QUESTION | {"at": f"{AT}.123456Z", "ledger_head": SEEN}),
        json.dumps({"questions": [QUESTION] * 2, "ledger_head": SEEN}),
        '{"site": "a", "at": "2027-06-01T12:00:00Z"}',
    )
)
def test_a_spoilt_body_is_read_as_the_forms_read_it_or_left_to_them(body):
    alike(body)


@pytest.mark.parametrize(
    "body",
    [
        {"questions": [QUESTION], "site": "creek"},
        {"questions": [QUESTION] * (MAX_QUESTIONS + 1)},
        QUESTION | {"prediction": {"answers": {}}},
        [QUESTION],
    ],
    ids=["both forms", "too many", "with a prediction", "a list"],
)
def test_what_a_struct_does_not_take_is_left_to_the_forms(body):
    assert parse_quickly(json.dumps(body).encode()) is None


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff"])
def test_what_is_no_question_is_left_to_the_forms(body):
    assert parse_quickly(body) is None
    with pytest.raises(ValidationError):
        BODY_ADAPTER.validate_json(body)


@pytest.mark.parametrize(("many", "told"), [(900, 900), (1_001, 1)])
def test_faults_by_the_thousand_are_not_told_one_by_one(many, told):
    body = json.dumps(QUESTION | {f"x{n}": 1 for n in range(many)}).encode()
    with pytest.raises(RequestValidationError) as raised:
        _parse_body(body)
    assert len(raised.value.errors()) == told

"""What a caller should know of an item is said of each, though most batches are looked at once."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import RecordReceipt, RecordStatus, StoredBatch
from rollout.engine.records.records import Action, Case, Decision, Outcome, Prediction
from rollout.features.records.record_notes import RecordNotes, add_note
from rollout.kernel.policy.evidence_sources import DEFAULT_SOURCES
from rollout.kernel.units import Lever, Margin, Number
from tests.factories import NOON

LEVERS = [
    Lever("parcel", labels=("sound", "damaged")),
    Lever("weight", number=Number("kg", 0, 100, Margin(1))),
    Lever("logos", labels=("nike", "puma"), many=True),
]
PROFIT = SimpleNamespace(id="profit", low=-20.0, high=60.0)
POLICY = SimpleNamespace(
    sites_by_id={"ramp": None},
    levers=LEVERS,
    outcomes=[PROFIT],
    evidence=SimpleNamespace(sources=DEFAULT_SOURCES),
)
ANSWERS = [
    {"parcel": "sound"},
    {"parcel": None},
    {"weight": "7"},
    {"parcel": "burnt", "weight": "7"},
    {"colour": "red"},
    {"logos": "nike;puma"},
    {"logos": "adidas"},
]
answers = st.sampled_from(ANSWERS)
records = st.lists(
    st.one_of(
        st.builds(
            Case,
            key=st.just("a"),
            site=st.sampled_from(["ramp", "moon"]),
            occurred_at=st.just(NOON),
            window=st.just("day"),
        ),
        st.builds(Prediction, key=st.just("a"), version=st.just("v"), answers=answers),
        st.builds(
            Decision,
            key=st.just("a"),
            reviewer=st.just("ana"),
            answers=answers,
            exposure=st.just("blind"),
        ),
        st.builds(
            Outcome,
            key=st.just("a"),
            at=st.just(NOON),
            answers=answers,
            values=st.sampled_from([{}, {"profit": -20}, {"profit": 75.5}]),
        ),
        st.just(
            Action(key="a", lever="parcel", action="x", by="person", at=NOON, permission="person")
        ),
    ),
    max_size=4,
)


def kept(said, verdicts):
    """Return what the store says of records that got these decisions."""
    accepted = defaultdict(list)
    for record, verdict in zip(said, verdicts, strict=True):
        if verdict is RecordStatus.ACCEPTED:
            accepted[RECORD_SCHEMAS[type(record)]].append(record)
    columns = {
        form: {"case_id": range(len(records)), **form.build_columns(records)}
        for form, records in accepted.items()
    }
    return StoredBatch(tuple(map(RecordReceipt, verdicts)), {}, set(), set(), columns)


@given(records, st.data())
def test_of_each_that_was_accepted_all_is_said(said, data):
    one = st.sampled_from([RecordStatus.ACCEPTED, RecordStatus.DUPLICATE, RecordStatus.CONFLICT])
    verdicts = data.draw(st.lists(one, min_size=len(said), max_size=len(said)))
    notes, became = RecordNotes(POLICY), kept(said, verdicts)
    each = [
        add_note(answer, notes.find_note(record))
        if answer.status is RecordStatus.ACCEPTED
        else answer
        for record, answer in zip(said, became.results, strict=True)
    ]
    assert list(notes.add_notes(said, became)) == each


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"parcel": "sound"}, ""),
        ({"weight": "7"}, ""),
        ({"parcel": "burnt"}, "burnt is no label of parcel: kept, counts as a disagreement"),
        ({"logos": "nike;puma"}, ""),
        (
            {"logos": "adidas;nike"},
            "adidas;nike is no set of labels of logos, each once: kept, counts as a disagreement",
        ),
        ({"colour": "red"}, "the policy has no lever colour: kept, not counted"),
    ],
)
def test_an_answer_that_counts_otherwise_than_meant_is_named(said, note):
    assert RecordNotes(POLICY).find_note(Prediction(key="a", version="v", answers=said)) == note


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (60, ""),
        (60.5, "profit 60.5 is outside -20 to 60: kept, counts as the nearer end"),
        (-21, "profit -21 is outside -20 to 60: kept, counts as the nearer end"),
    ],
)
def test_a_value_beyond_the_range_counts_as_its_end(value, note):
    outcome = Outcome(key="a", at=NOON, values={"profit": value})
    assert RecordNotes(POLICY).find_note(outcome) == note

"""What a caller should know of an item is said of each, though most batches are looked at once."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.records.records import Action, Case, Decision, Outcome, Prediction
from rollout.services.records.ingest import Notes, noted
from rollout.store.records.record_rows import FORM_OF
from rollout.store.records.records import Answer, Kept, Verdict
from tests.factories import NOON

LEVERS = [
    SimpleNamespace(id="parcel", labels=("sound", "damaged"), number=None),
    SimpleNamespace(id="weight", labels=(), number=object()),
]
POLICY = SimpleNamespace(site={"ramp": None}, levers=LEVERS)
ANSWERS = [
    {"parcel": "sound"},
    {"parcel": None},
    {"weight": "7"},
    {"parcel": "burnt", "weight": "7"},
    {"colour": "red"},
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
        st.builds(Outcome, key=st.just("a"), at=st.just(NOON), answers=answers),
        st.just(
            Action(key="a", lever="parcel", action="x", by="person", at=NOON, permission="person")
        ),
    ),
    max_size=4,
)


def kept(said, verdicts):
    """Return what the store says of records that got these verdicts."""
    accepted = defaultdict(list)
    for record, verdict in zip(said, verdicts, strict=True):
        if verdict is Verdict.ACCEPTED:
            accepted[FORM_OF[type(record)]].append(record)
    columns = {
        form: {"case_id": range(len(records)), **form.columns(records)}
        for form, records in accepted.items()
    }
    return Kept(tuple(map(Answer, verdicts)), {}, set(), set(), columns)


@given(records, st.data())
def test_of_each_that_was_accepted_all_is_said(said, data):
    one = st.sampled_from([Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT])
    verdicts = data.draw(st.lists(one, min_size=len(said), max_size=len(said)))
    notes, became = Notes(POLICY), kept(said, verdicts)
    each = [
        noted(answer, notes.on(record)) if answer.verdict is Verdict.ACCEPTED else answer
        for record, answer in zip(said, became.answers, strict=True)
    ]
    assert list(notes.answers(said, became)) == each


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"parcel": "sound"}, ""),
        ({"weight": "7"}, ""),
        ({"parcel": "burnt"}, "burnt is no label of parcel: kept, counts as a disagreement"),
        ({"colour": "red"}, "the policy has no lever colour: kept, not counted"),
    ],
)
def test_an_answer_that_counts_otherwise_than_meant_is_named(said, note):
    assert Notes(POLICY).on(Prediction(key="a", version="v", answers=said)) == note

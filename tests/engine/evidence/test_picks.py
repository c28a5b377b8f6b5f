"""Which revision of a record is evidence: the last one received before the first decision."""

from datetime import timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.evidence.picks import (
    find_first_decisions,
    pick_decisions,
    pick_for_guards,
    pick_replaced_decisions,
    pick_until_decision,
    vouch_for_files,
)
from tests.factories import HOUR, NOON


def revise(case_id, *receipts):
    """Return the revisions of a case, which were received at these times."""
    return [
        SimpleNamespace(case_id=case_id, revision=number, received_at=at)
        for number, at in enumerate(receipts, 1)
    ]


def pick(rows, first_decisions):
    """Return by case the revision that counts."""
    picked = pick_until_decision(rows, ("case_id",), first_decisions)
    return {row.case_id: row.revision for row in picked}


def test_a_correction_after_the_first_decision_is_left_out():
    rows = [*revise(1, 10, 20, 30), *revise(2, 10, 20), *revise(3, 50, 60), *revise(4, 10)]
    assert pick(rows, {1: 20, 2: 25, 3: 40}) == {1: 2, 2: 2, 3: 1, 4: 1}


def test_what_nobody_decided_counts_in_its_newest_revision():
    assert pick([*revise(1, 10, 20), *revise(2, 10)], {}) == {1: 2, 2: 1}


def test_records_without_corrections_count_whenever_they_came():
    assert pick([*revise(1, 10), *revise(2, 90)], {1: 20, 2: 20}) == {1: 1, 2: 1}


def test_a_case_is_decided_first_by_whatever_was_stated_or_received_first():
    decisions = [(1, None, 50), (1, 40, 60), (2, 70, 30), (4, 90, 95)]
    outcomes = [(1, 20, 80), (3, None, 5), (4, 91, 99)]
    firsts = find_first_decisions(
        [SimpleNamespace(case_id=c, submitted_at=at, received_at=r) for c, at, r in decisions],
        [SimpleNamespace(case_id=c, at=at, received_at=r) for c, at, r in outcomes],
    )
    assert firsts == {1: 20, 2: 30, 3: 5, 4: 90}


def test_guards_count_a_case_as_it_stood_when_it_was_decided_whoever_sent_it():
    sent = [(1, -2, 10), (1, -1, 20), (2, -2, 30), (2, -1, 25), (3, -1, 10), (3, 1, 20)]
    sent += [(4, -1, 10), (4, 1, 20), (5, 1, 10)]
    rows = [SimpleNamespace(case_id=c, revision=n, received_at=at) for c, n, at in sent]
    picked = pick_for_guards(rows, {1: 20, 2: 20, 3: 15})
    assert [(row.case_id, row.revision) for row in picked] == [(1, -1), (2, -1), (3, -1)]


def decide(reviewer, exposure, *, unsure=False, case_id=1):
    return SimpleNamespace(
        case_id=case_id,
        reviewer=reviewer,
        exposure=exposure,
        unsure=unsure,
        review=None,
        received_at=1,
    )


def replaced(*rows):
    """Return the positions of the answers that guards count beside those picked."""
    numbers = list(map(id, rows))
    return [numbers.index(id(row)) for row in pick_replaced_decisions(rows, pick_decisions(rows))]


@pytest.mark.parametrize("exposure", ["blind", "assisted"])
def test_an_answer_is_taken_back_by_none_and_by_what_its_reviewer_saw_since(exposure):
    first, slip = decide("ana", exposure), decide("ana", exposure)
    assert replaced(first, decide("ana", "revealed")) == [0]
    assert replaced(first, decide("Ana", exposure, unsure=True)) == [0]
    assert replaced(first, slip, decide("ana", "revealed")) == [1]


def test_an_answer_is_corrected_by_one_as_blind_and_no_other_person_changes_it():
    assert replaced(decide("ana", "blind"), decide("Ana", "blind")) == []
    assert replaced(decide("ana", "blind", unsure=True), decide("ana", "revealed")) == []
    assert replaced(decide("ana", "blind"), decide("bo", "blind", unsure=True)) == []
    assert replaced(decide("ana", "blind"), decide("ana", "revealed", case_id=2)) == []


def test_of_two_spellings_the_later_answer_counts_and_that_of_a_review_before_it():
    rows = [decide("Ana", "blind"), decide("ana", "blind")]
    assert list(pick_decisions(rows)) == rows[1:]
    asked = decide("ana", "blind")
    asked.review = 7
    assert list(pick_decisions([asked, *rows])) == [asked]


def test_of_several_vouched_accounts_files_are_read_by_the_one_with_the_least_time():
    receipts = [NOON + HOUR, NOON + HOUR + timedelta(microseconds=1)]
    cases = {"case_key": ["1", "2"], "occurred_at": NOON, "received_at": receipts}
    predictions = {"case_key": ["1", "2"], "at": receipts, "received_at": [None, receipts[1]]}
    empty = pl.DataFrame()
    files = RecordFrames(
        *(pl.DataFrame(cases), pl.DataFrame(predictions), empty, empty, empty, empty),
        row_counts={},
    )
    records = vouch_for_files(files, {"box": 5 * HOUR, "van": HOUR})
    known = [frame["known_at"].to_list() for frame in (records.cases, records.predictions)]
    assert known == [[NOON, receipts[1]]] * 2

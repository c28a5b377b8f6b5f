"""Who can write the database edits what a decision rests on: doctor and the hourly check see it."""

from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import text

from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.erasure.erasure import ErasureRequest, erase_name
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.tick_passes import Ticker
from tests.data.snapshots import filled_once
from tests.features.review_room import ANA, BO, DAY, MINUTE, Room, person, policy_text
from tests.features.stored_reviews import HIGH, SUPERVISED
from tests.live.test_evidence_check import attacking

pytestmark = pytest.mark.slow

ADMIN = person("dan", AssignedRole("admin"))
UPDATE = "update exposures set {0} where page = 'review' and content = 'prediction'"
ADDED = (
    "insert into exposures (rollout, case_id, reviewer, at, content, page)"
    " select rollout, case_id, reviewer, at - 600000000, 'decisions', page from exposures"
    " where content = 'prediction'"
)
EDITS = {
    "what was shown": UPDATE.format("content = 'decisions'"),
    "where": UPDATE.format("page = 'report'"),
    "when": UPDATE.format("at = at + 1"),
    "to whom": UPDATE.format("reviewer = 'mallory'"),
    "of what": UPDATE.format("case_id = case_id + 7"),
    "nothing was shown": "delete from exposures where content = 'prediction'",
    "more was shown": ADDED,
    "earlier figures": "update exposures set at = at - 1 where content = 'figures'",
    "no figures": "delete from exposures where content = 'figures'",
    "the kind of a task": "update reviews set kind = 'blind' where kind = 'assisted'",
    "its number": "update reviews set task_number = task_number + 4",
    "its site": "update reviews set site = 'lake'",
    "its version": "update reviews set version = 'v2'",
    "its begin": "update reviews set opened_at = opened_at + 1",
    "its deadline": "update reviews set due_at = due_at + 1",
    "its answer's deadline": "update reviews set answer_by = answer_by + 1",
    "its state": "update reviews set state = 'open' where state = 'done'",
    "its reviewer": "update reviews set reviewer = 'mallory' where state = 'done'",
    "its end": "update reviews set closed_at = closed_at + 1",
    "its claim": "update reviews set claimed_until = closed_at",
    "its case": "update reviews set case_id = case_id + 7",
    "a gold case": "update reviews set gold_answers = '{}', gold_decision = '{}'",
    "no task": "delete from reviews where state = 'done'",
}


@filled_once
def fill(database):
    """Let ana confirm a case, and bo decide one after its deadline who saw figures of it."""
    room = Room(database, SUPERVISED).arrive(HIGH)
    room.later(30 * MINUTE).done(ANA)
    late = Room(database, text=policy_text(), at=room.at).arrive("late")
    task = late.take(BO).review
    late.later(2 * DAY)
    with database.begin_write() as transaction:
        figures = ExposureStore(transaction, late.stood.rollout)
        figures.record_figures("bo", late.at, page="report")
    late.judge(BO, task)
    Ticker(database, "bears", "one").tick(late.at + timedelta(hours=1))
    assert not find_faults(database)


@pytest.fixture
def reviewed(database):
    fill(database)
    return database


def find_faults(database):
    """Return what doctor and the hourly check find; both the same."""
    report = EvidenceCheck(database, "bears").check_all()
    sample = EvidenceCheck(database, "bears").check_sample(99, Random(1))  # noqa: S311 - seeded
    assert set(sample.faults) <= set(report.faults)
    return sample.faults


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_of_what_a_counted_decision_rests_on_is_found(reviewed, edit):
    with attacking(reviewed, "exposures") as transaction:
        assert transaction.execute(text(edit)).rowcount
    faults = find_faults(reviewed)
    assert faults
    assert all(fault.startswith("the decision of case ") for fault in faults)


def test_what_was_shown_later_or_again_decides_nothing(reviewed):
    room = Room(reviewed, at=Room(reviewed).at + 9 * DAY)
    room.show(ANA, HIGH)
    room.later(DAY).show(ANA, HIGH, page="report")
    assert not find_faults(reviewed)


def test_a_name_that_is_erased_leaves_no_fault(reviewed):
    for name in ("ana", "bo"):
        erase_name(reviewed, ErasureRequest(ADMIN, "", "asked", Room(reviewed).at + 9 * DAY), name)
        assert not find_faults(reviewed)

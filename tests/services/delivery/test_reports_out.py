"""Who reads a channel is not known: what people may still judge unseen stays inside."""

import pytest

from rollout.core.records.records import Case, Decision, Prediction
from rollout.core.scope.commands import Person
from rollout.services.delivery.delivery import ReportsOut
from rollout.services.engine.policy_application import apply
from rollout.services.reports.schedule import Wanted
from rollout.store.database.rollouts import Rollouts
from rollout.store.records.records import Records
from rollout.store.reviews.reviews import NewReview, Reviews
from rollout.store.tables.columns import metadata
from tests.api.bears import POLICY
from tests.api.conftest import clock, door, service
from tests.factories import DAY, HOUR, NOON

__all__ = ["clock", "door", "service"]
WEEK = Wanted("week", "operator", NOON - 5 * DAY, NOON)


@pytest.fixture
def case(service):
    """Return the number of a case on which a version and a person differ."""
    apply(service.database, POLICY, Person("zoe"), NOON - 6 * DAY, salt=bytes(32))
    at = NOON - 3 * DAY
    records = [
        Case(key="trail-77", site="creek", occurred_at=at, window="day"),
        Prediction(key="trail-77", version="v1", answers={"alarm": "bear"}, at=at),
        Decision(
            key="trail-77",
            reviewer="pat",
            answers={"alarm": "none"},
            exposure="blind",
            submitted_at=at + HOUR,
        ),
    ]
    with service.database.writing() as transaction:
        rollout = Rollouts(transaction).find("bears")
        kept = Records(transaction, rollout).keep(records, received_at=at)
    return kept.case_ids["trail-77"]


def seat(service, case, kind="blind"):
    one = NewReview(case_id=case, kind=kind, seat=2, site="creek", opened_at=NOON, turn=0.5)
    with service.database.writing() as transaction:
        Reviews(transaction, Rollouts(transaction).find("bears")).open([one])


@pytest.fixture
def report(service, case):
    made = []
    ReportsOut(service).make("bears", WEEK, NOON, lambda _, number: made.append(number))
    (number,) = made
    return number


def test_a_report_is_written_out_with_what_differs(service, report):
    written = ReportsOut(service).write("bears", report)
    assert "trail-77" in written.page
    assert written.left_out == 0
    assert len(written.hash) == 64


def test_a_case_that_somebody_may_still_judge_unseen_is_left_out(service, case, report):
    sealed = ReportsOut(service).write("bears", report).hash
    seat(service, case)
    written = ReportsOut(service).write("bears", report)
    assert "trail-77" not in written.page + written.summary
    assert (written.left_out, written.hash) == (1, sealed)


def test_sending_notes_nobody_as_having_seen_a_case(service, case, report):
    ReportsOut(service).write("bears", report)
    with service.database.reading() as transaction:
        assert not transaction.execute(metadata.tables["exposures"].select()).all()


def test_what_says_nothing_new_is_the_version_that_is_there_and_is_queued_all_the_same(
    service, report
):
    again = []
    ReportsOut(service).make("bears", WEEK, NOON, lambda _, number: again.append(number))
    assert again == [report]

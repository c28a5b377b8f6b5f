"""Who reads a channel is not known: what people may still judge unseen stays inside."""

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.records.records import RecordStore
from rollout.data.reviews.reviews import NewReviewTask, ReviewTaskStore
from rollout.data.tables.record_tables import metadata
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.delivery.delivery import ReportPublisher
from rollout.features.reports.builder import ReportOptions
from rollout.live.policy_application import apply_policy
from tests.api.bears import POLICY
from tests.api.conftest import clock, door, service
from tests.factories import DAY, HOUR, NOON

pytestmark = pytest.mark.slow

__all__ = ["clock", "door", "service"]
WEEK = ("week", ReportOptions(NOON - 5 * DAY, NOON))


@pytest.fixture
def case(service):
    """Return the number of a case on which a version and a person differ."""
    apply_policy(
        service.database,
        POLICY,
        Actor("zoe"),
        NOON - 6 * DAY,
        salt=bytes(32),
        service_salt=bytes(32),
    )
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
    with service.database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("bears")
        kept = RecordStore(transaction, rollout).store(records, received_at=at)
    return kept.case_ids["trail-77"]


def seat(service, case, kind="blind"):
    one = NewReviewTask(
        case_id=case, kind=kind, task_number=2, site="creek", opened_at=NOON, sampling_value=0.5
    )
    with service.database.begin_write() as transaction:
        ReviewTaskStore(transaction, Rollouts(transaction).find("bears")).open_tasks([one])


@pytest.fixture
def report(service, case):
    made = []
    ReportPublisher(service).make_report(
        "bears", *WEEK, NOON, lambda _, number: made.append(number)
    )
    (number,) = made
    return number


def test_a_report_is_written_out_with_what_differs(service, report):
    written = ReportPublisher(service).render_report("bears", report)
    assert "trail-77" in written.html
    assert written.excluded_cases == 0
    assert len(written.hash) == 64


def test_a_case_that_somebody_may_still_judge_unseen_is_left_out(service, case, report):
    sealed = ReportPublisher(service).render_report("bears", report).hash
    seat(service, case)
    written = ReportPublisher(service).render_report("bears", report)
    assert "trail-77" not in written.html + written.summary
    assert (written.excluded_cases, written.hash) == (1, sealed)


def test_page_and_message_are_those_of_the_views_readers(service, report):
    asked = []

    def format_page(_, report_format, view):
        asked.append((report_format, view))
        return ""

    ReportPublisher(service, format_page=format_page).render_report("bears", report)
    assert asked == [("summary", "operator"), ("html", "operator")]


def test_sending_notes_nobody_as_having_seen_a_case(service, case, report):
    ReportPublisher(service).render_report("bears", report)
    with service.database.begin_read() as transaction:
        assert not transaction.execute(metadata.tables["exposures"].select()).all()


@pytest.mark.slow
def test_what_says_nothing_new_is_the_version_that_is_there_and_is_queued_all_the_same(
    service, report
):
    again = []
    ReportPublisher(service).make_report(
        "bears", *WEEK, NOON, lambda _, number: again.append(number)
    )
    assert again == [report]

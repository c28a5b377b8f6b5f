"""Reviewers are told of free tasks that end within the hour, and only of what they could do."""

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import RecordStore
from rollout.data.reviews.reviews import NewReviewTask, ReviewTaskStore
from rollout.engine.records.records import Case, Decision
from rollout.features.reviews.reviews import count_pending_reviews
from tests.factories import HOUR, MINUTE, NOON
from tests.features.notifications.mailing_list import build_user, choose, run_pass

TITLE = "bears: Reviews about to be missed"
DUE = NOON + 4 * HOUR


def open_task(database, key, due_at, site="creek", opened_at=NOON):
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("bears")
        case = Case(key=key, site=site, occurred_at=opened_at, window="day")
        RecordStore(transaction, rollout).store([case], received_at=opened_at)
        (case_id,) = ExternalKeys(transaction, rollout).find_ids({key}).values()
        task = NewReviewTask(
            case_id=case_id,
            kind="blind",
            task_number=1,
            site=site,
            opened_at=opened_at,
            sampling_value=0.5,
            due_at=due_at,
        )
        ReviewTaskStore(transaction, rollout).open_tasks([task])


@pytest.fixture
def run(service, mailroom, clock):
    def run_at(at):
        clock.at = at
        return sorted(m for m in run_pass(service, mailroom) if "Confirm" not in m[1])

    return run_at


@pytest.mark.slow
def test_a_reviewer_of_the_site_is_told_once_an_hour_before_the_end(
    service, database, run, mailroom
):
    for name in ("nora", "rita", "olga"):
        choose(service, name, ["reviews"])
    for key in ("c-1", "c-2"):
        open_task(database, key, DUE)
    open_task(database, "c-3", DUE, site="lake")
    open_task(database, "c-4", DUE + HOUR)
    assert run(DUE - HOUR - MINUTE) == []
    assert run(DUE - HOUR) == [("nora", TITLE), ("rita", TITLE)]
    assert "Can you review 2 cases due before" in mailroom.messages[-1].body
    assert run(DUE - MINUTE) == []
    assert run(DUE) == [("nora", TITLE), ("rita", TITLE)], "the task of the next hour"
    assert run(DUE + HOUR) == []


def test_the_message_of_an_hour_counts_every_task_that_ends_in_it(service, database, run, mailroom):
    choose(service, "nora", ["reviews"])
    open_task(database, "c-1", DUE + 5 * MINUTE)
    open_task(database, "c-2", DUE + 50 * MINUTE)
    open_task(database, "c-3", DUE + HOUR)
    assert run(DUE - 55 * MINUTE) == [("nora", TITLE)]
    assert "Can you review 2 cases due before" in mailroom.messages[-1].body
    assert run(DUE - 10 * MINUTE) == []


def test_a_task_that_opens_after_the_message_of_its_hour_is_on_the_page_as_the_message_says(
    service, database, run, mailroom
):
    choose(service, "nora", ["reviews"])
    open_task(database, "c-1", DUE + 5 * MINUTE)
    assert run(DUE - 55 * MINUTE) == [("nora", TITLE)]
    body = mailroom.messages[-1].body
    assert "Can you review 1 case due" in body
    assert "Cases that open after this message stand on the page only." in body
    open_task(database, "c-2", DUE + 50 * MINUTE, opened_at=DUE - 30 * MINUTE)
    assert run(DUE + 40 * MINUTE) == []
    assert count_pending_reviews(service, build_user("nora"), DUE - MINUTE) == {"bears": 2}


def test_a_task_that_just_opened_is_not_urgent(service, database, run):
    choose(service, "nora", ["reviews"])
    open_task(database, "c-1", NOON + 40 * MINUTE)
    assert run(NOON + 19 * MINUTE) == []
    assert run(NOON + 20 * MINUTE) == [("nora", TITLE)]


def test_who_decided_the_case_is_not_told(service, database, run):
    for name in ("nora", "rita"):
        choose(service, name, ["reviews"])
    open_task(database, "c-1", DUE)
    with database.begin_write() as transaction:
        decision = Decision(
            key="c-1",
            reviewer="nora",
            answers={"alarm": "none"},
            exposure="blind",
            submitted_at=NOON,
        )
        rollout = Rollouts(transaction).find("bears")
        RecordStore(transaction, rollout).store([decision], received_at=NOON)
    assert run(DUE - HOUR) == [("rita", TITLE)]

"""Choices for training stay in order and are purged with their cases."""

from dataclasses import replace

import pytest
from msgspec import structs

from rollout.data.counting.purge import list_old_cases, purge_records
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.records.reviews import DROP, KEEP, RELABEL, CleaningChoice, find_final_choices
from tests.data.records.test_records import CASE, keep
from tests.factories import DAY, HOUR, NOON

FIRST = CleaningChoice(key=CASE.key, lever="alarm", choice=RELABEL, label="bear", by="mia", at=NOON)
SECOND = replace(FIRST, choice=KEEP, label=None, reason="it is a bear", at=NOON + HOUR)
OTHER = replace(FIRST, key="other", choice=DROP, label=None, version="v7", report="R-1")


@pytest.fixture
def rollout(database):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create("bear-alarm", salt=bytes(range(32)), at=NOON)


@pytest.fixture
def numbers(database, rollout):
    keep(database, rollout, CASE, structs.replace(CASE, key="other", occurred_at=NOON + 2 * DAY))
    with database.begin_write() as transaction:
        found = ExternalKeys(transaction, rollout).find_ids([CASE.key, "other"])
        chosen = [(found[one.key], one) for one in (FIRST, OTHER, SECOND)]
        CleaningStore(transaction, rollout).add(chosen)
    return found


def read(database, rollout, **asked):
    with database.begin_read() as transaction:
        return CleaningStore(transaction, rollout).list_page(**asked)


def test_every_choice_stays_and_the_last_one_holds(database, rollout, numbers):
    with database.begin_read() as transaction:
        made = CleaningStore(transaction, rollout).list_for_cases(numbers.values())
    assert made == [FIRST, OTHER, SECOND]
    assert find_final_choices(made) == {(CASE.key, "alarm"): SECOND, ("other", "alarm"): OTHER}


def test_choices_are_asked_for_by_case(database, rollout, numbers):
    with database.begin_read() as transaction:
        assert CleaningStore(transaction, rollout).list_for_cases([numbers["other"]]) == [OTHER]
        assert CleaningStore(transaction, rollout).list_for_cases([]) == []


def test_pages_go_back_from_the_newest(database, rollout, numbers):
    first = read(database, rollout, limit=2)
    assert [one.choice for one in first] == [SECOND, OTHER]
    rest = read(database, rollout, before=first[-1].number)
    assert [one.choice for one in rest] == [FIRST]


def test_another_rollouts_choices_are_not_there(database, rollout, numbers):
    with database.begin_write() as transaction:
        other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert read(database, other) == []
    keep(database, other, CASE)
    with database.begin_write() as transaction:
        theirs = ExternalKeys(transaction, other).find_ids([CASE.key])[CASE.key]
        CleaningStore(transaction, other).add([(theirs, replace(FIRST, by="bo"))])
    assert [one.choice.by for one in read(database, rollout, limit=1)] == ["mia"]


def test_choices_leave_with_their_cases_and_no_others(database, rollout, numbers):
    with database.begin_write() as transaction:
        old = list_old_cases(transaction, rollout, before=NOON + DAY, limit=9)
        gone = purge_records(transaction, rollout, before=NOON + DAY, case_ids=old, revision=1).rows
    assert gone == {"cases": 1, "cleanings": 2}
    assert [one.choice for one in read(database, rollout)] == [OTHER]

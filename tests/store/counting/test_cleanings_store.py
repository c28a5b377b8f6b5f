"""Choices stay as they were made, in their order, and leave with their cases."""

from dataclasses import replace

import pytest

from rollout.core.records.label_cleaning import DROP, KEEP, RELABEL, Choice, holding
from rollout.store.counting.purge import old_cases, purge
from rollout.store.database.rollouts import Rollouts
from rollout.store.records.external_keys import CallerKeys
from rollout.store.reviews.cleanings import Cleanings
from tests.factories import DAY, HOUR, NOON
from tests.store.records.test_records import CASE, keep

FIRST = Choice(key=CASE.key, lever="alarm", choice=RELABEL, label="bear", by="mia", at=NOON)
SECOND = replace(FIRST, choice=KEEP, label=None, reason="it is a bear", at=NOON + HOUR)
OTHER = replace(FIRST, key="other", choice=DROP, label=None, version="v7", report="R-1")


@pytest.fixture
def rollout(database):
    with database.writing() as transaction:
        return Rollouts(transaction).create("bear-alarm", salt=bytes(range(32)), at=NOON)


@pytest.fixture
def numbers(database, rollout):
    keep(database, rollout, CASE, replace(CASE, key="other", occurred_at=NOON + 2 * DAY))
    with database.writing() as transaction:
        found = CallerKeys(transaction, rollout).find([CASE.key, "other"])
        chosen = [(found[one.key], one) for one in (FIRST, OTHER, SECOND)]
        Cleanings(transaction, rollout).add(chosen)
    return found


def read(database, rollout, **asked):
    with database.reading() as transaction:
        return Cleanings(transaction, rollout).page(**asked)


def test_every_choice_stays_and_the_last_one_holds(database, rollout, numbers):
    with database.reading() as transaction:
        made = Cleanings(transaction, rollout).of(numbers.values())
    assert made == [FIRST, OTHER, SECOND]
    assert holding(made) == {(CASE.key, "alarm"): SECOND, ("other", "alarm"): OTHER}


def test_choices_are_asked_for_by_case(database, rollout, numbers):
    with database.reading() as transaction:
        assert Cleanings(transaction, rollout).of([numbers["other"]]) == [OTHER]
        assert Cleanings(transaction, rollout).of([]) == []


def test_pages_go_back_from_the_newest(database, rollout, numbers):
    first = read(database, rollout, limit=2)
    assert [one.choice for one in first] == [SECOND, OTHER]
    rest = read(database, rollout, before=first[-1].number)
    assert [one.choice for one in rest] == [FIRST]


def test_another_rollouts_choices_are_not_there(database, rollout, numbers):
    with database.writing() as transaction:
        other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert read(database, other) == []
    keep(database, other, CASE)
    with database.writing() as transaction:
        theirs = CallerKeys(transaction, other).find([CASE.key])[CASE.key]
        Cleanings(transaction, other).add([(theirs, replace(FIRST, by="bo"))])
    assert [one.choice.by for one in read(database, rollout, limit=1)] == ["mia"]


def test_choices_leave_with_their_cases_and_no_others(database, rollout, numbers):
    with database.writing() as transaction:
        old = old_cases(transaction, rollout, before=NOON + DAY, limit=9)
        gone = purge(transaction, rollout, before=NOON + DAY, case_ids=old)
    assert gone == {"cases": 1, "cleanings": 2}
    assert [one.choice for one in read(database, rollout)] == [OTHER]

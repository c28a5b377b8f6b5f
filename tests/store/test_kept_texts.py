"""Policies, versions and reports: kept as they came, found again."""

from dataclasses import replace
from hashlib import sha256

import pytest

from rollout.store.policies import Policies
from rollout.store.reports import Report, Reports
from rollout.store.rollouts import Rollouts
from rollout.store.versions import VersionFacts, Versions
from tests.factories import DAY, HOUR, NOON

REPORT = Report("week", NOON, NOON + 7 * DAY, "report-1", '{"ä":1}', NOON + 8 * DAY)


@pytest.fixture
def transaction(database):
    with database.writing() as made:
        yield made


@pytest.fixture
def rollout(transaction):
    return Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)


def test_a_policy_is_found_by_the_hash_of_its_text(transaction, rollout):
    policies = Policies(transaction, rollout)
    said = policies.keep("rollout: bären\n", by="ana", at=NOON)
    assert said == sha256("rollout: bären\n".encode()).hexdigest()
    assert policies.keep("rollout: bären\n", by="bo", at=NOON + HOUR) == said
    assert policies.texts([said, "unknown"]) == {said: "rollout: bären\n"}
    assert policies.texts([]) == {}


def test_what_is_said_of_a_version_stands_beside_what_was_said_before(transaction, rollout):
    versions, seen = Versions(transaction, rollout), VersionFacts("v1", "prediction")
    assert versions.tell(seen, at=NOON)
    assert not versions.tell(seen, at=NOON + HOUR)
    trained = replace(seen, source="ana", trained_until=NOON - DAY, about={"parent": "v0"})
    assert versions.tell(trained, at=NOON + HOUR)
    versions.tell(VersionFacts("v0", "import"), at=NOON + DAY)
    known = versions.all()
    assert list(known) == ["v1", "v0"]
    assert (known["v1"].first_seen_at, known["v1"].facts) == (NOON, trained)


def test_a_report_is_sealed_once_under_its_hash(transaction, rollout):
    reports = Reports(transaction, rollout)
    number = reports.seal(REPORT)
    assert reports.seal(replace(REPORT, made_at=NOON + 9 * DAY)) == number
    assert reports.get(number) == REPORT
    assert reports.get(number).hash == sha256(REPORT.body.encode()).hexdigest()
    assert reports.get(number + 1) is None


def test_reports_are_listed_newest_first(transaction, rollout):
    reports = Reports(transaction, rollout)
    numbers = [reports.seal(replace(REPORT, body=str(n))) for n in range(3)]
    assert [number for number, _ in reports.before(limit=2)] == numbers[:0:-1]
    assert [number for number, _ in reports.before(numbers[1])] == numbers[:1]


def test_a_report_of_another_rollout_is_not_found(transaction, rollout):
    number = Reports(transaction, rollout).seal(REPORT)
    other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert Reports(transaction, other).get(number) is None
    assert Reports(transaction, other).before() == []

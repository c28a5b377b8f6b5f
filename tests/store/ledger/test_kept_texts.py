"""Policies, versions and reports: kept as they came, found again."""

from dataclasses import replace
from hashlib import sha256

import pytest
from sqlalchemy.exc import IntegrityError

from rollout.store.database.rollouts import Rollouts
from rollout.store.ledger.policies import Policies
from rollout.store.ledger.versions import VersionFacts, Versions
from rollout.store.reports.reports import Report, Reports
from tests.factories import DAY, HOUR, NOON

REPORT = Report(
    name="week",
    since=NOON,
    until=NOON + 7 * DAY,
    version=1,
    state="provisional",
    due=NOON + 9 * DAY,
    view="engineer",
    schema="report-1",
    body='{"ä":1}',
    divergences="case_key\n",
    made_at=NOON + 8 * DAY,
    sealed_in=12,
)


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


def test_a_report_is_kept_as_it_is_under_its_hash(transaction, rollout):
    reports = Reports(transaction, rollout)
    number = reports.seal(REPORT)
    assert reports.get(number) == REPORT
    assert reports.get(number).hash == sha256(REPORT.body.encode()).hexdigest()
    assert reports.get(number + 1) is None


def test_a_version_is_kept_once(transaction, rollout):
    reports = Reports(transaction, rollout)
    reports.seal(REPORT)
    with pytest.raises(IntegrityError):
        reports.seal(replace(REPORT, body="another"))


def test_the_last_version_of_a_span_is_found(transaction, rollout):
    reports = Reports(transaction, rollout)
    assert reports.last("week", REPORT.since, REPORT.until) is None
    reports.seal(REPORT)
    newer = replace(REPORT, version=2, body="2")
    number = reports.seal(newer)
    reports.seal(replace(REPORT, since=NOON + DAY, body="3"))
    reports.seal(replace(REPORT, name="month", body="4"))
    assert reports.last("week", REPORT.since, REPORT.until) == (number, newer)


def test_reports_are_listed_newest_first_without_their_texts(transaction, rollout):
    reports = Reports(transaction, rollout)
    made = [replace(REPORT, version=n, body=str(n)) for n in (1, 2, 3)]
    numbers = [reports.seal(one) for one in made]
    assert [found.id for found in reports.before(limit=2)] == numbers[:0:-1]
    (first,) = reports.before(numbers[1])
    assert (first.version, first.hash, first.due) == (1, made[0].hash, REPORT.due)
    assert [found.id for found in reports.before(name="week")] == numbers[::-1]
    assert reports.before(name="month") == []


def test_a_report_of_another_rollout_is_not_found(transaction, rollout):
    number = Reports(transaction, rollout).seal(REPORT)
    other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert Reports(transaction, other).get(number) is None
    assert Reports(transaction, other).before() == []
    assert Reports(transaction, other).last("week", REPORT.since, REPORT.until) is None

"""Policies, versions and reports are stored unchanged and found again."""

from dataclasses import replace
from hashlib import sha256

import pytest
from sqlalchemy.exc import IntegrityError

from rollout.data.database.rollouts import PolicyTexts, Rollouts
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.data.reports.reports import ReportStore, StoredReport
from rollout.engine.decide.scope import Scope
from rollout.live.rollout_state import find_first_names
from tests.factories import DAY, HOUR, NOON, policy

REPORT = StoredReport(
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
    with database.begin_write() as made:
        yield made


@pytest.fixture
def rollout(transaction):
    return Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)


def test_a_policy_is_found_by_the_hash_of_its_text(transaction, rollout):
    policies = PolicyTexts(transaction, rollout)
    said = policies.store_text("rollout: bären\n", by="ana", at=NOON)
    assert said == sha256("rollout: bären\n".encode()).hexdigest()
    assert policies.store_text("rollout: bären\n", by="bo", at=NOON + HOUR) == said
    assert policies.load_texts([said, "unknown"]) == {said: "rollout: bären\n"}
    assert policies.load_texts([]) == {}


def test_what_is_said_of_a_version_stands_beside_what_was_said_before(transaction, rollout):
    versions, seen = VersionStore(transaction, rollout), VersionInfo("v1", "prediction")
    assert versions.record_info(seen, at=NOON)
    assert not versions.record_info(seen, at=NOON + HOUR)
    trained = replace(seen, source="ana", trained_until=NOON - DAY, about={"parent": "v0"})
    assert versions.record_info(trained, at=NOON + HOUR)
    versions.record_info(VersionInfo("v0", "import"), at=NOON + DAY)
    known = versions.list_all()
    assert list(known) == ["v1", "v0"]
    assert (known["v1"].first_seen_at, known["v1"].info) == (NOON, trained)


def sealed(report):
    """Return a report as it is read: with the seal that its text has."""
    return replace(report, seal=sha256(report.body.encode()).hexdigest())


def test_a_report_is_kept_as_it_is_under_its_hash(transaction, rollout):
    reports = ReportStore(transaction, rollout)
    number = reports.store(REPORT)
    assert reports.get(number) == sealed(REPORT)
    assert reports.get(number).hash == sha256(REPORT.body.encode()).hexdigest()
    assert reports.get(number + 1) is None


def test_a_version_is_kept_once(transaction, rollout):
    reports = ReportStore(transaction, rollout)
    reports.store(REPORT)
    with pytest.raises(IntegrityError):
        reports.store(replace(REPORT, body="another"))


def test_the_last_version_of_a_span_is_found(transaction, rollout):
    reports = ReportStore(transaction, rollout)
    assert reports.find_newest("week", REPORT.since, REPORT.until) is None
    reports.store(REPORT)
    newer = replace(REPORT, version=2, body="2")
    number = reports.store(newer)
    reports.store(replace(REPORT, since=NOON + DAY, body="3"))
    reports.store(replace(REPORT, name="month", body="4"))
    assert reports.find_newest("week", REPORT.since, REPORT.until) == (number, sealed(newer))


def test_reports_are_listed_newest_first_without_their_texts(transaction, rollout):
    reports = ReportStore(transaction, rollout)
    made = [replace(REPORT, version=n, body=str(n)) for n in (1, 2, 3)]
    numbers = [reports.store(one) for one in made]
    assert [found.id for found in reports.list_before(limit=2)] == numbers[:0:-1]
    (first,) = reports.list_before(numbers[1])
    assert (first.version, first.hash, first.due) == (1, made[0].hash, REPORT.due)
    assert [found.id for found in reports.list_before(name="week")] == numbers[::-1]
    assert reports.list_before(name="month") == []


def test_a_report_of_another_rollout_is_not_found(transaction, rollout):
    number = ReportStore(transaction, rollout).store(REPORT)
    other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert ReportStore(transaction, other).get(number) is None
    assert ReportStore(transaction, other).list_before() == []
    assert ReportStore(transaction, other).find_newest("week", REPORT.since, REPORT.until) is None


def test_a_name_that_is_stored_later_is_received_later_whatever_its_clock(transaction, rollout):
    versions, content = VersionStore(transaction, rollout), {"content": "ab" * 32}
    for name, at, about in (("b", NOON, content), ("a", NOON - HOUR, content), ("c", NOON, {})):
        versions.record_info(VersionInfo(name, "assignment", about=about), at=at)
    versions.record_info(VersionInfo("c", "assignment", about=content), at=NOON - HOUR)
    versions.record_info(VersionInfo("b", "assignment", NOON, about=content), at=NOON + HOUR)
    stored = versions.list_all()
    assert stored["b"].declared_at < stored["a"].declared_at < stored["c"].declared_at
    assert stored["c"].first_seen_at == stored["b"].declared_at == NOON
    assert find_first_names(Scope(), policy(), stored) == {"a": "b", "c": "b"}

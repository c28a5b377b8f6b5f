"""A report that was changed behind the service's back is found by comparing the seals."""

import pytest
from sqlalchemy import text

from rollout.features.process.health_checks import run_health_checks
from rollout.features.reports.builder import ReportOptions, create_report
from tests.data.snapshots import filled_once
from tests.features.review_room import Room

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
SEALS = "bears: reports match their seals in the ledger"


@pytest.fixture
def bears(database):
    seal_two(database)
    return database


@filled_once
def seal_two(database):
    room = Room(database)
    create_report(database, "bears", "week", ReportOptions(), room.at)
    create_report(database, "bears", "month", ReportOptions(), room.at)


def faults(database):
    found = {check.title: check.faults for check in run_health_checks(database)}
    return found[SEALS]


def test_untouched_reports_have_no_fault(bears):
    assert faults(bears) == ()


@on_sqlite
@pytest.mark.parametrize(
    "change",
    [
        "update reports set body = replace(body, 'operator', 'operato') where id = 1",
        "update reports set body = replace(body, 'bears', 'wolves'), hash = 'new' where id = 1",
        "update reports set divergences = 'none' where id = 1",
        "update reports set hash = 'other' where id = 1",
        "update reports set sealed_revision = 1 where id = 1",
        "update reports set body = 'none' where id = 1",
        "delete from reports where id = 1",
    ],
)
def test_a_report_that_was_changed_is_found(bears, change):
    with bears.begin_write() as transaction:
        for what in ("update", "delete"):
            transaction.execute(text(f"drop trigger reports_refuses_{what}"))
        transaction.execute(text(change))
    assert faults(bears)

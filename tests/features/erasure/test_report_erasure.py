"""Cases and names leave sealed reports, which still verify."""

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reports.reports import ReportStore
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case, erase_name
from rollout.features.reports import archive
from rollout.features.reports.archive import find_seal_faults
from rollout.features.reports.builder import ReportCallbacks, draft_here
from rollout.features.reports.figures.report_version import compute_seal
from rollout.features.reports.inputs.pictures import embed_picture
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import DAY, NOON
from tests.features.erasure.traces import find_traces
from tests.features.reports.test_builder import VIEWER, WEEK, bears, make, send

pytestmark = pytest.mark.slow

__all__ = ["bears", "database", "url"]
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
REQUEST = ErasureRequest(ADMIN, "bears", "asked", NOON + DAY + timedelta(hours=1))


def find_faults(database):
    with database.begin_read() as transaction:
        return list(find_seal_faults(transaction, Rollouts(transaction).find("bears")))


def load_report(database, number):
    return archive.load_report(database, VIEWER, "bears", number, NOON + DAY)


@pytest.mark.slow
def test_a_case_leaves_a_sealed_report_which_still_verifies(bears):
    made = make(bears, NOON + DAY)
    assert "case-3" in made.report.body
    assert "case-3" in made.report.divergences
    result = erase_case(bears, REQUEST, "case-3")
    assert result.reports == 1
    assert find_traces(bears, "case-3") == []
    assert find_faults(bears) == []
    view = load_report(bears, made.number)
    assert compute_seal(archive.format_report(view, "json").decode()) == made.report.hash
    pages = [archive.format_report(view, form).decode() for form in archive.REPORT_FORMATS]
    assert not any("case-3" in page for page in pages)
    assert archive.format_report(view, "csv").decode().startswith("case_key,")
    assert view.body["agreements"] == json.loads(made.report.body)["agreements"]


@pytest.mark.slow
@on_sqlite
def test_a_key_with_odd_letters_leaves_a_report_and_keeps_no_other_in_it(bears):
    at, keys = NOON + timedelta(hours=3), ["a\nkey", 'a "key"', "=key", "🦅, née"]
    for key in keys:
        send(bears, Case(key=key, site="creek", occurred_at=at, window="day"), received=at)
        send(bears, Prediction(key=key, version="v1", answers={"alarm": "bear"}), received=at)
        decision = Decision(
            key=key, reviewer="ana\nroe", answers={"alarm": "none"}, exposure="blind"
        )
        send(bears, decision, received=at)
    made = make(bears, NOON + DAY)
    assert archive.format_report(load_report(bears, made.number), "csv").count(b",creek,") == 5
    for count, key in enumerate(["case-3", *keys], start=1):
        erase_case(bears, REQUEST, key)
        table = archive.format_report(load_report(bears, made.number), "csv")
        assert table.count(b",creek,") == 5 - count
        spellings = (key, json.dumps(key)[1:-1], key.replace('"', '""'))
        assert [find_traces(bears, spelling) for spelling in spellings] == [[], [], []]
    assert find_faults(bears) == []


@pytest.mark.slow
@on_sqlite
def test_a_picture_is_shown_from_the_case_and_never_sealed(bears):
    picture = embed_picture(b"GIF89a a bear")
    case = Case(
        key="case-3", site="creek", occurred_at=NOON + timedelta(hours=3), window="day",
        media={"front": picture}, revision=2,
    )  # fmt: skip
    send(bears, case, received=NOON + timedelta(hours=4))
    made = make(bears, NOON + DAY)
    assert picture not in made.report.body
    page = archive.format_report(load_report(bears, made.number), "html").decode()
    assert picture in page
    erase_case(bears, REQUEST, "case-3")
    assert find_traces(bears, picture) == []
    assert picture not in archive.format_report(load_report(bears, made.number), "html").decode()


@on_sqlite
@pytest.mark.parametrize(("erase", "subject"), [(erase_case, "case-3"), (erase_name, "ana\nroe")])
def test_nobody_waits_while_reports_without_the_subject_are_read(
    bears, monkeypatch, erase, subject
):
    """A report that has it is read once more, in the transaction that erases."""
    decision = Decision(
        key="case-3", reviewer="ana\nroe", answers={"alarm": "none"}, exposure="blind", revision=2
    )
    send(bears, decision, received=NOON + timedelta(hours=4))
    with_it = make(bears, NOON + DAY).number
    earlier = replace(WEEK, since=NOON - 3 * DAY, until=NOON - DAY)
    without = make(bears, NOON + DAY, asked=earlier).number
    reads, writing = [], []
    load, begin = ReportStore.get, Database.begin_write

    def load_noting(store, number):
        reads.append((number, bool(writing)))
        return load(store, number)

    @contextmanager
    def begin_noting(database, *arguments, **options):
        with begin(database, *arguments, **options) as transaction:
            writing.append(transaction)
            yield transaction
            writing.pop()

    monkeypatch.setattr(ReportStore, "get", load_noting)
    monkeypatch.setattr(Database, "begin_write", begin_noting)
    assert erase(bears, REQUEST, subject).rows
    assert reads == [(with_it, False), (without, False), (with_it, True)]
    assert find_traces(bears, subject) == []


@pytest.mark.slow
@on_sqlite
def test_a_second_erasure_keeps_the_seal_too(bears):
    made = make(bears, NOON + DAY)
    keys = list_keys(bears)
    for key in keys:
        erase_case(bears, REQUEST, key)
    assert find_faults(bears) == []
    view = load_report(bears, made.number)
    assert compute_seal(archive.format_report(view, "json").decode()) == made.report.hash
    assert archive.format_report(view, "csv").count(b"\n") == 1


@pytest.mark.slow
@on_sqlite
def test_a_name_leaves_a_sealed_report_which_still_verifies(bears):
    made = make(bears, NOON + DAY)
    assert '"ana"' in made.report.body
    erase_name(bears, ErasureRequest(ADMIN, "", "asked", NOON + DAY), "ana")
    assert find_traces(bears, '"ana"') == []
    assert find_faults(bears) == []
    assert "(erased)" in archive.format_report(load_report(bears, made.number), "html").decode()


@on_sqlite
def test_an_edit_of_a_sealed_part_is_found(bears):
    made = make(bears, NOON + DAY)
    edited = made.report.body.replace("case-3", "case-4")
    assert edited != made.report.body
    assert compute_seal(edited) != made.report.hash


def list_keys(database):
    with database.begin_read() as transaction:
        return list(ExternalKeys(transaction, Rollouts(transaction).find("bears")).iterate_keys())


@on_sqlite
def test_a_case_that_is_erased_while_a_report_is_drafted_is_not_in_it(bears):
    drafts = []

    def draft_report(*arguments):
        drafts.append(draft_here(*arguments))
        if len(drafts) == 1:
            erase_case(bears, REQUEST, "case-3")
        return drafts[-1]

    made = make(bears, NOON + DAY, callbacks=ReportCallbacks(draft_report=draft_report))
    assert ["case-3" in draft.report.body for draft in drafts] == [True, False]
    assert (made.number, made.report.sealed_in > drafts[-1].revision) == (1, True)
    assert find_traces(bears, "case-3") == []

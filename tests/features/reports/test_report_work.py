"""Reports in processes of their own: the same as in this one, its errors, and what it leaves."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.features.delivery.delivery import ReportPublisher
from rollout.features.reports import archive
from rollout.features.reports.builder import (
    STEPS,
    NothingToReportError,
    ReportCallbacks,
    ReportOptions,
    draft_here,
)
from rollout.features.reports.figures import report_version
from rollout.features.reports.report_work import COMMAND, ReportWork
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import NoSuchRolloutError
from rollout.live.service import build_service
from rollout.live.work import user_runs
from rollout.live.work.user_runs import MAX_WORKING, ProcessFailedError
from tests.factories import DAY, NOON
from tests.features.reports.test_builder import VIEWER, WEEK, bears, ledger, make, on_sqlite

__all__ = ["bears"]
pytestmark = pytest.mark.slow
BROKEN = (sys.executable, "-c", "")
MODULE = COMMAND[-1]


class ClaimLostError(Exception):
    """Another replica has the claim."""


def draft(database, draft_report, options=WEEK, rollout="bears", steps=None):
    on_step = (lambda *_: None) if steps is None else lambda *step: steps.append(step)
    return draft_report(database, rollout, "week", options, NOON + DAY, on_step)


def serve(database):
    return build_service(database, None, ManualClock(NOON + DAY), bytes)


def without_salt(made):
    return replace(made, report=replace(made.report, body="", seal=""))


def test_a_draft_of_a_process_is_the_draft_of_this_one(bears):
    steps = []
    apart = draft(bears, ReportWork().draft_report, steps=steps)
    here = draft(bears, draft_here)
    assert without_salt(apart) == without_salt(here)
    assert len(apart.report.body) == len(here.report.body)
    assert steps == [(name, number, len(STEPS)) for number, name in enumerate(STEPS)]


def test_it_is_sealed_here_once_and_found_unchanged_by_the_next_process(bears):
    callbacks = ReportCallbacks(draft_report=ReportWork().draft_report)
    made = make(bears, NOON + DAY, callbacks=callbacks)
    again = make(bears, NOON + DAY, callbacks=callbacks)
    assert made.is_new
    assert (again.number, again.is_new, again.report) == (made.number, False, made.report)
    assert sum(row.kind == "ReportSealed" for row in ledger(bears)) == 1


def test_errors_are_those_of_this_process(bears):
    work = ReportWork()
    with pytest.raises(NothingToReportError, match="is yet to come"):
        draft(bears, work.draft_report, ReportOptions(until=NOON + 9 * DAY))
    with pytest.raises(NoSuchRolloutError):
        draft(bears, work.draft_report, rollout="wolves")
    with pytest.raises(report_version.UnreadableReportError, match="made it in another form"):
        work.format_page({"schema": "rollout-report/9"}, "html", None)


def test_a_process_that_breaks_leaves_nothing(bears):
    before = ledger(bears)
    callbacks = ReportCallbacks(draft_report=ReportWork(BROKEN).draft_report)
    with pytest.raises(ProcessFailedError):
        make(bears, NOON + DAY, callbacks=callbacks)
    assert ledger(bears) == before


@on_sqlite  # no process that draws a page opens a database
def test_pages_are_those_of_this_process_and_drawn_once(bears, tmp_path):
    made = make(bears, NOON + DAY)
    shown = archive.load_report(bears, VIEWER, "bears", made.number, NOON + DAY)
    starts = tmp_path / "starts"
    noted = f"open({str(starts)!r}, 'a').write('.'); import runpy;"
    run = f"runpy.run_module({MODULE!r}, run_name='__main__')"
    work = ReportWork((sys.executable, "-P", "-c", noted + run))
    for form, view in (("html", None), ("html", "auditor"), ("summary", None)) * 2:
        page = archive.format_report(shown, form, view, work.format_page)
        assert page == archive.format_report(shown, form, view), (form, view)
    assert starts.read_text() == "..."
    identity = {**shown.body["identity"], "product": "another program"}
    other = replace(shown, body={**shown.body, "identity": identity})
    assert b"another program" in archive.format_report(other, "html", None, work.format_page)


def test_pages_that_are_kept_have_an_end(monkeypatch, bears):
    monkeypatch.setattr("rollout.features.reports.report_work.MAX_KEPT", 25)
    work = ReportWork()
    monkeypatch.setattr(work._drawing, "run_in_place", lambda values: values["view"] * 10)
    for view in ("a", "b", "c", "b", "d"):
        assert work.format_page({}, "html", view) == view * 10
    assert list(work._pages.values()) == ["b" * 10, "d" * 10]
    work.format_page({}, "html", "long")
    assert list(work._pages.values()) == ["b" * 10, "d" * 10], (
        "a page too long for all pushed some out"
    )


def test_readers_of_one_page_who_come_at_once_have_it_drawn_at_most_once_a_place(monkeypatch):
    work, drawn = ReportWork(), []

    def draw(_process, values, read_message, _longest_seconds):
        drawn.append(values)
        time.sleep(0.3)
        read_message({"result": "page"})

    monkeypatch.setattr(user_runs, "start_process", lambda _command: None)
    monkeypatch.setattr(user_runs, "follow_process", draw)
    with ThreadPoolExecutor(8) as readers:
        pages = list(readers.map(lambda _: work.format_page({}, "html", None), range(8)))
    assert set(pages) == {"page"}
    assert len(drawn) <= MAX_WORKING


SPYING = """
import json, os, sys
values = json.loads(sys.stdin.readline())
words = open("/proc/self/cmdline").read()
print(json.dumps({"error": json.dumps([values["database"], words, dict(os.environ)])}))
"""


def test_the_address_of_the_database_is_in_no_command_line_and_no_environment(bears, monkeypatch):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", "postgresql://ada:hunter2@db/rollout")
    with pytest.raises(ProcessFailedError) as raised:
        draft(bears, ReportWork((sys.executable, "-c", SPYING)).draft_report)
    address, words, environment = json.loads(str(raised.value))
    assert address == bears.engine.url.render_as_string(hide_password=False)
    assert address not in words
    assert not [name for name in environment if name.startswith("ROLLOUT_")]


REPLICA = """
import sys
from datetime import datetime
from rollout.features.reports.builder import ReportOptions
from rollout.features.reports.report_work import ReportWork
from rollout.data.database.session import Database
endless = (
    "import os, time; from rollout.live.work.user_runs import *;"
    "answer_parent(lambda _: (report_step(str(os.getpid()), 0, 1), time.sleep(600)))"
)
tell = lambda step, *_: print(step, flush=True)
work = ReportWork((sys.executable, "-P", "-c", endless))
work.draft_report(Database(sys.argv[1]), "bears", "week", ReportOptions(), datetime.now(), tell)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_replica_that_ends_ends_its_process(tmp_path, number):
    words = [sys.executable, "-c", REPLICA, f"sqlite:///{tmp_path / 'none.db'}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as replica:
        child = int(replica.stdout.readline())
        replica.send_signal(number)
        replica.wait(timeout=60)
    for _ in range(600):
        if not is_running(child):
            return
        time.sleep(0.1)
    raise AssertionError("it goes on")


def is_running(process):
    """Return whether a process runs; one that has ended may wait for its parent."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_scheduled_report_is_sealed_with_its_deliveries_or_not_at_all(bears):
    """The process only computes: what stands beside a report is written with it, here."""
    work = ReportWork()
    publisher = ReportPublisher(serve(bears), work.draft_report, work.format_page)

    def lose(_transaction, _number):
        raise ClaimLostError

    before = ledger(bears)
    with pytest.raises(ClaimLostError):
        publisher.make_report("bears", "week", WEEK, NOON + DAY, lose)
    assert ledger(bears) == before
    numbers = []
    publisher.make_report(
        "bears", "week", WEEK, NOON + DAY, lambda _, number: numbers.append(number)
    )
    rendered = publisher.render_report("bears", numbers[0])
    assert rendered == ReportPublisher(serve(bears)).render_report("bears", numbers[0])

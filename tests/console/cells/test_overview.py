"""The overview: what waits, how each rollout stands, what happened since one was here."""

import re
from datetime import timedelta

import pytest

from api.cells.overview_pages import (
    VISITS_COOKIE,
    _format_heading,
    build_rollout_card,
    describe_deciding_models,
)
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor, StopCells
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.cells import overview
from rollout.features.cells.overview import load_rollout_summaries
from rollout.features.proposals import proposals
from rollout.kernel.calendar.instants import Cell
from rollout.live.checkpoint_keys import CheckpointTargets
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.service import build_service
from tests.api import bears
from tests.data.databases import fresh
from tests.factories import DAY, NOON
from tests.features import bear_field
from tests.features.access.test_sign_in import counted_statements

VIC = Caller("vic", role_assignments=(AssignedRole("viewer"),))
BO = Caller("bo", role_assignments=(AssignedRole("operator"),))
SCRIPT = "<script>alert(1)</script>"


def test_a_proposal_waits_for_whoever_may_approve_it_and_for_nobody_else(browser, database):
    bears.tick(database, NOON)
    page = browser.as_("ana").page("/")
    assert "1 pending task" in page
    assert "Widen creek · day to supervised" in page
    assert "0 of 2 approvals" in page
    assert 'href="/console/rollouts/bears/proposals/P-1"' in page
    for name in ("vic", "ada", "rita"):
        assert "No pending tasks" in browser.as_(name).page("/")


def test_an_admin_is_warned_while_nobody_could_see_that_a_ledger_was_rewritten(browser, service):
    words = "No head of a ledger is signed: no key."
    assert words not in browser.as_("ada").page("/")
    object.__setattr__(service, "checkpoints", CheckpointTargets(fault="no key"))
    assert words in browser.page("/")
    assert words not in browser.as_("vic").page("/")


def test_what_one_approved_already_waits_for_the_other(browser, database):
    bears.tick(database, NOON)
    scope = bears.scope_of(database)
    proposals.approve_proposal(
        database, BO, "bears", "P-1", scope.proposals["P-1"].evidence_hash, at=NOON
    )
    assert "No pending tasks" in browser.as_("bo").page("/")
    assert "1 of 2 approvals" in browser.as_("ana").page("/")


def test_hours_outside_every_window_are_in_the_legend_if_a_map_has_them(browser, database):
    words = "Outside every window: humans decide"
    assert words not in browser.as_("vic").page("/")
    text = bears.POLICY.replace("rollout: bears", "rollout: nights")
    night = text.replace("{id: night, hours: 24/7}", '{id: night, hours: "20:00-04:00"}')
    assert night != text
    apply_policy(database, night, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    assert words in browser.page("/")


def test_a_task_says_that_its_cell_is_stopped(browser, database):
    bears.tick(database, NOON)
    assert "stopped now" not in browser.as_("ana").page("/")
    ana = Actor("ana", (AssignedRole("operator"),))
    stop = StopCells(at=NOON, by=ana, cells=frozenset({bears.CREEK}))
    execute_command(database, "bears", lambda _: stop)
    page = browser.page("/")
    assert "Widen creek · day to supervised" in page
    assert "stopped now" in page


@pytest.mark.slow
def test_a_stop_and_its_resume_come_before_widenings(browser, database):
    bears.tick(database, NOON, cells=(bears.CREEK, bears.LAKE))
    stop(database, bears.LAKE)

    def list_tasks(name):
        tasks = browser.as_(name).page("/").partition('id="waits"')[2].partition("</ul>")[0]
        return re.findall(r'<p class="strong">([^<]*)</p>.*?href="/console([^"]*)">([^<]*)', tasks)

    stops = "/rollouts/bears/stops"
    first, *others = list_tasks("ana")
    assert first == ("Stopped: 1 cell at lake", stops, "Request resume")
    assert [link for _, _, link in others] == ["Read and decide"] * 2
    assert "Stopped: 1 cell" not in browser.as_("vic").page("/")
    ((held, _),) = bears.scope_of(database).stops.items()
    asked = browser.as_("ana").submit(f"{stops}/{held}/resume", on=stops).headers["location"]
    first, *others = list_tasks("bo")
    assert (first[1], first[2]) == (asked.removeprefix("/console"), "Read and decide")
    assert len(others) == 2
    assert len(list_tasks("ana")) == 2


@pytest.mark.slow
def test_each_rollout_says_how_many_cells_stand_where(browser, database):
    page = browser.as_("vic").page("/")
    assert "Shadow everywhere." in page
    assert "No model decides alone" in page
    assert "No case yet" in page
    bears.widened(database, NOON, bears.CREEK)
    page = browser.page("/")
    assert "3 of 4 cells shadow, 1 supervised." in page
    assert "v1 acting" in page
    traffic = "<dt>Traffic</dt><dd>No case yet"
    assert traffic in browser.page("/rollouts/bears")
    assert traffic not in browser.as_("cleo").page("/rollouts/bears")


def test_who_operates_one_site_reads_of_that_site_alone(browser, database):
    bears.widened(database, NOON, bears.LAKE)
    page = browser.as_("cleo").page("/")
    assert "Shadow everywhere." in page
    assert "lake" not in page.split("</header>")[1]


def test_what_happened_at_a_site_that_left_the_policy_is_told_still(browser, database):
    bears.widened(database, NOON, bears.CREEK)
    gone = bears.POLICY.replace("sites: [creek, {id: lake, lease: 12h}]", "sites: [lake]")
    apply_policy(database, gone, Actor("zoe"), NOON + DAY)
    assert "v1 widened to supervised" in browser.as_("vic").page("/")


def test_a_stop_is_said_with_its_word_and_place(browser, database, service):
    bears.widened(database, NOON, bears.CREEK)
    stop(database, bears.CREEK)
    page = browser.as_("vic").page("/")
    assert "Stopped</span> creek · day" in page
    assert "Stopped: bears creek · day. No model decides alone" in page
    assert "1 stopped" in page


def stop(database, *cells):
    by = Actor("bo", ("operator",))
    execute_command(database, "bears", lambda _: StopCells(at=NOON, by=by, cells=frozenset(cells)))


def test_the_lede_names_where_models_decide_alone(database, service):
    lines = load_rollout_summaries(service, VIC, NOON)
    assert describe_deciding_models([build_rollout_card(line, NOON) for line in lines]).startswith(
        "No model decides"
    )


def test_overdue_ticks_are_named(database, service, browser):
    bears.widened(database, NOON)
    service.autonomy.overdue = {"bears": timedelta(minutes=11)}
    assert "Ticks overdue" in browser.as_("vic").page("/")
    service.autonomy.overdue = {}
    assert "Ticks overdue" not in browser.page("/")


def test_while_ticks_are_overdue_no_model_is_said_to_decide(tmp_path, service, clock):
    (tmp_path / "field").mkdir()
    with fresh("sqlite", tmp_path / "field") as url:
        database = Database(url)
        bear_field.autonomous(database)
        own = build_service(database, service.authenticator, clock)
        for overdue, words in ({}, "A model decides"), ({"bears": DAY}, "No model decides alone"):
            own.autonomy.overdue = overdue
            (summary,) = load_rollout_summaries(own, VIC, NOON)
            card = build_rollout_card(summary, NOON)
            assert words in describe_deciding_models([card])
        database.close()


def test_headings_count_in_words():
    assert _format_heading(0, 0) == "No pending tasks"
    assert _format_heading(1, 0) == "1 pending task"
    assert _format_heading(2, 7) == "9 pending tasks"
    assert _format_heading(30, 1) == "31 pending tasks"


def test_since_one_was_here_begins_with_the_visit_before(browser, database, clock):
    browser.as_("vic").page("/")
    assert VISITS_COOKIE in browser.cookies
    bears.tick(database, NOON + timedelta(minutes=1))
    clock.advance(timedelta(hours=1))
    page = browser.page("/")
    assert "Since your last visit" in page
    assert "P-1: widening of v1 to supervised proposed" in page
    clock.advance(timedelta(hours=1))
    assert "Nothing changed." in browser.page("/")


def test_an_admin_without_a_rollout_is_led_to_the_first_one_and_others_to_their_rights(browser):
    assert "Create a rollout" not in browser.as_("ada").page("/")


def test_what_a_site_is_called_is_text(browser, database):
    odd = bears.POLICY.replace("creek,", f'"{SCRIPT}",').replace("bears", "odd")
    apply_policy(database, odd, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))
    cells = frozenset({Cell(SCRIPT, "day")})
    by = Actor("bo", ("operator",))
    execute_command(database, "odd", lambda _: StopCells(at=NOON, by=by, cells=cells))
    page = browser.as_("vic").page("/")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; · day" in page


RECENT = "Cells with events in the last 7 days"


def test_cells_with_events_of_seven_days_have_a_small_timeline(browser, database, clock):
    assert RECENT not in browser.as_("vic").page("/")
    bears.widened(database, NOON, bears.CREEK)
    part = browser.page("/").split(RECENT)[1].split("</section>")[0]
    assert 'href="/console/rollouts/bears/cells/creek/day"' in part
    assert part.count("<svg") == part.count("<li>") <= overview.MAX_RECENT_CELLS
    assert "v1 widened to supervised" in part
    assert "cells/lake" not in browser.as_("cleo").page("/")  # who reads of the creek alone
    clock.advance(8 * DAY)
    assert RECENT not in browser.as_("vic").page("/")


@pytest.mark.slow
def test_small_timelines_cost_a_handful_of_statements(browser, database, monkeypatch):
    bears.widened(database, NOON, bears.CREEK)
    bears.widened(database, NOON, bears.LAKE)
    counts = []
    for most in (0, 1, 2):
        monkeypatch.setattr(overview, "MAX_RECENT_CELLS", most)
        browser.as_("vic").page("/")
        with counted_statements(database) as statements:
            browser.page("/")
        counts.append(len(statements))
    assert counts[0] < counts[1] == counts[2] <= counts[0] + 12

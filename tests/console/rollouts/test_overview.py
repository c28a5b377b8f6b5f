"""The overview: what waits, how each rollout stands, what happened since one was here."""

from datetime import timedelta

from api.console.page.last_visit import COOKIE
from api.console.rollouts.overview import _heading
from api.console.rollouts.rollout_summary import glance, lede
from rollout.core.calendar.sites import Cell
from rollout.core.scope.commands import Person, StopCells
from rollout.core.scope.permissions import Caller, Right
from rollout.services.cells.overview import board
from rollout.services.engine.command_handler import carry_out
from rollout.services.engine.policy_application import apply
from rollout.services.proposals import proposals
from tests.api import bears
from tests.factories import DAY, NOON

VIC = Caller("vic", rights=(Right("viewer"),))
BO = Caller("bo", rights=(Right("operator"),))
SCRIPT = "<script>alert(1)</script>"


def test_a_proposal_waits_for_whoever_may_approve_it_and_for_nobody_else(browser, database):
    bears.tick(database, NOON)
    page = browser.as_("ana").page("/")
    assert "One thing waits for you" in page
    assert "Widen creek · day to supervised" in page
    assert "0 of 2 approvals" in page
    assert 'href="/console/rollouts/bears/proposals/P-1"' in page
    for name in ("vic", "ada", "rita"):
        assert "Nothing waits for you" in browser.as_(name).page("/")


def test_what_one_approved_already_waits_for_the_other(browser, database):
    bears.tick(database, NOON)
    scope = bears.scope_of(database)
    proposals.approve(database, BO, "bears", "P-1", scope.proposals["P-1"].evidence, at=NOON)
    assert "Nothing waits" in browser.as_("bo").page("/")
    assert "1 of 2 approvals" in browser.as_("ana").page("/")


def test_each_rollout_says_how_many_cells_stand_where(browser, database):
    page = browser.as_("vic").page("/")
    assert "Shadow everywhere." in page
    assert "No model decides anything alone" in page
    assert "No case yet" in page
    bears.widened(database, NOON, bears.CREEK)
    page = browser.page("/")
    assert "3 of 4 cells shadow, 1 supervised." in page
    assert "v1 acting" in page


def test_who_operates_one_site_reads_of_that_site_alone(browser, database):
    bears.widened(database, NOON, bears.LAKE)
    page = browser.as_("cleo").page("/")
    assert "Shadow everywhere." in page
    assert "lake" not in page.split("</header>")[1]


def test_what_happened_at_a_site_that_left_the_policy_is_told_still(browser, database):
    bears.widened(database, NOON, bears.CREEK)
    gone = bears.POLICY.replace("sites: [creek, {id: lake, lease: 12h}]", "sites: [lake]")
    apply(database, gone, Person("zoe"), NOON + DAY)
    assert "v1 goes up to supervised" in browser.as_("vic").page("/")


def test_a_stop_is_said_with_its_word_and_place(browser, database, service):
    bears.widened(database, NOON, bears.CREEK)
    stop(database, bears.CREEK)
    page = browser.as_("vic").page("/")
    assert "Stopped</span> creek · day" in page
    assert "1 stopped" in page


def stop(database, *cells):
    by = Person("bo", ("operator",))
    carry_out(database, "bears", lambda _: StopCells(at=NOON, by=by, cells=frozenset(cells)))


def test_the_lede_names_where_models_decide_alone(database, service):
    lines = board(service, VIC, NOON)
    assert lede([glance(line, NOON) for line in lines]).startswith("No model decides")


def test_headings_count_in_words():
    assert _heading(0, 0) == "Nothing waits for you"
    assert _heading(1, 0) == "One thing waits for you"
    assert _heading(2, 7) == "Nine things wait for you"
    assert _heading(30, 1) == "31 things wait for you"


def test_since_one_was_here_begins_with_the_visit_before(browser, database, clock):
    browser.as_("vic").page("/")
    assert COOKIE in browser.cookies
    bears.tick(database, NOON + timedelta(minutes=1))
    clock.move(timedelta(hours=1))
    page = browser.page("/")
    assert "Since you were last here" in page
    assert "P-1: widening of v1 to supervised proposed" in page
    clock.move(timedelta(hours=1))
    assert "Nothing changed." in browser.page("/")


def test_an_admin_without_a_rollout_is_led_to_the_first_one_and_others_to_their_rights(browser):
    assert "Begin a rollout" not in browser.as_("ada").page("/")


def test_what_a_site_is_called_is_text(browser, database):
    odd = bears.POLICY.replace("creek,", f'"{SCRIPT}",').replace("bears", "odd")
    apply(database, odd, Person("zoe"), NOON - DAY, salt=bytes(32))
    cells = frozenset({Cell(SCRIPT, "day")})
    by = Person("bo", ("operator",))
    carry_out(database, "odd", lambda _: StopCells(at=NOON, by=by, cells=cells))
    page = browser.as_("vic").page("/")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; · day" in page

"""The rollout's page and that of one cell: what is allowed, what comes next, for whom, safely."""

import re
from datetime import timedelta
from html import unescape

import pytest

from rollout.engine.decide.commands import Actor, AddVersion, StopCells
from rollout.engine.words.formatting import OPENING_NOTE
from rollout.engine.words.state_text import CELL_STATES
from rollout.features.access.users import load_local_caller
from rollout.features.cells.cell_table import load_cell_page
from rollout.features.divergences.closed_units import load_action_changes
from rollout.features.proposals.proposals import approve_proposal, list_pending_approvals
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import Cell, to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import Ticker
from tests.api import bears
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.factories import BETWEEN, HOUR, MET, NOON
from tests.live.test_live import BY_CASE, STORY, replayed

BEARS = "/rollouts/bears"
CREEK = f"{BEARS}/cells/creek/day"
HOSTILE = "</td><script>alert('x')</script>\"'`{{7*7}}☃"


def plain(text):
    """Return a page's text without tags, each run of spaces as one."""
    inline = re.sub(r"</?(a|span|strong|time)\b[^>]*>", "", text)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", inline)))


def region(page, name):
    """Return what a section of a page holds, by its heading's id."""
    return page.split(f'aria-labelledby="{name}"')[1].split("</section>")[0]


@pytest.mark.slow
def test_the_first_sentence_says_what_is_allowed_now(browser, database):
    assert "Humans decide everything." in browser.as_("vic").page(BEARS)
    bears.widened(database, NOON)
    said = plain(browser.page(BEARS))
    assert "Humans confirm v1 at creek by day. Humans decide everything else." in said


def test_whoever_may_approve_is_led_to_what_closes_first(browser, database):
    bears.tick(database, NOON, cells=(bears.CREEK, bears.LAKE))
    page = browser.as_("ana").page(BEARS)
    assert "2 widenings need your approval." in page
    assert "creek · day and lake · day. The first one is open until" in plain(page)
    assert f'class="btn btn-primary" href="/console{BEARS}/proposals"' in page
    assert page.count("btn-primary") == 1


def test_whoever_may_not_approve_is_told_that_it_waits_for_others(browser, database):
    bears.tick(database, NOON)
    page = browser.as_("vic").page(BEARS)
    assert "1 widening needs approval by others." in page
    assert "creek · day has met its gate for supervised. Needs 2 more approvals" in plain(page)
    assert "btn-primary" not in page


def test_one_widening_alone_leads_to_its_page(browser, database):
    bears.tick(database, NOON)
    page = browser.as_("ana").page(BEARS)
    assert f'class="btn btn-primary" href="/console{BEARS}/proposals/P-1"' in page


@pytest.mark.slow
def test_a_stop_leads_to_its_own_next_step_before_any_widening(browser, service):
    database = service.database
    bears.tick(database, NOON, cells=(bears.CREEK, bears.LAKE))
    stop = StopCells(at=NOON, by=Actor("bo"), cells=frozenset({bears.LAKE}))
    execute_command(database, "bears", lambda _: stop)

    def read_step(name):
        page = browser.as_(name).page(BEARS)
        assert page.count("btn-primary") == 1
        return re.search(r'class="btn btn-primary" href="/console([^"]*)">([^<]*)<', page).groups()

    stops = f"{BEARS}/stops"
    assert read_step("ana") == (stops, "Request resume")
    assert read_step("vic") == (stops, "Active stops")  # operates nothing
    ((held, _),) = bears.scope_of(database).stops.items()
    location = browser.as_("ana").submit(f"{stops}/{held}/resume", on=stops).headers["location"]
    assert read_step("ana") == (stops, "Active stops")
    assert read_step("bo") == (location.removeprefix("/console"), "Read and decide")


def test_a_stopped_cell_keeps_the_end_of_its_withheld_grant(browser, database):
    bears.widened(database, NOON)
    stop = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK,))
    execute_command(database, "bears", lambda _: stop)
    cells = plain(region(browser.as_("vic").page(BEARS), "cells-h"))
    assert cells.count("(withheld)") == 1


def test_a_stopped_cell_that_no_version_holds_has_no_end(browser, database):
    stop = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK,))
    execute_command(database, "bears", lambda _: stop)
    assert "(withheld)" not in plain(browser.as_("vic").page(BEARS))


def test_hours_outside_every_window_are_said_to_be_of_humans(browser, database):
    outside = "Outside every window, humans decide."
    assert outside not in browser.as_("vic").page(BEARS)
    by_day = bears.POLICY.replace(", {id: night, hours: 24/7}]", "]")
    assert by_day != bears.POLICY
    apply_policy(database, by_day, Actor("zoe"), NOON)
    page = browser.page(BEARS)
    assert outside in plain(page)
    assert "Outside every window: humans decide" in plain(page)
    (entry,) = re.findall(r"<li>((?:(?!<li>).)*?)Outside every window: ", page)
    assert 'class="p-outside"' in entry
    assert plain(entry).strip() == ""  # as on the map: no letters


def test_a_note_on_openings_stands_only_where_a_cell_has_opened(browser, database):
    bears.tick(database, NOON)
    assert OPENING_NOTE not in _with_plain_spaces(browser.as_("vic").page(BEARS))
    bears.widened(database, NOON)
    assert OPENING_NOTE in _with_plain_spaces(browser.page(BEARS))


def _with_plain_spaces(page):
    return unescape(page).replace("\N{NO-BREAK SPACE}", " ")


def test_my_own_yes_leaves_nothing_for_me(browser, database, service):
    bears.tick(database, NOON)
    browser.as_("ana")
    scope = bears.scope_of(database)
    stood = service.state_cache.reload_rollout("bears").state
    ana = load_local_caller(database, "ana")
    assert [p.id for p in list_pending_approvals(stood, ana, at=NOON)] == ["P-1"]
    assert "1 widening needs your approval." in browser.page(BEARS)
    evidence = scope.proposals["P-1"].evidence_hash
    approve_proposal(database, ana, "bears", "P-1", evidence, at=NOON)
    assert "1 widening needs approval by others." in browser.page(BEARS)
    assert "ana approved" in plain(browser.page(BEARS))
    assert "1 widening needs your approval." in browser.as_("bo").page(BEARS)


def test_the_map_says_what_the_table_of_cells_says(browser, database):
    bears.widened(database, NOON, bears.CREEK)
    page = browser.as_("vic").page(BEARS)
    said = unescape(re.search(r'<desc id="week-d">([^<]*)</desc>', page)[1])
    rows = region(page, "cells-h").split('<th role="rowheader"')[1:]
    told = {}
    for row in rows:
        cell = plain(re.search(r"<a [^>]*>([^<]*)</a>", row)[1])
        stage = plain(re.search(r'class="stage-name">([^<]*)<', row)[1]).strip().lower()
        told[cell] = stage
    assert told == {
        "creek · day": "supervised",
        "creek · night": "shadow",
        "lake · day": "shadow",
        "lake · night": "shadow",
    }
    for cell, stage in told.items():
        site, window = cell.split(" · ")
        words = re.search(rf"{site}: ([^.]*)\.", said)[1]
        assert words == f"{stage} everywhere" or f"{stage} by {window}" in words


def test_a_stopped_cell_stands_with_bars_its_tag_and_the_reason(browser, database):
    bears.widened(database, NOON)
    stop = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK,), reason=HOSTILE)
    execute_command(database, "bears", lambda _: stop)
    page = browser.as_("ana").page(BEARS)
    assert '<path class="p-held"' in page
    assert "<script>alert" not in page
    assert HOSTILE in unescape(page)
    assert "Stopped at creek by day: humans decide there." in plain(page)
    assert f'href="/console{BEARS}/stops"' in page


def test_each_cell_says_what_its_grant_is_and_who_gave_it(browser, database):
    bears.widened(database, NOON)
    grants = plain(browser.as_("vic").page(BEARS).split("<h2>Grants</h2>")[1])
    assert "creek · day, supervised" in grants
    assert "dan and eve" in grants


def test_limits_say_how_soon_a_stop_arrives_and_which_policy_holds(browser):
    text = plain(browser.as_("vic").page(BEARS).split("<h2>Limits</h2>")[1])
    assert "creek within 1 min 1 s, lake within 12 h 1 min. No drill yet." in text
    assert "Number 1" in text
    assert "None: every cell may reach autonomous." in text


def test_waves_and_freezes_are_told(browser, database):
    more = bears.POLICY.replace(
        "takeover: shadow",
        "takeover: shadow\n"
        "waves: {stage: supervised, hold: 7d, at_once: 3, settle: 1d}\n"
        "freezes: [{hours: 'Jun 05', reason: fair}]\n"
        "limits: [{never_above: supervised, windows: [night]}]\n",
    )
    apply_policy(database, more.replace("lake, lease", "lake, wave: 2, lease"), Actor("zoe"), NOON)
    text = plain(browser.as_("vic").page(BEARS).split("<h2>Limits</h2>")[1])
    assert "1: creek; 2: lake." in text
    assert "0 of at most 3 cells widened within the last 1 d." in text
    assert "fair, Jun 05: nothing widens; narrowing still works. Next: Sat 5 Jun 00:00 UTC." in text
    assert "Everywhere by night: never above supervised." in text


def test_who_reads_one_site_sees_that_one_alone(browser, database):
    bears.widened(database, NOON, bears.LAKE)
    bears.widened(database, NOON + HOUR, bears.CREEK)
    page = browser.as_("cleo").page(BEARS)
    assert "lake" not in page
    assert "creek · day" in page
    browser.page(f"{BEARS}/cells/lake/day", 403)
    assert f"{BEARS}/ledger" not in page
    assert "To read it, you need permission to read every site" in page
    assert f"{BEARS}/ledger" in browser.as_("vic").page(BEARS)


def test_a_reviewer_is_shown_nothing_of_a_rollout(browser):
    browser.as_("rita").page(BEARS, 403)
    browser.page(CREEK, 403)


def test_a_rollout_or_cell_that_is_not_there_is_a_page_that_says_so(browser):
    browser.as_("ana").page("/rollouts/nothing", 404)
    page = browser.page(f"{BEARS}/cells/creek/dusk", 404)
    assert "Refused: the policy has no creek · dusk" in page


def test_who_sees_no_other_rollout_learns_no_name_of_one(browser, database):
    other = bears.POLICY.replace("rollout: bears", "rollout: secret")
    apply_policy(database, other, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    assert "secret" not in browser.as_("cleo").page("/rollouts/nothing", 404)
    for path in ("/rollouts/secret", "/rollouts/secret/cells/creek/day"):
        assert "Refused: no rollout secret that cleo may see" in browser.page(path, 404)


def test_one_cell_leads_to_its_own_stop_and_narrowing(browser, database):
    bears.widened(database, NOON)
    page = browser.as_("cleo").page(CREEK)
    assert f'href="/console{BEARS}/stop?target=cell/creek/day"' in page
    assert browser.get(f"/console{BEARS}/stop?target=cell/creek/day").status_code == 200
    assert f'href="/console{BEARS}/narrow?target=cell/creek/day"' in page
    stop = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK,))
    execute_command(database, "bears", lambda _: stop)
    stopped = browser.page(CREEK)
    assert f'href="/console{BEARS}/stops">Request resume</a>' in stopped
    assert "Stop this cell" not in stopped
    assert "Narrow this cell" in stopped
    seen = browser.as_("vic").page(CREEK)
    assert "Request resume" not in seen
    assert "Stop this cell" not in seen
    assert "Only operators of creek can stop or narrow." in seen


def test_one_cell_tells_its_own_history_and_guards(browser, database):
    bears.widened(database, NOON, bears.LAKE)
    bears.widened(database, NOON + HOUR, bears.CREEK)
    page = plain(browser.as_("vic").page(CREEK))
    assert "v1 widened to supervised" in page
    assert page.count("widened to") == 1
    assert "agreement at least 93 % One stage down No alarm" in page


@pytest.fixture
def story(database, clock, service):
    """Return a browser's service with a rollout whose records were counted."""
    clock.advance(count_story(database) - clock.now())
    return service


@filled_once
def count_story(database):
    """Count the records of a story; return the last slot's instant."""
    policy = parse_policy(BY_CASE)
    history = a_history(STORY, policy)
    slots, _ = replayed(history, policy, None)
    first, last = to_instant(slots[0], policy.tick), to_instant(slots[-20], policy.tick)
    apply_policy(database, BY_CASE, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    Ticker(database, "story", "one").tick(last)
    return last


@pytest.mark.slow
def test_evidence_stands_against_its_lines_with_bound_and_counts(story, browser):
    page = browser.as_("vic").page("/rollouts/story")
    cells = region(page, "cells-h")
    assert re.search(r'aria-label="[\d.]+\s%, at least [\d.]+\s%, threshold [\d.]+\s%"', cells)
    assert re.search(r"\d+ of \d+; threshold \d+", plain(cells))


def test_actions_are_compared_on_the_same_cases_with_their_interval(story, browser):
    text = plain(browser.as_("vic").page("/rollouts/story"))
    assert re.search(
        r"[+−]?[\d.]+, between [+−]?[\d.]+ and [+−]?[\d.]+ \(95\s%, [\d,]+ cases\)", text
    )


def test_one_cells_evidence_is_drawn_with_its_table(story, browser):
    page = browser.as_("vic").page("/rollouts/story")
    first = re.search(r'href="/console(/rollouts/story/cells/[^"]+)"', page)[1]
    own = browser.page(first)
    assert 'class="g-low"' in own
    assert "The same in numbers" in own
    assert "a unit without a decision counts as a difference" in plain(own)
    assert "Minimums of the gate count from the start of the present stage" in plain(own)
    ids = re.findall(r' id="([^"]+)"', own)
    assert len(ids) == len(set(ids))


def test_every_page_asks_the_core_whose_turn_it_is(database, service):
    bears.tick(database, NOON)
    stood = service.state_cache.reload_rollout("bears").state
    for name, turns in {"ana": 1, "vic": 0, "sue": 0, "cleo": 1}.items():
        found = list_pending_approvals(stood, load_local_caller(database, name), at=NOON)
        assert len(found) == turns, name


def test_a_row_is_shown_for_each_cell_a_page_at_a_time(database, service):
    ana = load_local_caller(database, "ana")
    found = load_cell_page(service, ana, "bears", at=NOON, first_index=1, limit=2)
    assert [row.cell for row in found.rows] == [Cell("creek", "night"), Cell("lake", "day")]
    assert (found.first_index, found.next_index) == (1, 3)
    assert load_cell_page(service, ana, "bears", at=NOON, first_index=3, limit=2).next_index is None


def test_more_cells_than_a_page_holds_lead_on(browser, database):
    sites = ", ".join(f"s{n}" for n in range(20))
    many = bears.POLICY.replace("[creek, {id: lake, lease: 12h}]", f"[{sites}]")
    apply_policy(
        database,
        many.replace("rollout: bears", "rollout: many"),
        Actor("zoe"),
        NOON,
        salt=bytes(32),
    )
    page = browser.as_("vic").page("/rollouts/many")
    assert "1–25 of 40 cells" in page
    assert 'href="/console/rollouts/many?from=25#cells-h"' in page
    further = browser.page("/rollouts/many?from=25")
    assert "26–40 of 40 cells" in further
    assert "Next cells" not in further
    assert "20 sites: shadow everywhere." in further
    browser.page("/rollouts/many?from=-1", 422)


def test_names_with_everything_in_them_are_text_and_addresses_hold(browser, database):
    site = "a/b?c#d <i>\"'&"
    odd = bears.POLICY.replace(
        "sites: [creek, {id: lake, lease: 12h}]", 'sites: ["a/b?c#d <i>\\"\'&"]'
    )
    apply_policy(
        database, odd.replace("rollout: bears", "rollout: odd"), Actor("zoe"), NOON, salt=bytes(32)
    )
    page = browser.as_("ana").page("/rollouts/odd")
    assert "<i>" not in page
    assert site in unescape(page)
    href = unescape(re.search(r'href="/console(/rollouts/odd/cells/[^"]+/day)"', page)[1])
    assert f"<h1>{site} · day</h1>" in unescape(browser.page(href))


def test_a_cell_below_its_line_says_so_and_a_challenger_stands_beside(browser, database):
    bears.widened(database, NOON, bears.CREEK)
    execute_command(database, "bears", lambda _: AddVersion(at=NOON + HOUR, version="v2"))
    others = {(bears.CREEK, "v2"): MET}
    bears.tick(database, NOON + HOUR, of=BETWEEN, others=others)
    page = browser.as_("vic").page(BEARS)
    versus = plain(region(page, "vs-h"))
    assert "v1 acting, v2 challenger" in versus
    assert "creek · day v1" in versus
    text = plain(page)  # the tick's evidence is made up: no record supports it
    assert "v2 met every condition for supervised in place of v1 when P-2 was raised" in text
    assert "no longer meets the threshold" in text
    assert text.count("a bound below the threshold doesn't question the present stage") == 1


def test_the_words_page_is_there_for_everybody(browser):
    for name in ("rita", "vic"):
        page = browser.as_(name).page("/glossary")
        assert "Held: off course" in page
        assert page.count('class="tag tag-') == len(CELL_STATES)


def test_a_minute_later_the_same_page_is_the_same(browser, clock):
    before = plain(browser.as_("vic").page(BEARS).split('<section class="section halves"')[1])
    clock.advance(timedelta(seconds=1))
    assert plain(browser.page(BEARS).split('<section class="section halves"')[1]) == before


def test_actions_add_up_to_the_cases_that_both_decided(story):
    found = load_action_changes(story, load_local_caller(story.database, "vic"), "story", ("v1",))
    assert found
    n = found[0].change.n
    assert sum(one.by_human for one in found) == n
    assert n * 0.9 < sum(one.by_model for one in found) <= n  # no answer is no action
    for one in found:
        gap = one.by_model - one.by_human
        assert one.change.first_only - one.change.second_only == gap
        assert one.change.low <= one.change.per_100 <= one.change.high

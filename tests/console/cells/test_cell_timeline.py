"""The timeline on the pages of a cell, an incident and a proposal: drawn, in a table, for whom."""

import re
from datetime import timedelta
from html import unescape

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.users import AccountUpdate, load_local_caller, update_account
from rollout.features.cells.overview import load_cell_timeline
from rollout.features.reports.inputs.cell_facts import TimelineRequest
from tests.console.cells.test_rollout_page import story

pytestmark = pytest.mark.slow

__all__ = ["story"]
CELLS = re.compile(r'href="/console(/rollouts/story/cells/[^"]+)"')


def section_of(page):
    return page.split('id="timeline-drawing"')[1].split("</section>")[0]


def table_of(page):
    """Return the rows of the table of values, as texts."""
    rows = section_of(page).split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    return [re.findall(r'<td class="num">([^<]*)</td>', row) for row in rows]


@pytest.mark.slow
def test_the_page_draws_and_lists_what_the_api_gives(story, browser, clock):
    page = browser.as_("vic").page("/rollouts/story")
    own = CELLS.search(page)[1]
    cell = next(c for c in story.state_cache.reload_rollout("story").state.policy.cells
                if own.endswith(f"/{c.site}/{c.window}"))  # fmt: skip
    page = browser.page(own)
    vic = load_local_caller(story.database, "vic")
    timeline = load_cell_timeline(story, vic, "story", TimelineRequest(cell), at=clock.now())
    rows = table_of(page)
    counted = [b for b in timeline.buckets if b.human + b.confirmed + b.model]
    assert [row[:3] for row in rows] == [
        [f"{n:,}" for n in (b.human, b.confirmed, b.model)] for b in counted
    ]
    points = [p for version in timeline.versions for p in version.points if p.judged]
    drawn = unescape(section_of(page))
    for kind in ("wide-only", "narrow-only"):
        svg = drawn.split(f'class="{kind}"')[1].split("</svg>")[0]
        dots = re.findall(r'class="tl-dot [^"]*" d="([^"]*)"', svg)
        assert sum(path.count("M") for path in dots) == len(points)
        assert svg.count('<line class="g-g') == len(timeline.thresholds) > 0
    assert sum(int(row[3]) for row in rows if row[3] != "–") == sum(
        p.judged for p in timeline.versions[0].points
    )
    assert "<script" not in drawn


def test_a_reviewer_reads_batches_without_bounds(story, browser, clock):
    path = CELLS.search(browser.as_("vic").page("/rollouts/story"))[1]
    sentence = "moves once another 20 units are decided"
    page = browser.page(path)
    assert sentence not in page
    assert 'class="tl-bound' in page
    ada = load_local_caller(story.database, "ada")
    update = AccountUpdate(roles_to_grant=(AssignedRole("reviewer"),))
    update_account(story.database, ada, "vic", update, at=clock.now())
    clock.advance(timedelta(minutes=1))  # sessions follow what changed a moment later
    page = browser.page(path)
    assert sentence in page
    assert 'class="tl-bound' not in page
    assert all(row[3] == "–" or int(row[3]) >= 20 for row in table_of(page))


def test_an_incident_and_a_proposal_show_their_cells_timeline(browser, raised):
    page = browser.as_("vic").page(f"/rollouts/bears/proposals/{next(iter(raised))}")
    assert "Timeline of the cell" in page
    assert "No unit was counted here in this time." in page
    assert 'href="#tl-e1"' in page
    assert 'id="tl-e1"' in page

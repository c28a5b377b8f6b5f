"""The overview, the page of a rollout's schedule, the search, and the page that explains terms.

The overview has pending tasks, rollout cards and recent events. The search finds cases, proposals,
sites, users and hashes, each only where the visitor may open its page.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from api.cells.map_rows import compute_schedules, has_hours_outside
from api.cells.rollout_text import describe_versions, find_model_share
from api.cells.week_map import OUTSIDE_MARKER, draw_small_map
from api.records.case_text import build_case_path
from api.web_kit.cell_view import build_common_legend
from api.web_kit.page import YEAR_SECONDS, encode_segment, format_time_span, render_page
from api.web_kit.page_context import CurrentVisitor, Visitor, build_live_region
from api.web_kit.waiting import list_pending_tasks
from rollout.engine.decide.permissions import Permission
from rollout.engine.decide.scope import STOPPED, SUSPENDED
from rollout.engine.words.formatting import (
    MINUTE,
    format_cell_name,
    format_count,
    format_day,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.engine.words.state_text import CELL_STATES
from rollout.features.access.users import load_accounts
from rollout.features.cells.overview import (
    MAX_DAYS,
    RolloutSummary,
    ScheduledEntry,
    load_recent_timelines,
    load_rollout_summaries,
    load_schedule,
)
from rollout.features.divergences.cases import find_case_site
from rollout.features.ledger.activity import load_recent_activity
from rollout.features.ledger.ledger_reader import (
    describe_weakness,
    find_entries_by_hash,
    find_proposals_by_hash,
)
from rollout.features.policies.gate_plans import describe_fleet_risk
from rollout.features.proposals.proposal_details import load_proposal
from rollout.features.reports.pages.timeline_chart import describe_timeline, draw_small_timeline
from rollout.features.reports.pages.timeline_layout import SOLID, WITHHELD, StageMarker
from rollout.features.reviews.reviews import count_pending_reviews
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.stages import describe_decided
from rollout.live.rollout_state import RolloutState


@dataclass(frozen=True, slots=True)
class RecentCellRow:
    """A cell of the overview: its newest event, None without one that is marked."""

    rollout: str
    cell: Cell
    zone: str
    text: str
    at: datetime | None
    drawing: Markup


def build_recent_rows(
    visitor: Visitor, summaries: tuple[RolloutSummary, ...]
) -> tuple[RecentCellRow, ...]:
    """Return the cells with the newest events of seven days."""
    states = (summary.state for summary in summaries)
    timelines = load_recent_timelines(visitor.service, visitor.caller, states, visitor.at)
    return tuple(
        RecentCellRow(
            rollout=rollout,
            cell=timeline.cell,
            zone=timeline.timezone,
            text=timeline.marks[-1].text if timeline.marks else "",
            at=timeline.marks[-1].at if timeline.marks else None,
            drawing=draw_small_timeline(timeline, describe_timeline(timeline)),
        )
        for rollout, timeline in timelines
    )


MAX_SILENCE: Final = timedelta(hours=24)
LAPSING_PART: Final = 5
"""A grant lapses soon in the last fifth of its time."""
MAX_NAMED_CELLS: Final = 3
"""Maximum number of cells named one by one; more are counted."""
HIDDEN_TRAFFIC: Final = ("Not shown", "it is counted for readers of every site")


@dataclass(frozen=True, slots=True)
class RolloutNotice:
    """A notice: tag kind, tag text, location or cause."""

    kind: str
    tag: str
    text: str


@dataclass(frozen=True, slots=True)
class RolloutCard:
    """One rollout on the overview.

    Attributes:
        name: name of the rollout.
        versions: acting versions and challengers.
        text: number of cells by stage.
        risk: what the gates' risks add up to in a year.
        model_shares: by cell in which a model decides now, the share of cases that it decides;
            none while ticks are overdue.
        notices: notices, most severe first.
        traffic: traffic, in two lines.
        map: small map of this week.
        has_outside: whether hours outside every window are drawn in it.
    """

    name: str
    versions: str
    text: str
    risk: str
    model_shares: Mapping[Cell, float]
    notices: tuple[RolloutNotice, ...]
    traffic: tuple[str, str]
    map: Markup
    has_outside: bool


def build_rollout_card(
    summary: RolloutSummary, at: datetime, sites: Collection[str] | None = None
) -> RolloutCard:
    """Return a rollout's card.

    Args:
        summary: the rollout.
        at: now.
        sites: the readable sites; None for all.
    """
    state = summary.state
    schedules = compute_schedules(state.scope, state.policy, at)
    markers_by_cell = {
        cell: schedules[cell].marker
        for cell in state.policy.cells
        if sites is None or cell.site in sites
    }
    counts = Counter(marker.name for marker in markers_by_cell.values())
    model_shares = {
        cell: find_model_share(state.policy, marker)
        for cell, marker in markers_by_cell.items()
        if marker.pattern == SOLID
    }
    return RolloutCard(
        name=summary.name,
        versions=describe_versions(state.scope, state.policy.cells),
        text=_describe_counts(counts, len(markers_by_cell)),
        risk=describe_fleet_risk(state.policy),
        model_shares={} if summary.is_overdue else model_shares,
        notices=tuple(_list_notices(summary, markers_by_cell, at)),
        traffic=describe_traffic(summary, at) if sites is None else HIDDEN_TRAFFIC,
        map=draw_small_map(state.policy, schedules, at, sites, rollout_name=summary.name),
        has_outside=has_hours_outside(state.policy, at, sites),
    )


def describe_deciding_models(cards: list[RolloutCard]) -> str:
    """Describe what is stopped, which cells models decide alone, and of which only a share."""
    stops = [
        f"{card.name} {notice.text}"
        for card in cards
        for notice in card.notices
        if notice.tag == CELL_STATES[STOPPED].tag
    ]
    if stops:
        return f"Stopped: {join_words(stops)}. {_describe_models(cards)}"
    return _describe_models(cards)


def _describe_models(cards: list[RolloutCard]) -> str:
    shares = {(card.name, cell): s for card in cards for cell, s in card.model_shares.items()}
    if not shares:
        return "No model decides alone: humans decide or confirm everywhere."
    rollouts = list(dict.fromkeys(name for name, _ in shares))
    rest_text = "Humans decide or confirm everything else."
    if len(shares) <= MAX_NAMED_CELLS:
        texts = [
            _describe_locations([key for key in shares if shares[key] == share], share)
            for share in sorted(set(shares.values()))
        ]
        return f"A model decides {join_words(texts)}. {rest_text}"
    rollout_text = f"in {rollouts[0]}" if len(rollouts) == 1 else f"in {len(rollouts)} rollouts"
    cells, partial_count = len(shares), sum(share < 1 for share in shares.values())
    count_text = f"{format_quantity(cells, 'cell')} {rollout_text}"
    if not partial_count:
        return f"Models decide alone at {count_text}. {rest_text}"
    return (
        f"Models decide at {count_text}, at {partial_count} of them a share of cases, drawn at"
        f" random. {rest_text}"
    )


def _describe_locations(cells: Sequence[tuple[str, Cell]], share: float) -> str:
    """Describe what a model decides in cells whose stages draw the same share for it."""
    names = [f"{format_cell_name(cell.site, cell.window)} of {name}" for name, cell in cells]
    return f"{describe_decided(share)}{',' * (share < 1)} at {join_words(names)}"


def _describe_counts(counts: Counter[str], cells: int) -> str:
    """Describe the number of cells by stage.

    >>> (
    ...     _describe_counts(Counter({"shadow": 2, "supervised": 1}), 3),
    ...     _describe_counts(Counter({"shadow": 1}), 1),
    ... )
    ('2 of 3 cells shadow, 1 supervised.', 'Shadow everywhere.')
    """
    if len(counts) == 1:
        return f"{next(iter(counts)).capitalize()} everywhere."
    (word, count), *rest = counts.most_common()
    return (
        ", ".join(
            [
                f"{count} of {cells} cells {word}",
                *(f"{other_count} {other_word}" for other_word, other_count in rest),
            ]
        )
        + "."
    )


def _list_notices(
    summary: RolloutSummary, markers_by_cell: Mapping[Cell, StageMarker], at: datetime
) -> Iterator[RolloutNotice]:
    state = summary.state
    if summary.is_overdue:
        yield _build_notice("overdue", "guards see nothing: humans decide every case")
    cells_by_hold: dict[str, list[Cell]] = {STOPPED: [], SUSPENDED: []}
    lapsing: dict[Cell, datetime] = {}
    for cell, marker in markers_by_cell.items():
        if marker.pattern == WITHHELD:
            cells_by_hold[marker.name].append(cell)
        elif lapses_at := _find_lapse(state, cell, at):
            lapsing[cell] = lapses_at
    for hold, cells in cells_by_hold.items():
        if cells:
            yield _build_notice(hold, _describe_cells(cells, len(markers_by_cell)))
    if lapsing:
        first_lapse = format_time_span(min(lapsing.values()) - at)
        location = _describe_cells(list(lapsing), len(markers_by_cell))
        yield _build_notice("lapsing", f"{location}, first in {first_lapse}")
    if summary.last_case is None or at - summary.last_case > MAX_SILENCE:
        yield _build_notice("no data", "without data nothing widens; check that cases are sent")


def _build_notice(cell_state: str, text: str) -> RolloutNotice:
    state_text = CELL_STATES[cell_state]
    return RolloutNotice(state_text.kind, state_text.tag, text)


def _find_lapse(state: RolloutState, cell: Cell, at: datetime) -> datetime | None:
    """Return when a cell's highest grant ends, if that is soon."""
    version = state.scope.get_holder(cell)
    cell_grants = () if version is None else state.scope.get_cell_state(cell, version).grants
    grants = [grant for grant in cell_grants if grant.is_valid(at)]
    if not grants:
        return None
    last_grant = grants[-1]
    return (
        last_grant.until
        if (last_grant.until - at) * LAPSING_PART <= last_grant.until - last_grant.since
        else None
    )


def _describe_cells(cells: list[Cell], total: int) -> str:
    if len(cells) == total:
        return "everywhere"
    if len(cells) > MAX_NAMED_CELLS:
        return format_quantity(len(cells), "cell")
    return join_words([format_cell_name(cell.site, cell.window) for cell in cells])


def describe_traffic(summary: RolloutSummary, at: datetime) -> tuple[str, str]:
    """Describe when the last case came, and how many came in the last hour."""
    if summary.last_case is None:
        return "No case yet", "send records to start in shadow"
    more_text = " or more" if summary.has_more_cases else ""
    minutes = (at - summary.last_case) // MINUTE  # as open pages are loaded again each minute
    age_text = f"{format_time_span(minutes * MINUTE)} ago" if minutes else "within the last minute"
    return (
        f"Last case {age_text}",
        f"{format_count(summary.cases_in_last_hour)}{more_text} in the last hour",
    )


router = APIRouter()
VISITS_COOKIE: Final = "rollout-visits"
VISIT_GAP: Final = timedelta(minutes=30)
"""Requests further apart than this belong to two visits."""


@dataclass(frozen=True, slots=True)
class Visits:
    """End of the previous visit (None on the first) and latest request."""

    before: datetime | None
    last_look: datetime

    def to_cookie(self) -> str:
        """Return the cookie's value, in seconds."""
        before = "" if self.before is None else str(int(self.before.timestamp()))
        return f"{before}.{int(self.last_look.timestamp())}"


def update_visits(cookie: str, at: datetime) -> Visits:
    """Return the visits after a request at `at`; an invalid cookie starts anew.

    >>> at = datetime(2027, 6, 1, tzinfo=UTC)
    >>> update_visits("", at).before, update_visits("x.y", at).before
    (None, None)
    >>> first = update_visits("", at)
    >>> update_visits(first.to_cookie(), at + timedelta(minutes=5)).before
    >>> update_visits(first.to_cookie(), at + timedelta(days=1)).before == at
    True
    """
    before, _, last_text = cookie.partition(".")
    last_look = _parse_seconds(last_text)
    if last_look is None or last_look > at:
        return Visits(None, at)
    return Visits(_parse_seconds(before) if at - last_look < VISIT_GAP else last_look, at)


def _parse_seconds(seconds: str) -> datetime | None:
    is_valid = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return datetime.fromtimestamp(int(seconds), UTC) if is_valid else None


SCRIPT_HEADER = "x-live"


@router.get("/")
def show_overview(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the visitor's pending tasks and all readable rollouts."""
    live_region = build_live_region(request, visitor)
    summaries = load_rollout_summaries(visitor.service, visitor.caller, visitor.at)
    cards = [
        build_rollout_card(summary, visitor.at, _list_readable_sites(visitor, summary))
        for summary in summaries
    ]
    pending_tasks, task_count = list_pending_tasks(summaries, visitor)
    review_totals = count_pending_reviews(visitor.service, visitor.caller, visitor.at)
    visit = update_visits(request.cookies.get(VISITS_COOKIE, ""), visitor.at)
    response = render_page(
        request,
        visitor,
        "overview",
        live=live_region,
        heading=_format_heading(task_count, sum(review_totals.values())),
        lede=describe_deciding_models(cards) if summaries else "",
        tasks=pending_tasks,
        hidden_count=max(0, task_count - len(pending_tasks)),
        reviews=review_totals,
        cards=cards,
        recent_cells=build_recent_rows(visitor, summaries),
        stages=(
            *build_common_legend(
                has_shares=any(s < 1 for c in cards for s in c.model_shares.values())
            ),
            *([OUTSIDE_MARKER] if any(card.has_outside for card in cards) else []),
        ),
        activities=load_recent_activity(visitor.service, visitor.caller, visit.before)
        if summaries
        else (),
        before=visit.before,
        administers=visitor.has_permission_somewhere(Permission.ADMINISTER),
        heads_warning=describe_weakness(visitor.service.checkpoints)
        if visitor.has_permission(Permission.ADMINISTER)
        else "",
    )
    if SCRIPT_HEADER not in request.headers:  # automatic refreshes count as no visit
        response.set_cookie(
            VISITS_COOKIE, visit.to_cookie(), max_age=YEAR_SECONDS, httponly=True, samesite="lax"
        )
    return response


def _list_readable_sites(visitor: Visitor, summary: RolloutSummary) -> tuple[str, ...] | None:
    """Return the sites that a visitor may read, or None for all."""
    if visitor.has_permission(Permission.READ, summary.name):
        return None
    return visitor.list_permitted_sites(Permission.READ, summary.name, summary.state.policy)


def _format_heading(task_count: int, review_count: int) -> str:
    """Format the number of pending tasks.

    >>> _format_heading(0, 0), _format_heading(2, 7)
    ('No pending tasks', '9 pending tasks')
    """
    count = task_count + review_count
    return format_quantity(count, "pending task") if count else "No pending tasks"


@router.get("/rollouts/{rollout}/schedule")
def show_schedule(request: Request, visitor: CurrentVisitor, rollout: str) -> Response:
    """Show what will happen, by day, in the visitor's timezone."""
    live_region = build_live_region(request, visitor, rollout)
    schedule = load_schedule(visitor.service, visitor.caller, rollout, at=visitor.at, days=MAX_DAYS)
    zone = visitor.zone

    def get_local_day(entry: ScheduledEntry) -> str:
        return f"{max(entry.at, visitor.at).astimezone(ZoneInfo(zone)):%Y-%m-%d}"

    ordered = sorted(schedule.items, key=get_local_day)
    days = [list(entries) for _, entries in groupby(ordered, key=get_local_day)]
    return render_page(
        request,
        visitor,
        "schedule",
        rollout=rollout,
        live=live_region,
        days=[
            (
                format_day(max(entries[0].at, visitor.at), zone),
                [(_format_time(entry, zone), entry.text) for entry in entries],
            )
            for entries in days
        ],
        until=format_day(schedule.until, zone),
        zone=zone,
    )


def _format_time(entry: ScheduledEntry, zone: str) -> str:
    start = format_zoned_time(entry.at, zone)
    return start if entry.until is None else f"{start} to {format_zoned_time(entry.until, zone)}"


MAX_LENGTH: Final = 200  # maximum characters of a key
MIN_HASH_DIGITS: Final = 8
HASH_LENGTH: Final = 64
MAX_HITS: Final = 50


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A page that was found: what it is about, its name, its path and where it belongs."""

    kind: str
    name: str
    href: str
    place: str


@router.get("/search")
def search_console(
    request: Request, visitor: CurrentVisitor, q: Annotated[str, Query(max_length=2_000)] = ""
) -> Response:
    """Show the pages about what was typed that the visitor may open."""
    typed = q.strip()[:MAX_LENGTH]
    hits = list(_find_all(visitor, typed)) if typed and "\0" not in typed else []
    return render_page(
        request,
        visitor,
        "search",
        hits=hits[:MAX_HITS],
        hidden_count=max(0, len(hits) - MAX_HITS),
        typed={"q": typed},
    )


def _find_all(visitor: Visitor, typed: str) -> Iterator[SearchHit]:
    """Yield each page that is found, without those that the visitor may not open."""
    for cached_rollout in visitor.service.state_cache.load_all():
        rollout = cached_rollout.state.rollout.name
        if visitor.caller.can_see(rollout):
            for find in FINDERS:
                with suppress(RefusalError):  # not permitted, or unknown: it is not there for them
                    yield from find(visitor, rollout, typed)
    with suppress(RefusalError):
        for account in load_accounts(visitor.service.database, visitor.caller):
            if typed.casefold() == account.name.casefold():
                path = f"/settings/users/{encode_segment(account.name)}"
                yield SearchHit("User", account.name, path, "")


def _find_cells(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    policy = visitor.service.state_cache.load_rollout(rollout).state.policy
    for cell in policy.cells:
        is_readable = visitor.has_permission(Permission.READ, rollout, cell.site)
        if is_readable and typed.casefold() in cell.site.casefold():
            place = f"{encode_segment(cell.site)}/{encode_segment(cell.window)}"
            path = f"/rollouts/{encode_segment(rollout)}/cells/{place}"
            yield SearchHit("Cell", str(cell), path, rollout)


def _find_case(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    site = find_case_site(visitor.service.database, visitor.caller, rollout, typed)
    if site is not None:
        yield SearchHit("Case", typed, build_case_path(rollout, typed), f"{rollout}, {site}")


def _find_proposal(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    proposal = load_proposal(visitor.service, visitor.caller, rollout, typed.upper(), at=visitor.at)
    path = f"/rollouts/{encode_segment(rollout)}/proposals/{encode_segment(proposal.id)}"
    place = f"{rollout}, {proposal.site}" if proposal.site else rollout
    yield SearchHit("Proposal", proposal.id, path, place)


def _find_evidence(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    prefix = _parse_hash(typed)
    if prefix:
        for proposal in find_proposals_by_hash(visitor.service, visitor.caller, rollout, prefix):
            with suppress(RefusalError):  # at a site that they may not read
                yield from _find_proposal(visitor, rollout, proposal)


def _find_entries(visitor: Visitor, rollout: str, typed: str) -> Iterator[SearchHit]:
    prefix = _parse_hash(typed)
    if prefix:
        for revision in find_entries_by_hash(visitor.service, visitor.caller, rollout, prefix):
            path = f"/rollouts/{encode_segment(rollout)}/ledger"
            query = f"?kind=all&before={revision + 1}#r{revision}"
            yield SearchHit("Ledger entry", str(revision), path + query, rollout)


def _parse_hash(typed: str) -> str:
    """Return the digits of a hash or of its beginning, or "" if it is none.

    >>> _parse_hash("AB12 cd34"), _parse_hash("ab12"), _parse_hash("creek-0001")
    ('ab12cd34', '', '')
    """
    digits = "".join(typed.split()).lower()
    is_hash = MIN_HASH_DIGITS <= len(digits) <= HASH_LENGTH and set(digits) <= set(
        "0123456789abcdef"
    )
    return digits if is_hash else ""


Finder = Callable[[Visitor, str, str], Iterator[SearchHit]]
FINDERS: Final[tuple[Finder, ...]] = (
    _find_case,
    _find_proposal,
    _find_cells,
    _find_evidence,
    _find_entries,
)


@router.get("/glossary")
def show_words(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the explanations."""
    legend = build_common_legend(has_shares=True)
    return render_page(
        request, visitor, "glossary", legend=legend, cell_states=CELL_STATES.values()
    )

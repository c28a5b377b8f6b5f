"""One cell as pages describe it: address, sentences, grants, stage markers, timeline, stop targets.

Stage markers have code, pattern and text. A stop target is everything, one site or one cell; its
latency is told in words.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from fastapi import Request
from markupsafe import Markup

from api.web_kit.page import encode_segment
from api.web_kit.page_context import Visitor
from rollout.engine.decide.proposals import compute_renewal_start
from rollout.engine.decide.scope import (
    CellState,
    ProposalState,
    Scope,
    compute_held_level,
    count_filled_needs,
)
from rollout.engine.decide.stops import StopTarget
from rollout.engine.words.formatting import format_quantity, join_words
from rollout.engine.words.state_text import CELL_STATES, StateText
from rollout.features.cells.cell_table import CellListPage, CellSummary, RecentChanges
from rollout.features.cells.cells import find_main_evidence
from rollout.features.cells.overview import load_cell_timeline
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.figures.funnel import join_value_marks
from rollout.features.reports.inputs.cell_facts import TimelineMark, TimelineRequest
from rollout.features.reports.pages.timeline_chart import TimelineView, build_timeline_view
from rollout.features.reports.pages.timeline_layout import (
    EMPTY,
    HATCHED,
    HUMANS_CONFIRM,
    HUMANS_DECIDE,
    MODEL_DECIDES,
    SOLID,
    WITHHELD,
    StageMarker,
    build_markers,
)
from rollout.features.stops.stop_options import (
    CellGrant,
    StopLatency,
    StopOptions,
    format_stop_latency,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.errors import RefusalError, UnknownCellError
from rollout.kernel.policy.cell_evidence import describe_floor_cases
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import group_pairs

TimeFormatter = Callable[[datetime], Markup]
"""Formats an instant by the site's clock, with the visitor's in brackets."""

UNTAGGED: Final = StateText("", "", "")
STATE_ORDER: Final = (*CELL_STATES, "")


@dataclass(frozen=True, slots=True)
class CellSentence:
    """One sentence that applies to a cell.

    Attributes:
        state: one of `STATE_ORDER`; "" without a tag.
        text: the sentence.
        tag: the tag's text, if it isn't the state's.
    """

    state: str
    text: Markup
    tag: str = ""

    @property
    def tag_text(self) -> str:
        """Return the tag's text; "" without a tag."""
        return self.tag or CELL_STATES.get(self.state, UNTAGGED).tag

    @property
    def tag_kind(self) -> str:
        """Return shape and colour of the tag."""
        return CELL_STATES.get(self.state, UNTAGGED).kind


@dataclass(frozen=True, slots=True)
class CellDescription:
    """A cell in words: its first tag, and all sentences in state order."""

    kind: str
    tag: str
    sentences: tuple[CellSentence, ...]


@dataclass(frozen=True, slots=True)
class CellContext:
    """Everything that the sentences about a cell are computed from."""

    policy: Policy
    scope: Scope
    summary: CellSummary
    recent_changes: RecentChanges
    at: datetime
    format_time: TimeFormatter

    @property
    def cell(self) -> Cell:
        """The described cell."""
        return self.summary.cell

    @property
    def cell_state(self) -> CellState | None:
        """State of the acting version, or None in shadow."""
        acting_version = self.scope.get_holder(self.cell)
        return (
            None if acting_version is None else self.scope.get_cell_state(self.cell, acting_version)
        )

    @property
    def held_level(self) -> int:
        """Stage level of the valid grants, even if they are withheld."""
        return (
            0
            if self.cell_state is None
            else compute_held_level(self.policy, self.cell_state, self.at)
        )

    @property
    def main_facts(self) -> EvidenceFacts | None:
        """Evidence that the page shows first."""
        return find_main_evidence(self.summary.evidence, self.scope.get_holder(self.cell))

    @property
    def timezone(self) -> ZoneInfo:
        """Timezone of the site."""
        return ZoneInfo(self.policy.sites_by_id[self.cell.site].timezone)


def list_open_proposals(context: CellContext) -> list[ProposalState]:
    """Return the open proposals for the cell."""
    return [
        proposal for proposal in context.scope.proposals.values() if proposal.cell == context.cell
    ]


def format_sentence(text: str, *values: object) -> Markup:
    """Return one of our sentences with escaped values."""
    return Markup(text).format(*values)  # noqa: S704 - the sentences are all ours


def describe_missing_approvals(proposal: ProposalState) -> str:
    """Format the number of missing approvals: `1 more approval`."""
    missing_count = len(proposal.needs) - count_filled_needs(proposal.needs, proposal.approvals)
    return format_quantity(missing_count, "more approval")


def parse_cell_address(request: Request, decoded: str) -> Cell:
    """Parse the site and window at the end of a URL path.

    Args:
        request: has the path with its percent escapes.
        decoded: the decoded path, used if a proxy has already decoded the path.

    Raises:
        UnknownCellError: the path doesn't end with two names.
    """
    raw_path = (
        bytes(request.scope.get("raw_path") or b"").decode("ascii", "replace").partition("?")[0]
    )
    parts = raw_path.rpartition("/cells/")[2].split("/")
    if len(parts) != 2:
        parts = decoded.split("/")
    if len(parts) != 2:
        raise UnknownCellError("the address of a cell ends with its site and its window")
    site, window = map(unquote, parts)
    return Cell(site, window)


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One grant in the table.

    Attributes:
        cell, stage, version: what it allows.
        since, until: its period.
        by: the approvers.
        zone: timezone of the site.
        tag: tag kind and text beside its end; empty if all is well.
        proposal: the proposal that it came from.
        renewal: id of its open renewal, or "".
        cases: for which cases it holds; "" without several confidence floors.
    """

    cell: Cell
    stage: str
    version: str
    since: datetime
    until: datetime
    by: tuple[str, ...]
    zone: str
    tag: tuple[str, str] | None
    proposal: str
    renewal: str
    cases: str = ""


def build_grant_rows(cell_page: CellListPage, cells: Iterable[Cell]) -> tuple[GrantRow, ...]:
    """Return all grants of the cells, also withheld ones, which go on ageing."""
    return tuple(row for cell in cells for row in _build_cell_grants(cell_page, cell))


def _build_cell_grants(cell_page: CellListPage, cell: Cell) -> Iterator[GrantRow]:
    scope, policy = cell_page.state.scope, cell_page.state.policy
    acting_version = scope.get_holder(cell)
    if acting_version is None:
        return
    cell_state = scope.get_cell_state(cell, acting_version)
    for grant in reversed(cell_state.grants):
        has_ended = cell_page.at >= grant.until
        is_in_policy = grant.stage in policy.stage_ids
        is_lapsing = is_in_policy and cell_page.at >= compute_renewal_start(
            policy, cell_state, policy.stage_ids.index(grant.stage)
        )
        tag = ("warn", "Lapsed") if has_ended else ("warn", "Lapsing") if is_lapsing else None
        renewals = (
            proposal.id
            for proposal in scope.proposals.values()
            if (proposal.kind, proposal.cell, proposal.to) == ("renewal", cell, grant.stage)
        )
        yield GrantRow(
            cell=cell,
            stage=grant.stage,
            version=acting_version,
            since=grant.since,
            until=grant.until,
            by=cell_page.recent_changes.approvers.get(grant.proposal, ()),
            zone=policy.sites_by_id[cell.site].timezone,
            tag=tag,
            proposal=grant.proposal,
            renewal=next(renewals, ""),
            cases=describe_floor_cases(grant.floors[0]) if grant.floors else "",
        )


def build_stage_markers(policy: Policy) -> Mapping[str, StageMarker]:
    """Return a marker for each stage of a policy, shadow first."""
    shares = {stage.id: stage.decided_share for stage in policy.stages}
    deciding = {stage: share for stage, share in shares.items() if share is not None}
    return build_markers(policy.stage_ids, deciding)


def build_withheld_marker(markers: Mapping[str, StageMarker]) -> StageMarker:
    """Return the marker of a cell whose grants are withheld."""
    return StageMarker("suspended or stopped", markers[SHADOW].code, WITHHELD, HUMANS_DECIDE)


def build_named_withheld_marker(markers: Mapping[str, StageMarker], name: str) -> StageMarker:
    """Return that marker with one state as its name: `stopped` or `suspended`."""
    return StageMarker(name, markers[SHADOW].code, WITHHELD, HUMANS_DECIDE)


def build_common_legend(*, has_shares: bool) -> tuple[StageMarker, ...]:
    """Return the legend where rollouts may have their own stages.

    Args:
        has_shares: whether some stages draw a share of the cases for the model.
    """
    shared = ", or a share of cases, drawn at random; humans the rest" if has_shares else ""
    return (
        StageMarker("shadow", "Sh", EMPTY, HUMANS_DECIDE),
        StageMarker("supervised", "Su", HATCHED, HUMANS_CONFIRM),
        StageMarker("autonomous", "Au", SOLID, f"{MODEL_DECIDES}{shared}"),
        StageMarker("suspended or stopped", "Sh", WITHHELD, HUMANS_DECIDE),
    )


PREFIX: Final = "tl"


def load_timeline_view(
    visitor: Visitor,
    rollout: str,
    cell: Cell,
    since: datetime | None = None,
    until: datetime | None = None,
    first_marks: Sequence[TimelineMark] = (),
) -> TimelineView:
    """Return a cell's timeline with marks of first cases, by default of the last six weeks."""
    request = TimelineRequest(cell, since, until)
    timeline = load_cell_timeline(visitor.service, visitor.caller, rollout, request, at=visitor.at)
    in_span = [mark for mark in first_marks if timeline.since <= mark.at <= timeline.until]
    timeline = replace(timeline, marks=join_value_marks(timeline.marks, in_span))
    return build_timeline_view(timeline, PREFIX)


ALL, SITE, CELL = "all", "site", "cell"
CHOOSE_TARGET_TEXT: Final = "choose everything, a site or a cell"
MAX_CELLS: Final = 500  # beyond this number of cells the form offers only sites


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """One choice of the form."""

    value: str
    text: str


@dataclass(frozen=True, slots=True)
class TargetSelection:
    """The chosen target, and its name in sentences."""

    value: str
    target: StopTarget
    text: str


def build_widest_choice(options: StopOptions) -> TargetChoice:
    """Return the widest choice: everything that the user may stop."""
    cells = format_quantity(len(options.cells), "cell")
    sites = format_quantity(len(options.sites), "site")
    target_text = "Everything" if not options.other_sites else "All that you operate"
    return TargetChoice(ALL, f"{target_text}: {sites}, {cells}")


def build_site_choices(options: StopOptions) -> list[TargetChoice]:
    """Return a choice for each site."""
    return [TargetChoice(f"{SITE}/{encode_segment(site)}", site) for site in options.sites]


def build_cell_choices(options: StopOptions) -> list[TargetChoice]:
    """Return a choice for each cell; none if there are too many."""
    if len(options.cells) > MAX_CELLS:
        return []
    return [
        TargetChoice(format_cell_value(cell_grant.cell), str(cell_grant.cell))
        for cell_grant in options.cells
    ]


def format_cell_value(cell: Cell) -> str:
    """Return a cell's form value; names are percent-encoded."""
    return f"{CELL}/{encode_segment(cell.site)}/{encode_segment(cell.window)}"


def parse_target(value: str) -> TargetSelection:
    """Parse the target of a form.

    Raises:
        RefusalError: unknown target.

    >>> (
    ...     parse_target("site/north%2Fgate").text,
    ...     parse_target("cell/creek/day").text,
    ...     parse_target("all").text,
    ... )
    ('north/gate', 'creek · day', 'everything')
    """
    match [unquote(part) for part in value.split("/")]:
        case ["all"]:
            return TargetSelection(value, StopTarget(is_everything=True), "everything")
        case ["site", str(site)] if site:
            return TargetSelection(
                value, StopTarget(cells=(), sites=(_check_exact_site(site),)), site
            )
        case ["cell", str(site), str(window)] if site and window:
            return TargetSelection(
                value, StopTarget(cells=(Cell(site, window),)), str(Cell(site, window))
            )
    raise RefusalError(CHOOSE_TARGET_TEXT)


def _check_exact_site(site: str) -> str:
    """Reject patterns: the form offers only exact site names."""
    if "*" in site:
        raise RefusalError(CHOOSE_TARGET_TEXT)
    return site


def describe_stop_latency(latencies: Sequence[StopLatency]) -> str:
    """Describe the stop latency by groups of equally fast sites, fastest first.

    `creek and lake within 1 min 1 s, far within 12 h 1 min`
    """
    sites_by_latency = group_pairs(
        (format_stop_latency(latency.within_seconds), latency.site)
        for latency in sorted(latencies, key=lambda latency: latency.within_seconds)
    )
    return ", ".join(
        f"{_join_sites(sites)} within {latency_text}"
        for latency_text, sites in sites_by_latency.items()
    )


MAX_NAMED_SITES: Final = 6


def _join_sites(sites: list[str]) -> str:
    hidden_count = len(sites) - MAX_NAMED_SITES
    if hidden_count < 2:
        return join_words(sites)
    return join_words([*sites[:MAX_NAMED_SITES], f"{hidden_count} more sites"])


def describe_interim(cell_grants: Sequence[CellGrant], site: str) -> str:
    """Describe what may still happen at a site until a stop takes effect."""
    site_grants = [cell_grant for cell_grant in cell_grants if cell_grant.cell.site == site]
    deciding_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.model_decides}
    )
    if deciding_versions:
        return f"{join_words(deciding_versions)} may act alone on earlier assignments"
    supervised_versions = sorted(
        {cell_grant.version for cell_grant in site_grants if cell_grant.stage != "shadow"}
    )
    if supervised_versions:
        return f"Humans confirm what {join_words(supervised_versions)} proposes, as now"
    if any(cell_grant.is_stopped for cell_grant in site_grants):
        return "Already stopped: humans decide"
    return "No version acts here at this hour: humans decide"

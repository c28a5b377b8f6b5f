"""Stage markers (code, pattern, text) and grants as pages show them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.confidence_floors import describe_floor_cases
from rollout.core.policy.policy import Policy
from rollout.core.scope.proposals import compute_renewal_start
from rollout.reports.pages.stage_markers import (
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
from rollout.services.cells.cell_table import CellListPage


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

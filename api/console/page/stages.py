"""Stage markers (code, pattern, text) and grants as pages show them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.proposals import compute_renewal_start
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
        )


EMPTY, HATCHED, SOLID, WITHHELD = "0", "1", "2", "held"
HUMANS_DECIDE: Final = "humans decide"


@dataclass(frozen=True, slots=True)
class StageMarker:
    """How a stage is drawn and described.

    Attributes:
        name: the stage's name in the policy.
        code: first two letters; three if two stages begin alike.
        pattern: `0` empty, `1` hatched, `2` solid, `held` bars: the classes and patterns of the
            maps.
        text: who decides at this stage.
    """

    name: str
    code: str
    pattern: str
    text: str


def build_stage_markers(policy: Policy) -> Mapping[str, StageMarker]:
    """Return a marker for each stage of a policy, shadow first."""
    codes = _compute_codes(policy.stage_ids)
    markers = {SHADOW: StageMarker(SHADOW, codes[SHADOW], EMPTY, HUMANS_DECIDE)}
    for stage in policy.stages:
        pattern, text = (
            (SOLID, "model decides") if stage.model_decides else (HATCHED, "humans confirm")
        )
        markers[stage.id] = StageMarker(stage.id, codes[stage.id], pattern, text)
    return markers


def build_withheld_marker(markers: Mapping[str, StageMarker]) -> StageMarker:
    """Return the marker of a cell whose grants are withheld."""
    return StageMarker("suspended or stopped", markers[SHADOW].code, WITHHELD, HUMANS_DECIDE)


def build_named_withheld_marker(markers: Mapping[str, StageMarker], name: str) -> StageMarker:
    """Return that marker with one state as its name: `stopped` or `suspended`."""
    return StageMarker(name, markers[SHADOW].code, WITHHELD, HUMANS_DECIDE)


def _compute_codes(names: Sequence[str]) -> dict[str, str]:
    for letter_count in range(2, max(map(len, names)) + 1):
        codes = {name: name[:letter_count].capitalize() for name in names}
        if len(set(codes.values())) == len(names):
            return codes
    return {name: name for name in names}


COMMON_LEGEND: Final = (
    StageMarker("shadow", "Sh", EMPTY, HUMANS_DECIDE),
    StageMarker("supervised", "Su", HATCHED, "humans confirm"),
    StageMarker("autonomous", "Au", SOLID, "model decides"),
    StageMarker("suspended or stopped", "Sh", WITHHELD, HUMANS_DECIDE),
)
"""Legend of the overview, where rollouts may have their own stages."""

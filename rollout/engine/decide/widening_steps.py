"""Which step a widening may take: stages and confidence floors of grants, and waves of sites.

The number of cells that are widened at once is limited.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import NamedTuple

from rollout.engine.decide.scope import (
    CellState,
    Grant,
    Scope,
    compute_held_level,
    find_acting_version,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.cell_evidence import (
    VersionEvidence,
    find_floor_index,
    format_floor,
    list_floors,
)
from rollout.kernel.policy.gates import is_gate_open
from rollout.kernel.policy.policy import Policy, Waves


def get_acting_floor(state: CellState) -> str:
    """Return the floor at or above which the grants hold; "" without several floors."""
    return next(iter(state.grants[-1].floors), "") if state.grants else ""


def find_decided_floor(policy: Policy, state: CellState, stage_level: int) -> float | None:
    """Return the confidence from which a stage decides a cell's cases.

    It is that of the policy, or a stricter one of a grant. Grants above count too: a stage keeps
    their floor once they end, also before a tick has written it. None asks for no confidence; where
    a grant has no floor under a policy with several, no confidence is enough.
    """
    lowest = policy.evidence.lowest_floor
    if policy.evidence.higher_floors and not all(grant.floors for grant in state.grants):
        return inf
    grants = state.grants[max(stage_level - 1, 0) :]
    floors = [float(grant.floors[0]) for grant in grants if grant.floors]
    return max(floors, default=None) if lowest is None else max((lowest, *floors))


def format_decided_floor(policy: Policy, state: CellState, stage_level: int) -> str:
    """Return that floor as the ledger stores floors; "" under a policy without several."""
    if not policy.evidence.higher_floors:
        return ""
    return format_floor(find_decided_floor(policy, state, stage_level) or 0.0)


def add_grant(grants: tuple[Grant, ...], grant: Grant) -> tuple[Grant, ...]:
    """Return the grants with one for a further stage, or for a lower floor of the last one.

    With a lower floor the stage counts as held since before.
    """
    if not grants or grants[-1].stage != grant.stage:
        return (*grants, grant)
    last = grants[-1]
    lowered = replace(grant, held_since=last.held_since, counts_held_since=last.counts_held_since)
    return (*grants[:-1], lowered)


def raise_floors(grants: tuple[Grant, ...], floor: str) -> tuple[Grant, ...]:
    """Return the grants without the floors below one; a floor that was met stays open.

    Narrowing lowers no floor: a case that humans decided unseen is not shown again.
    """
    return tuple(_raise_floor(grant, floor) for grant in grants)


def _raise_floor(grant: Grant, floor: str) -> Grant:
    if not grant.floors or float(grant.floors[0]) >= float(floor):
        return grant
    stricter = (other for other in grant.floors if float(other) > float(floor))
    return replace(grant, floors=(floor, *stricter))


class WideningStep(NamedTuple):
    """A stage level, and the place of a confidence floor in the policy's list."""

    stage_level: int
    floor_index: int


def list_widening_steps(policy: Policy, state: CellState, at: datetime) -> list[WideningStep]:
    """Return what a cell may widen to next: the next stage, then lower floors of its stage.

    The next stage begins at the acting floor or a stricter one, the lowest first. A policy without
    several floors has one step.
    """
    held_level = compute_held_level(policy, state, at)
    acting_index = find_acting_index(policy, state)
    floor_count = len(list_floors(policy.evidence))
    next_stage = [WideningStep(held_level + 1, i) for i in range(acting_index, floor_count)]
    lower_floors = [WideningStep(held_level, i) for i in range(acting_index) if held_level]
    return next_stage + lower_floors


def find_acting_index(policy: Policy, state: CellState) -> int:
    """Return the place of the acting floor in the policy's list; 0 without grants."""
    return find_floor_index(policy.evidence, get_acting_floor(state))


def list_met_floors(
    policy: Policy, cell: Cell, step: WideningStep, risk_share: float, evidence: VersionEvidence
) -> tuple[str, ...]:
    """Return the step's floor and the stricter ones whose gates are open too.

    It is () under a policy without several floors. A stricter floor acts only after an alarm, so
    its minimum counts over the whole attempt.
    """
    if not policy.evidence.higher_floors:
        return ()
    floors, stage_level = list_floors(policy.evidence), step.stage_level

    def is_open(i: int) -> bool:
        counts = evidence.get_floor(i).attempt
        return is_gate_open(policy, cell, stage_level, risk_share, counts, counts)

    met = [i for i in range(step.floor_index + 1, len(floors)) if is_open(i)]
    return tuple(format_floor(floors[i]) for i in (step.floor_index, *met))


def select_takeover_floor(
    scope: Scope,
    policy: Policy,
    challenger: tuple[Cell, str],
    stage_level: int,
    evidence: VersionEvidence,
) -> tuple[VersionEvidence, tuple[str, ...]]:
    """Return a challenger's evidence at the holder's floor, and the floors that it meets."""
    cell, version = challenger
    holder = scope.get_holder(cell)
    assert holder is not None  # noqa: S101 - the caller has found one
    step = WideningStep(stage_level, find_acting_index(policy, scope.get_cell_state(cell, holder)))
    share = scope.get_cell_state(cell, version).risk_share
    floors = list_met_floors(policy, cell, step, share, evidence)
    return evidence.get_floor(step.floor_index), floors


def select_renewal_floor(
    policy: Policy, evidence: VersionEvidence, floors: tuple[str, ...]
) -> VersionEvidence:
    """Return the evidence at the floor of a grant with these floors."""
    return evidence.get_floor(find_floor_index(policy.evidence, next(iter(floors), "")))


@dataclass(frozen=True, slots=True)
class WaveHold:
    """A wave that comes first: `ready` of its `cells` in a window have held `stage` long enough."""

    wave: int
    ready: int
    cells: int
    stage: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"wave {self.wave}: {self.ready} of {self.cells} cells hold {self.stage} long enough"


def get_wave(policy: Policy, cell: Cell) -> int:
    """Return the wave of the cell's site."""
    return policy.sites_by_id[cell.site].wave


def find_wave_hold(
    scope: Scope, policy: Policy, cell: Cell, stage_level: int, at: datetime
) -> WaveHold | None:
    """Return how the previous wave blocks `cell`, or None.

    Waves order cells up to their stage, window by window; above it each cell widens by itself.
    """
    waves = policy.waves
    if waves is None or stage_level > policy.stage_ids.index(waves.stage):
        return None
    earlier_cells = _list_previous_wave(policy, cell, waves, at)
    if not earlier_cells:
        return None
    ready_count = sum(
        _holds_long_enough(scope, policy, earlier_cell, waves, at) for earlier_cell in earlier_cells
    )
    if (
        ready_count / len(earlier_cells) >= waves.share
    ):  # multiplied, 11 of 20 would miss 55 % by rounding
        return None
    wave = get_wave(policy, earlier_cells[0])
    return WaveHold(wave, ready_count, len(earlier_cells), waves.stage)


def find_wave_opening(
    scope: Scope, policy: Policy, cell: Cell, at: datetime
) -> tuple[tuple[Cell, ...], datetime | None]:
    """Return the cells that `cell` waits for, and when its wave opens.

    The time assumes that all cells now at the stage stay there; None while too few are. Only for
    cells that `find_wave_hold` blocks.
    """
    waves = policy.waves
    if waves is None:
        return (), None
    earlier_cells = _list_previous_wave(policy, cell, waves, at)
    if not earlier_cells:
        return (), None
    held_since_times = (
        _find_held_since(scope, policy, earlier_cell, waves, at) for earlier_cell in earlier_cells
    )
    ready_times = sorted(since + waves.hold for since in held_since_times if since is not None)
    needed_count = next(
        (n for n in range(1, len(earlier_cells) + 1) if n / len(earlier_cells) >= waves.share), 0
    )
    if not 0 < needed_count <= len(ready_times):
        return tuple(earlier_cells), None
    return tuple(earlier_cells), ready_times[needed_count - 1]


def _list_previous_wave(policy: Policy, cell: Cell, waves: Waves, at: datetime) -> list[Cell]:
    """Return the nearest earlier wave's cells, same window, that may reach the stage."""
    stage_level, own_wave = policy.stage_ids.index(waves.stage), get_wave(policy, cell)
    candidate_cells = [Cell(site.id, cell.window) for site in policy.sites if site.wave < own_wave]
    eligible_cells = [c for c in candidate_cells if policy.compute_ceiling(c, at) >= stage_level]
    last_wave = max((get_wave(policy, c) for c in eligible_cells), default=0)
    return [c for c in eligible_cells if get_wave(policy, c) == last_wave]


def _holds_long_enough(
    scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime
) -> bool:
    since = _find_held_since(scope, policy, cell, waves, at)
    return since is not None and at - since >= waves.hold


def _find_held_since(
    scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime
) -> datetime | None:
    """Return since when a cell holds the stage; None where it doesn't now."""
    acting_stage = find_acting_version(scope, policy, cell, at)
    if acting_stage is None or acting_stage[1] < policy.stage_ids.index(waves.stage):
        return None
    grants = scope.get_cell_state(cell, acting_stage[0]).grants
    grant = next(grant for grant in grants if grant.stage == waves.stage)
    return compute_held_since(scope, cell, grant)


def compute_held_since(scope: Scope, cell: Cell, grant: Grant) -> datetime:
    """Return from when waves count a grant, while nothing withholds it.

    That is when the cell began to hold the stage, or the last stop or suspension ended: before it
    the model was not acting without a break.
    """
    return max(grant.held_since, scope.returned_at.get(cell, grant.held_since))


def find_settled_at(scope: Scope, policy: Policy, at: datetime) -> datetime | None:
    """Return when fewer than `at_once` cells settle, or None if that is so at `at`."""
    waves = policy.waves
    if waves is None or waves.at_once is None:
        return None
    recent_times = [t for t in scope.widened_at.values() if at - t < waves.settle]
    if len(recent_times) < waves.at_once:
        return None
    return sorted(recent_times, reverse=True)[waves.at_once - 1] + waves.settle

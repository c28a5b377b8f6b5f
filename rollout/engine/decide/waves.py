"""Waves of sites, and the limit of cells widened at once."""

from dataclasses import dataclass
from datetime import datetime

from rollout.engine.decide.scope import Grant, Scope, find_acting_version
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.policy import Policy, Waves


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
    returned_at = scope.returned_at.get(cell, grant.held_since)
    return max(grant.held_since, returned_at)


def find_settled_at(scope: Scope, policy: Policy, at: datetime) -> datetime | None:
    """Return when fewer than `at_once` cells settle, or None if that is so at `at`."""
    waves = policy.waves
    if waves is None or waves.at_once is None:
        return None
    recent_times = [t for t in scope.widened_at.values() if at - t < waves.settle]
    if len(recent_times) < waves.at_once:
        return None
    return sorted(recent_times, reverse=True)[waves.at_once - 1] + waves.settle

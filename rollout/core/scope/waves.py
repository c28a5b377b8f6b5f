"""Waves of sites, and the limit of cells widened at once."""

from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy, Waves
from rollout.core.scope.scope import Scope, find_acting_version


def get_wave(policy: Policy, cell: Cell) -> int:
    """Return the wave of the cell's site."""
    return policy.sites_by_id[cell.site].wave


def find_wave_hold(
    scope: Scope, policy: Policy, cell: Cell, stage_level: int, at: datetime
) -> str | None:
    """Return why the previous wave blocks `cell` from `stage_level`, or None.

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
    return (
        f"wave {wave}: {ready_count} of {len(earlier_cells)} cells hold {waves.stage} long enough"
    )


def find_wave_opening(
    scope: Scope, policy: Policy, cell: Cell, at: datetime
) -> tuple[tuple[Cell, ...], datetime | None]:
    """Return the cells that `cell` waits for, and when their wave is ready.

    The time assumes that all cells now at the stage stay there; None while too few are. Only for
    cells that `find_wave_hold` blocks.
    """
    waves = policy.waves
    if waves is None:
        return (), None
    earlier_cells = _list_previous_wave(policy, cell, waves, at)
    held_since_times = (
        _find_held_since(scope, policy, earlier_cell, waves, at) for earlier_cell in earlier_cells
    )
    ready_times = sorted(since + waves.hold for since in held_since_times if since is not None)
    needed_count = next(
        (n for n in range(1, len(earlier_cells) + 1) if n / len(earlier_cells) >= waves.share), 0
    )
    return tuple(earlier_cells), ready_times[needed_count - 1] if 0 < needed_count <= len(
        ready_times
    ) else None


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
    acting_stage = find_acting_version(scope, policy, cell, at)
    if acting_stage is None or acting_stage[1] < policy.stage_ids.index(waves.stage):
        return None
    grants = scope.get_cell_state(cell, acting_stage[0]).grants
    return next(grant.held_since for grant in grants if grant.stage == waves.stage)


def is_settling(scope: Scope, policy: Policy, at: datetime) -> bool:
    """Return whether `at_once` cells were widened within the last `settle`."""
    waves = policy.waves
    if waves is None or waves.at_once is None:
        return False
    recent_count = sum(at - widened_at < waves.settle for widened_at in scope.widened_at.values())
    return recent_count >= waves.at_once

"""Which cells may go next: waves of sites, and how many cells at once."""

from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy, Waves
from rollout.core.scope.scope import Scope, acting


def wave_of(policy: Policy, cell: Cell) -> int:
    """Return the wave of the cell's site, 1 by default."""
    return policy.site[cell.site].wave


def wave_holds(scope: Scope, policy: Policy, cell: Cell, rung: int, at: datetime) -> str | None:
    """Say why the wave before holds `cell` back from `rung`, None where nothing does.

    Waves order the way up to their stage, window by window; above it each cell goes by itself.
    """
    waves = policy.waves
    if waves is None or rung > policy.rungs.index(waves.stage):
        return None
    earlier_cells = _wave_before(policy, cell, waves, at)
    if not earlier_cells:
        return None
    ready_count = sum(
        _holds(scope, policy, earlier_cell, waves, at) for earlier_cell in earlier_cells
    )
    if ready_count / len(earlier_cells) >= waves.share:  # a product would miss 11 of 20 at 55 %
        return None
    wave = wave_of(policy, earlier_cells[0])
    return (
        f"wave {wave}: {ready_count} of {len(earlier_cells)} cells hold {waves.stage} long enough"
    )


def wave_opens(
    scope: Scope, policy: Policy, cell: Cell, at: datetime
) -> tuple[tuple[Cell, ...], datetime | None]:
    """Return the cells that `cell` waits for, and when they will have held the stage long enough.

    Meant where `wave_holds` says that something is waited for. None while too few of them stand on
    the stage to say when; else the instant, if all that stand on it stay there.
    """
    waves = policy.waves
    if waves is None:
        return (), None
    earlier_cells = _wave_before(policy, cell, waves, at)
    held_since_times = (
        _held_since(scope, policy, earlier_cell, waves, at) for earlier_cell in earlier_cells
    )
    ready_times = sorted(since + waves.hold for since in held_since_times if since is not None)
    needed_count = next(
        (n for n in range(1, len(earlier_cells) + 1) if n / len(earlier_cells) >= waves.share), 0
    )
    return tuple(earlier_cells), ready_times[needed_count - 1] if 0 < needed_count <= len(
        ready_times
    ) else None


def _wave_before(policy: Policy, cell: Cell, waves: Waves, at: datetime) -> list[Cell]:
    """Return the nearest earlier wave's cells, same window, whose ceiling reaches the stage."""
    stage_level, own_wave = policy.rungs.index(waves.stage), wave_of(policy, cell)
    candidate_cells = [Cell(site.id, cell.window) for site in policy.sites if site.wave < own_wave]
    eligible_cells = [c for c in candidate_cells if policy.ceiling(c, at) >= stage_level]
    last_wave = max((wave_of(policy, c) for c in eligible_cells), default=0)
    return [c for c in eligible_cells if wave_of(policy, c) == last_wave]


def _holds(scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime) -> bool:
    since = _held_since(scope, policy, cell, waves, at)
    return since is not None and at - since >= waves.hold


def _held_since(
    scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime
) -> datetime | None:
    acting_stage = acting(scope, policy, cell, at)
    if acting_stage is None or acting_stage[1] < policy.rungs.index(waves.stage):
        return None
    grants = scope.state(cell, acting_stage[0]).grants
    return next(grant.held_since for grant in grants if grant.stage == waves.stage)


def settling(scope: Scope, policy: Policy, at: datetime) -> bool:
    """Say whether as many cells as the policy allows at once were widened within `settle`."""
    waves = policy.waves
    if waves is None or waves.at_once is None:
        return False
    recent_count = sum(at - widened_at < waves.settle for widened_at in scope.widened_at.values())
    return recent_count >= waves.at_once

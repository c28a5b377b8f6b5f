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
    ahead = _wave_before(policy, cell, waves, at)
    if not ahead:
        return None
    held = sum(_holds(scope, policy, c, waves, at) for c in ahead)
    if held / len(ahead) >= waves.share:  # a product would miss 11 of 20 at 55 %
        return None
    wave = wave_of(policy, ahead[0])
    return f"wave {wave}: {held} of {len(ahead)} cells hold {waves.stage} long enough"


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
    ahead = _wave_before(policy, cell, waves, at)
    held = (_held_since(scope, policy, c, waves, at) for c in ahead)
    ready = sorted(since + waves.hold for since in held if since is not None)
    enough = next((n for n in range(1, len(ahead) + 1) if n / len(ahead) >= waves.share), 0)
    return tuple(ahead), ready[enough - 1] if 0 < enough <= len(ready) else None


def _wave_before(policy: Policy, cell: Cell, waves: Waves, at: datetime) -> list[Cell]:
    """Return the nearest earlier wave's cells, same window, whose ceiling reaches the stage."""
    rung, own = policy.rungs.index(waves.stage), wave_of(policy, cell)
    same = [Cell(site.id, cell.window) for site in policy.sites if site.wave < own]
    able = [c for c in same if policy.ceiling(c, at) >= rung]
    last = max((wave_of(policy, c) for c in able), default=0)
    return [c for c in able if wave_of(policy, c) == last]


def _holds(scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime) -> bool:
    since = _held_since(scope, policy, cell, waves, at)
    return since is not None and at - since >= waves.hold


def _held_since(
    scope: Scope, policy: Policy, cell: Cell, waves: Waves, at: datetime
) -> datetime | None:
    here = acting(scope, policy, cell, at)
    if here is None or here[1] < policy.rungs.index(waves.stage):
        return None
    grants = scope.state(cell, here[0]).grants
    return next(grant.held_since for grant in grants if grant.stage == waves.stage)


def settling(scope: Scope, policy: Policy, at: datetime) -> bool:
    """Say whether as many cells as the policy allows at once were widened within `settle`."""
    waves = policy.waves
    if waves is None or waves.at_once is None:
        return False
    recent = sum(at - widened < waves.settle for widened in scope.widened_at.values())
    return recent >= waves.at_once

"""Confidence floors of grants: a widening lowers them, narrowing raises them."""

from dataclasses import replace
from math import inf

from rollout.engine.decide.scope import CellState, Grant
from rollout.kernel.policy.confidence_floors import format_floor
from rollout.kernel.policy.policy import Policy


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

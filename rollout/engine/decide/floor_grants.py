"""Confidence floors of grants: a widening lowers them, narrowing raises them.

Which stage and confidence floor a cell may open next.
"""

from dataclasses import replace
from datetime import datetime
from math import inf
from typing import NamedTuple

from rollout.engine.decide.scope import CellState, Grant, Scope, compute_held_level
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.confidence_floors import find_floor_index, format_floor, list_floors
from rollout.kernel.policy.gates import is_gate_open
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

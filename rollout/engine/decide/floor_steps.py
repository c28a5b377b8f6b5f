"""Which stage and confidence floor a cell may open next."""

from datetime import datetime
from typing import NamedTuple

from rollout.engine.decide.floor_grants import get_acting_floor
from rollout.engine.decide.scope import CellState, Scope, compute_held_level
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.confidence_floors import find_floor_index, format_floor, list_floors
from rollout.kernel.policy.gates import is_gate_open
from rollout.kernel.policy.policy import Policy


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

"""Evidence at each confidence floor, and agreement in the band between two floors."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rollout.core.policy.cell_evidence import VersionEvidence
from rollout.core.policy.confidence_floors import (
    describe_floor_cases,
    find_floor_index,
    format_floor,
    list_floors,
)
from rollout.core.policy.gates import GateReading, read_gate
from rollout.core.scope.floor_grants import get_acting_floor
from rollout.core.scope.scope import CellState
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.tally.evidence_view import EvidenceView


@dataclass(frozen=True, slots=True)
class FloorEvidence:
    """The gate of a stage at one confidence floor.

    A floor's average can hide a bad band, so the band up to the next floor has its own figures.

    Attributes:
        cases: of which confidence.
        to: the stage of the gate: the one that the cell holds, or the first one.
        reached: decided units at or above the floor, and how many of them agree.
        band: the same of those below the next floor.
        log_e, log_e_needed: of the condition that is furthest from its threshold.
        state: `acting`, `met` or `not met`.
        undecided_units: units at or above the floor without a decision; gates count them as
            disagreements.
    """

    floor: str
    cases: str
    to: str
    reached: Share
    band: Share
    log_e: float
    log_e_needed: float
    state: str
    undecided_units: int = 0


def compute_floor_evidence(
    view: EvidenceView, state: CellState, stage_level: int, slot: int
) -> tuple[FloorEvidence, ...]:
    """Return the evidence at each floor up to a slot; () without several floors or a gate.

    `stage_level` is the one that the version holds, 0 for shadow.
    """
    policy, rules = view.policy, view.policy.evidence
    gate = policy.find_gate(max(stage_level, 1), view.cell)
    if not view.floor_views or gate is None:
        return ()
    acting_floor = get_acting_floor(state)
    counts = [*(_count_agreement(floor_view, slot) for floor_view in view.floor_views), (0, 0)]
    rows = []
    for i, floor in enumerate(list_floors(rules)):
        evidence = view.floor_views[i].read_evidence(slot)
        reading = _read_floor(evidence, view, state, stage_level)
        log_e, needed = _find_weakest(reading, view)
        (agreed, judged), (agreed_above, judged_above) = counts[i], counts[i + 1]
        is_acting = bool(acting_floor) and find_floor_index(rules, acting_floor) == i
        rows.append(
            FloorEvidence(
                floor=format_floor(floor),
                cases=describe_floor_cases(format_floor(floor)),
                to=gate.to,
                reached=compute_share(agreed, judged),
                band=compute_share(agreed - agreed_above, judged - judged_above),
                log_e=log_e,
                log_e_needed=needed,
                state="acting" if is_acting else "met" if reading.is_met else "not met",
                undecided_units=evidence.attempt.missing,
            )
        )
    return tuple(rows)


def list_acting_cases(floors: Iterable[FloorEvidence]) -> list[str]:
    """Return on which cases a version acts, for a sentence; [] without several floors."""
    return [f"acts on {floor.cases}" for floor in floors if floor.state == "acting"]


def _read_floor(
    evidence: VersionEvidence, view: EvidenceView, state: CellState, stage_level: int
) -> GateReading:
    level = max(stage_level, 1)
    return read_gate(
        view.policy, view.cell, level, state.risk_share, evidence.attempt, evidence.entered
    )


def _find_weakest(reading: GateReading, view: EvidenceView) -> tuple[float, float]:
    """Return log E of the condition that is furthest from its threshold, and the threshold."""
    pairs = [(r.compute_log_e(view.policy), -float(np.log(r.risk))) for r in reading.readings]
    return min(pairs, key=lambda pair: pair[0] - pair[1])


def _count_agreement(view: EvidenceView, slot: int) -> tuple[int, int]:
    """Return the decided units of the attempt that agree, and all of them, up to a slot."""
    rows = view.gate_rows.select(view.gate_rows.slot <= slot)
    classes = view.unit_classes
    is_judged = classes.is_whole_unit & ~classes.is_missing
    agreed = (is_judged & classes.agrees)[rows.unit_class]
    return int(agreed.sum()), int(is_judged[rows.unit_class].sum())

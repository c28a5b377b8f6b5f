"""Confidence floors: what widens is a stage, for cases of at least some confidence.

Each floor has a gate of its own, on the units at or above it. The floors of a policy share each
gate's risk equally, so the chance that any of them is ever met while its average so far misses the
threshold is at most the gate's risk, whatever the confidence is worth.
"""

from rollout.kernel.policy.policy import EvidenceRules, Gate, Policy

MAX_FLOORS = 8


def list_floors(rules: EvidenceRules) -> tuple[float, ...]:
    """Return the confidence floors, lowest first; 0 asks for no confidence."""
    return (rules.lowest_floor or 0.0, *rules.higher_floors)


def reaches_floor(confidence: float | None, floor: float | None) -> bool:
    """Return whether a confidence is a share that reaches a floor; without a floor it always does.

    >>> reaches_floor(0.8, 0.8), reaches_floor(None, 0.0), reaches_floor(1.01, 0.8)
    (True, False, False)
    """
    return floor is None or (confidence is not None and floor <= confidence <= 1)


def compute_gate_risk(policy: Policy, gate: Gate, risk_share: float) -> float:
    """Return the risk that an attempt may use at each floor of a gate.

    `risk_share` is the attempt's share of the gate's risk.
    """
    return gate.risk * risk_share / (1 + len(policy.evidence.higher_floors))


def format_floor(floor: float) -> str:
    """Return a floor as the ledger stores it: decimal text that reads back as the same number.

    >>> format_floor(0.0), format_floor(0.97)
    ('0', '0.97')
    """
    return repr(floor) if floor else "0"


def list_floor_texts(rules: EvidenceRules) -> tuple[str, ...]:
    """Return several confidence floors as the ledger stores them; () for a single one.

    >>> list_floor_texts(EvidenceRules(confidence_floors=(0.0, 0.6, 0.8)))
    ('0', '0.6', '0.8')
    """
    return tuple(map(format_floor, list_floors(rules))) if rules.higher_floors else ()


def find_floor_index(rules: EvidenceRules, floor: str) -> int:
    """Return the place of a floor in the policy's list, 0 for "".

    Of a floor that the list lacks, it is the place of the next higher one.
    """
    value, floors = float(floor or 0), list_floors(rules)
    return next((i for i, other in enumerate(floors) if other >= value), len(floors) - 1)


def describe_floor(rules: EvidenceRules, floor: str) -> str:
    """Describe the cases that a reading speaks of.

    >>> describe_floor(EvidenceRules(confidence_floors=(0.0, 0.6, 0.8)), "0.8")
    'cases of confidence 0.8 or more; each of the 3 confidence floors has 1/3 of the risk'
    """
    count = len(list_floors(rules))
    shared = f"each of the {count} confidence floors has 1/{count} of the risk"
    return f"{describe_floor_cases(floor)}; {shared}"


def describe_floor_cases(floor: str) -> str:
    """Describe the cases at or above a floor; below the lowest one are those without a confidence.

    >>> describe_floor_cases("0")
    'all cases that have a confidence'
    """
    if float(floor):
        return f"cases of confidence {floor} or more"
    return "all cases that have a confidence"

"""PLACEHOLDER by the founder so that imports work; helper Policy overwrites this file whole."""

from rollout.core.places import Cell
from rollout.core.policy import Policy


def loosened(old: Policy, new: Policy) -> tuple[str, ...]:
    return ()


def redefined(old: Policy, new: Policy, cell: Cell) -> bool:
    return False

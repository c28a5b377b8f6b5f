"""What a cell's gates ask, and what an edit makes them ask anew."""

from collections.abc import Iterator

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.kernel.measures import Condition


def list_new_questions(old: Policy, new: Policy, cell: Cell) -> tuple[Condition, ...]:
    """Return the conditions of a cell that start anew by an edit; both policies have the cell.

    These are all of a gate that asks something new, or no longer asks something: whoever has seen
    the answers could drop the question that they speak against, or choose the one that they favour.
    """
    return tuple(dict.fromkeys(_find_new_questions(old, new, cell)))


def _find_new_questions(old: Policy, new: Policy, cell: Cell) -> Iterator[Condition]:
    for level, stage in enumerate(new.stage_ids[1:], start=1):
        if new.find_gate(level, cell) is None:
            continue
        conditions, before = new.list_conditions(level, cell), set[tuple[object, ...]]()
        if old.find_gate_to(stage, cell) is not None:
            old_level = old.stage_ids.index(stage)
            before = {c.question for c in old.list_conditions(old_level, cell)}
        if {condition.question for condition in conditions} != before:
            yield from conditions

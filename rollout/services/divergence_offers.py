"""What a list of divergences can be narrowed to: what its cases have, and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout.core.measures import OUTSIDE
from rollout.core.policy import Policy
from rollout.services.compared import Looked, Pair
from rollout.store.compared import Said
from rollout.tally.units import UNLISTED


@dataclass(frozen=True, slots=True)
class Offered:
    """What a list can be narrowed to, in order.

    Sites and windows are all in which the version was ever counted; answers and attributes are
    those of the cases that were looked at.
    """

    sites: tuple[str, ...]
    windows: tuple[str, ...]
    human: tuple[str, ...]
    model: tuple[str, ...]
    costs: tuple[float, ...]
    slices: Mapping[str, tuple[str, ...]]


def offered(looked: Looked, pairs: Sequence[Pair], policy: Policy) -> Offered:
    """Return what a list can be narrowed to.

    Args:
        looked: the units that were looked at, those that agree among them.
        pairs: those that differ, however dear they are and whatever was said.
        policy: for its order, and the attributes that it names as slices.
    """
    lever, cells = looked.where.lever, looked.places.values()
    said = () if lever.number is not None else looked.counts
    return Offered(
        sites=_ordered((cell.site for cell in cells), policy.site),
        windows=_ordered((cell.window for cell in cells), [one.id for one in policy.windows]),
        human=_ordered(_answers(said, pairs, 0), lever.labels),
        model=_ordered(_answers(said, pairs, 1), lever.labels),
        costs=tuple(cost for cost in reversed(lever.cost_levels) if cost > 0),
        slices=_slices(looked, policy.slices),
    )


def _answers(said: Iterable[Said], pairs: Sequence[Pair], side: int) -> Iterable[str]:
    """Return the answers of one side in the words that rows have."""
    told = {(pair.human, pair.model) for pair in pairs}
    return {both[side] for both in {*said, *told}} - {UNLISTED, OUTSIDE}


def _slices(looked: Looked, names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    if not names:
        return {}
    texts = {unit.attributes for unit in looked.around}
    seen: dict[str, set[str]] = {}
    for attributes in map(json.loads, texts):
        for name in attributes.keys() & set(names):
            seen.setdefault(name, set()).add(attributes[name])
    return {name: tuple(sorted(seen[name])) for name in names if name in seen}


def _ordered(found: Iterable[str], first: Iterable[str]) -> tuple[str, ...]:
    """Return what is there, in a policy's order, then what it does not name."""
    there = set(found)
    return (*(one for one in first if one in there), *sorted(there - set(first)))

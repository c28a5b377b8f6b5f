"""What a list of divergences can be narrowed to: what its cases have, and nothing else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from rollout.core.levers import Lever
from rollout.core.policy import Policy
from rollout.tally.frames import ATTRIBUTE


@dataclass(frozen=True, slots=True)
class Offered:
    """What a list can be narrowed to: what its cases have, in order."""

    sites: tuple[str, ...]
    windows: tuple[str, ...]
    human: tuple[str, ...]
    model: tuple[str, ...]
    costs: tuple[float, ...]
    slices: Mapping[str, tuple[str, ...]]


def offered(pairs: pl.DataFrame, policy: Policy, lever: Lever) -> Offered:
    """Return what some pairs of a lever can be narrowed to.

    Args:
        pairs: as `pair_up` gives them, those that agree among them.
        policy: for its order, and the attributes that it names as slices.
        lever: for its labels and costs.
    """
    return Offered(
        sites=_ordered(pairs["site"], policy.site),
        windows=_ordered(pairs["window"], [window.id for window in policy.windows]),
        human=_ordered(pairs["human"], lever.labels),
        model=_ordered(pairs["model"], lever.labels),
        costs=tuple(cost for cost in reversed(lever.cost_levels) if cost > 0),
        slices={
            name: _ordered(pairs[ATTRIBUTE + name], ())
            for name in policy.slices
            if ATTRIBUTE + name in pairs.columns
        },
    )


def _ordered(found: Iterable[str | None], first: Iterable[str]) -> tuple[str, ...]:
    """Return what is there, in a policy's order, then what it does not name."""
    there = {one for one in found if one is not None}
    return (*(one for one in first if one in there), *sorted(there - set(first)))

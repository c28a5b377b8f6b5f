"""The values that a list of divergences can be filtered by."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout.core.policy.measures import OUTSIDE
from rollout.core.policy.policy import Policy
from rollout.services.divergences.closed_units import (
    ComparedUnits,
    DifferingPair,
)
from rollout.store.counting.closed_units import AnswerPair
from rollout.tally.units import UNLISTED


@dataclass(frozen=True, slots=True)
class DivergenceFilterOptions:
    """Available filter values, in display order.

    Sites and windows are all in which the version was ever counted. Answers and attributes come
    from
    the compared units.
    """

    sites: tuple[str, ...]
    windows: tuple[str, ...]
    human_answers: tuple[str, ...]
    model_answers: tuple[str, ...]
    costs: tuple[float, ...]
    slices: Mapping[str, tuple[str, ...]]


def build_filter_options(
    compared_units: ComparedUnits, pairs: Sequence[DifferingPair], policy: Policy
) -> DivergenceFilterOptions:
    """Return the available filter values of a list.

    Args:
        pairs: all differing pairs, before the filters for answers and cost.
        policy: gives the order of values and the slices.
    """
    lever, cells = compared_units.unit_filter.lever, compared_units.series_cells.values()
    answer_counts = compared_units.counts if lever.has_single_labels else ()
    return DivergenceFilterOptions(
        sites=_order_values((cell.site for cell in cells), policy.sites_by_id),
        windows=_order_values(
            (cell.window for cell in cells), [window.id for window in policy.windows]
        ),
        human_answers=_order_values(_collect_answers(answer_counts, pairs, 0), lever.labels),
        model_answers=_order_values(_collect_answers(answer_counts, pairs, 1), lever.labels),
        costs=tuple(cost for cost in reversed(lever.cost_levels) if cost > 0),
        slices=_collect_slices(compared_units, policy.slices),
    )


def _collect_answers(
    class_answers: Iterable[AnswerPair], pairs: Sequence[DifferingPair], side: int
) -> Iterable[str]:
    """Return the listed answers of one side (0: human, 1: model)."""
    pair_answers = {(pair.human, pair.model) for pair in pairs}
    return {answers[side] for answers in {*class_answers, *pair_answers}} - {UNLISTED, OUTSIDE}


def _collect_slices(
    compared_units: ComparedUnits, slice_names: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    if not slice_names:
        return {}
    texts = {unit.attributes for unit in compared_units.unsliced_units}
    values_by_slice: dict[str, set[str]] = {}
    for attributes in map(json.loads, texts):
        for slice_name in attributes.keys() & set(slice_names):
            values_by_slice.setdefault(slice_name, set()).add(attributes[slice_name])
    return {
        slice_name: tuple(sorted(values_by_slice[slice_name]))
        for slice_name in slice_names
        if slice_name in values_by_slice
    }


def _order_values(values: Iterable[str], policy_order: Iterable[str]) -> tuple[str, ...]:
    """Return distinct values in policy order, then all others sorted."""
    value_set = set(values)
    return (
        *(value for value in policy_order if value in value_set),
        *sorted(value_set - set(policy_order)),
    )

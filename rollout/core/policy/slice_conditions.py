"""Values of attributes: which are recorded, and what a gate asks of each of them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from rollout.core.policy.cell_evidence import ValueCounts
from rollout.core.policy.policy import Policy
from rollout.kernel.measures import Condition, MeasureKey, Watch
from rollout.kernel.populations import EachValue
from rollout.kernel.readings import FEW_OF_VALUE, MANY_VALUES, NO_UNIT, UnmetRequirement

ABSENT_VALUE, UNRECORDED_VALUE = "(none)", "(not recorded)"
MAX_SLICE_VALUES = 100  # with more values an attribute is a key of cases, and no group


def names_slices(condition: Condition) -> bool:
    """Return whether a guard's alarm names slices, or labels whose share moved."""
    return condition.measure.watch is Watch.LABELS or bool(condition.population.attribute)


def list_slice_attributes(policy: Policy) -> tuple[str, ...]:
    """Return the attributes that gates and guards slice by, sorted."""
    conditions = [c for gate in policy.gates for c in gate.require]
    conditions += [guard.condition for guard in policy.guards]
    return tuple(sorted({c.population.attribute for c in conditions} - {""}))


def list_recorded_attributes(policy: Policy) -> tuple[str, ...]:
    """Return the attributes stored with each unit: also those that reports slice by."""
    return tuple(sorted({*list_slice_attributes(policy), *policy.slices}))


@lru_cache(maxsize=4096)
def _parse_values(text: str) -> Mapping[str, str | None]:
    return json.loads(text) if text else {}


def read_slice_value(text: str | None, attribute: str) -> str:
    """Return an attribute's value in a unit's stored values.

    >>> [read_slice_value(text, "a") for text in ('{"a":"x"}', '{"a":null}', "")]
    ['x', '(none)', '(not recorded)']
    """
    values = _parse_values(text or "")
    return (values[attribute] or ABSENT_VALUE) if attribute in values else UNRECORDED_VALUE


def select_values(text: str | None, attributes: tuple[str, ...]) -> str:
    """Return the stored values of some attributes alone, as JSON; "" for none of them.

    >>> select_values('{"a":"x","b":"y"}', ("a", "c"))
    '{"a":"x"}'
    """
    values = _parse_values(text or "")
    selected = {name: values[name] for name in attributes if name in values}
    return json.dumps(selected, ensure_ascii=False, separators=(",", ":")) if selected else ""


def expand_conditions(
    conditions: Iterable[Condition], slices: Mapping[MeasureKey, ValueCounts]
) -> Iterator[Condition]:
    """Yield the conditions; a slice condition once for each value seen, or as written."""
    for condition in conditions:
        attribute = condition.population.attribute
        values = slices.get(condition.key, {}) if attribute else {}
        if 0 < len(values) <= MAX_SLICE_VALUES:
            yield from (
                replace(condition, population=EachValue(attribute, value))
                for value in sorted(values)
            )
        else:
            yield condition


def list_unmet_slices(
    conditions: Iterable[Condition], slices: Mapping[MeasureKey, ValueCounts], *, has_minimum: bool
) -> Iterator[UnmetRequirement]:
    """Yield why slices hold a gate, whatever their agreement: values, units."""
    for condition in conditions:
        attribute = condition.population.attribute
        if not attribute:
            continue
        values = slices.get(condition.key, {})
        if not values:
            yield UnmetRequirement(NO_UNIT, subject=str(condition))
        elif len(values) > MAX_SLICE_VALUES:
            yield UnmetRequirement(MANY_VALUES, len(values), MAX_SLICE_VALUES, attribute)
        elif has_minimum:
            yield from _list_small_values(condition, values)


def _list_small_values(condition: Condition, values: ValueCounts) -> Iterator[UnmetRequirement]:
    attribute, minimum = condition.population.attribute, condition.population.minimum
    for value, counts in sorted(values.items()):
        if counts.decided < minimum:
            yield UnmetRequirement(FEW_OF_VALUE, counts.decided, minimum, f"{attribute}={value}")

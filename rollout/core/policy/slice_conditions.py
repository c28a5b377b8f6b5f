"""Gate conditions that every value of an attribute must meet by itself.

A case without the attribute has the value `(none)`; a unit that was counted before the attribute
was recorded has `(not recorded)`. Both are values like any other. Every value has the gate's whole
risk: all of them must pass, so the chance that one passes wrongly needs no correction.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from rollout.core.policy.cell_evidence import MeasureKey, ValueCounts
from rollout.core.policy.policy import Policy
from rollout.kernel.measures import Condition, Watch

ABSENT_VALUE, UNRECORDED_VALUE = "(none)", "(not recorded)"
MAX_SLICE_VALUES = 100  # with more values an attribute is a key of cases, and no group


@dataclass(frozen=True, slots=True)
class SliceCondition(Condition):
    """A condition on each value of the attribute `slice`.

    Attributes:
        value: the value that a reading is about; None for the condition as the policy writes it.
        minimum: decided units that each value needs, in this attempt.
    """

    slice: str = ""
    value: str | None = None
    minimum: ClassVar[int] = 30

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Return what is measured, without the threshold and the value."""
        return (f"{self.measure} by {self.slice}", self.label, self.lever)

    @property
    def subject(self) -> str:
        """Return the slice or its value: `each group` or `group=new`."""
        return f"each {self.slice}" if self.value is None else f"{self.slice}={self.value}"

    def __str__(self) -> str:
        """Return the condition as text.

        >>> from rollout.kernel.measures import MEASURES
        >>> condition = SliceCondition(MEASURES["agreement"], 0.9, slice="group")
        >>> str(condition), str(replace(condition, value="new"))
        ('agreement of each group at least 90 %', 'agreement of group=new at least 90 %')
        """
        return describe_with_subject(self, self.subject)


def describe_with_subject(condition: Condition, subject: str) -> str:
    """Return a condition about a subject, as written without one.

    >>> from rollout.kernel.measures import MEASURES
    >>> describe_with_subject(Condition(MEASURES["drift"], 0.1), "more decision=bear")
    'drift of more decision=bear at most 10 %'
    """
    if not subject:
        return str(condition)
    lever = f" ({condition.lever})" if condition.lever else ""
    bound = "at least" if condition.at_least else "at most"
    return f"{condition.measure} of {subject}{lever} {bound} {condition.threshold_text}"


def names_slices(condition: Condition) -> bool:
    """Return whether a guard's alarm names slices, or labels whose share moved."""
    return condition.measure.watch is Watch.LABELS or isinstance(condition, SliceCondition)


def list_slice_attributes(policy: Policy) -> tuple[str, ...]:
    """Return the attributes that gates and guards slice by, sorted."""
    conditions = [c for gate in policy.gates for c in gate.require]
    conditions += [guard.condition for guard in policy.guards]
    return tuple(sorted({c.slice for c in conditions if isinstance(c, SliceCondition)}))


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
        values = slices.get(condition.key, {}) if isinstance(condition, SliceCondition) else {}
        if isinstance(condition, SliceCondition) and 0 < len(values) <= MAX_SLICE_VALUES:
            yield from (replace(condition, value=value) for value in sorted(values))
        else:
            yield condition


def list_unmet_slices(
    conditions: Iterable[Condition], slices: Mapping[MeasureKey, ValueCounts], *, has_minimum: bool
) -> Iterator[str]:
    """Yield why slices hold a gate, whatever their agreement: values, units."""
    for condition in conditions:
        if not isinstance(condition, SliceCondition):
            continue
        values = slices.get(condition.key, {})
        if not values:
            yield f"no unit for {condition}"
        elif len(values) > MAX_SLICE_VALUES:
            yield (
                f"{condition.slice} has {len(values)} values, and at most {MAX_SLICE_VALUES} can be"
                " slices; slice by an attribute with fewer values"
            )
        elif has_minimum:
            yield from _list_small_values(condition, values)


def _list_small_values(condition: SliceCondition, values: ValueCounts) -> Iterator[str]:
    for value, counts in sorted(values.items()):
        if counts.decided < condition.minimum:
            yield (
                f"{counts.decided} of {condition.minimum} decided units with"
                f" {condition.slice}={value}; wait for more, or leave this value to humans with"
                f" `when` in the window"
            )

"""Evidence of one version in one cell: its counts, guards, values and confidence floors.

With floors, what widens is a stage for cases of at least some confidence. Each floor has a gate of
its own, on the units at or above it. The floors of a policy share each gate's risk equally, so the
chance that any of them is ever met while its average so far misses the threshold is at most the
gate's risk, whatever the confidence is worth.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from rollout.kernel.facts import FEW_OF_VALUE, MANY_VALUES, NO_UNIT, AlarmSubject, UnmetRequirement
from rollout.kernel.measures import Condition, MeasureKey, Watch
from rollout.kernel.policy.familiarity import AttributeValue, ValueReading
from rollout.kernel.policy.policy import EvidenceRules, Gate, Policy
from rollout.kernel.populations import EachValue
from rollout.kernel.statistics.gain import ArmUnits


class SliceCounts(NamedTuple):
    """Units of one attribute value: successes, failures, and those without a decision.

    A unit without a decision is a failure.
    """

    agreed: int
    disagreed: int
    missing: int = 0

    @property
    def decided(self) -> int:
        """Return the number of units with a decision."""
        return self.agreed + self.disagreed - self.missing


ValueCounts = Mapping[str, SliceCounts]


@dataclass(frozen=True, slots=True)
class EvidenceCounts:
    """Counts of the units of one time span.

    Attributes:
        closed: units that closed in the span.
        missing: closed units without an answer of both sides that may count.
        recent_closed, recent_missing: those of the last seven days with units.
        losses: why units are missing, by name (`UNDECIDED` or one of `SILENT_REASONS`).
        days: local days with a judged unit.
        reviewers: distinct reviewers of these units.
        counts: per measure (successes, failures) of a share, or units per cost level; zeros
            without records.
        arms: per gain the units of both arms that closed in the span.
        slices: per condition by slice the counts of each value of the attribute.
    """

    closed: int = 0
    missing: int = 0
    recent_closed: int = 0
    recent_missing: int = 0
    losses: Mapping[str, int] = field(default_factory=dict)
    days: int = 0
    reviewers: int = 0
    counts: Mapping[MeasureKey, tuple[int, ...]] = field(default_factory=dict)
    arms: Mapping[MeasureKey, ArmUnits] = field(default_factory=dict)
    slices: Mapping[MeasureKey, ValueCounts] = field(default_factory=dict)

    @property
    def decided(self) -> int:
        """Return the number of units with a decision."""
        return self.closed - self.missing

    @property
    def has_evidence(self) -> bool:
        """Return whether any unit counts for or against the model."""
        has_counts = self.decided > 0 or any(map(any, self.counts.values()))
        return has_counts or any(map(len, self.arms.values()))


@dataclass(frozen=True, slots=True)
class GuardReading:
    """State of a guard: alarm, records against its condition, and all of them.

    `good_since` is when an operational guard's measure last turned good, None while it is bad.
    `has_recovered` is what a test of the records after an alarm says instead, None without one.
    `subject` is the slice that an alarm is about.
    `is_calm` says that a detector is far below its alarm; only asked for at confidence floors.
    """

    is_alarm: bool
    value: int = 0
    records: int = 0
    good_since: datetime | None = None
    has_recovered: bool | None = None
    subject: AlarmSubject | None = None
    is_calm: bool = False


@dataclass(frozen=True, slots=True)
class VersionEvidence:
    """Evidence of one cell and version through a slot.

    Attributes:
        attempt: all evidence of the current attempt.
        entered: the part since the cell entered its current stage.
        spans: by stage, the part within the span of that stage's grant.
        guards: readings by guard id; guards without records may be missing.
        values: readings of attribute values, if the policy asks for familiar ones.
        floors: evidence at each confidence floor, lowest first; () without several. The rest is
            then that of the lowest floor, and `guards` those of the acting one.
    """

    attempt: EvidenceCounts = EvidenceCounts()
    entered: EvidenceCounts = EvidenceCounts()
    spans: Mapping[str, EvidenceCounts] = field(default_factory=dict)
    guards: Mapping[str, GuardReading] = field(default_factory=dict)
    values: Mapping[AttributeValue, ValueReading] = field(default_factory=dict)
    floors: tuple["VersionEvidence", ...] = ()

    def get_floor(self, floor_index: int) -> "VersionEvidence":
        """Return the evidence at a confidence floor, by its place in the policy's list."""
        return self.floors[floor_index] if self.floors else self


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

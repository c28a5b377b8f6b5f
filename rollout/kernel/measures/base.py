"""What a measure is: what it takes from a unit, how a policy writes it, what its guards read.

Nobody outside this folder compares a measure with another: what differs is an ability here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from rollout.kernel.populations import ALL_UNITS, Population

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    import numpy as np
    from numpy.typing import NDArray

    from rollout.kernel.units import UnitClass

    Shares = TypeVar("Shares", float, NDArray[np.float64])
else:
    Shares = TypeVar("Shares")

MeasureKey: TypeAlias = tuple[str, str | None, str | None]
"""Measure and population, label, action or outcome, and lever or arm."""


class Statistic(Enum):
    """How counts become a value, and evidence for or against a threshold."""

    SHARE = auto()  # successes among successes and failures
    MEAN = auto()  # of the cost levels, which have a column each
    EXCESS = auto()  # the first column beyond the second, per 100
    DIFFERENCE = auto()  # of an outcome's means between the arms of a stage
    NONE = auto()  # guards read records, and no gate asks


class ThresholdUnit(Enum):
    """The unit of a threshold."""

    SHARE = auto()
    PART = auto()  # a share that may be 0
    COST = auto()
    PER_HUNDRED = auto()
    COUNT = auto()
    SECONDS = auto()
    VALUE = auto()  # of an outcome

    def format(self, threshold: float) -> str:
        """Return a threshold with its unit; that of an outcome is the condition's to add."""
        if self in {ThresholdUnit.SHARE, ThresholdUnit.PART}:
            return f"{threshold * 100:g} %"
        return f"{threshold:g} s" if self is ThresholdUnit.SECONDS else f"{threshold:g}"


class Watch(Enum):
    """What a guard on a measure reads."""

    UNITS = auto()  # decided units, by a detector
    LABELS = auto()  # shares of labels or slices, a detector each
    OUTCOMES = auto()  # of both arms of a stage
    RECORDS = auto()  # shares of records, by a test
    SIGNS = auto()  # signs of life of a site
    HARMS = auto()  # outcomes that name a harm


class Subject(Enum):
    """What a condition on a measure names, and whether it must."""

    NONE = auto()
    LABEL = auto()
    ACTION = auto()
    OUTCOME = auto()
    HARM = auto()  # a label of an outcome, or none for any


class AnsweringLever(Protocol):
    """What a measure asks of a lever."""

    @property
    def many(self) -> bool:
        """Return whether its answers are sets of labels."""

    @property
    def actions(self) -> Sequence[str]:
        """Return its actions."""

    def find_action(self, label: str) -> str | None:
        """Return a label's action, None if the lever lacks the label."""


class CountedLevers(Protocol):
    """What a measure asks of a policy."""

    @property
    def levers_by_id(self) -> Mapping[str, AnsweringLever]:
        """Return its levers."""

    @property
    def whole_unit_lever(self) -> str:
        """Return the lever of units that a condition without one is about."""


class Expectation(NamedTuple):
    """What the author of a policy expects of a measure.

    Attributes:
        share: of all units that it counts; None if unknown.
        rate: share of successes among them; None if unknown.
    """

    share: float | None
    rate: float | None


class Measure(ABC):
    """A measure of gates or guards; one object of each class exists, in `MEASURES`.

    Attributes:
        at_least: whether more is better, so that a threshold is `at_least`.
        for_gate: whether gates can require it.
        gate_hint: what to write instead of requiring it in a gate.
        guard_span: span of a guard by default; None if it looks at every unit.
        statistic: how its counts become evidence.
        min_records: fewest records of a guard's test.
        needs_lever: whether a condition can name a lever.
        has_slices, has_planted, has_floors, has_sets: whether it can be asked of each value of an
            attribute, of planted cases, at several confidence floors, of sets of labels.
        starts_shares: whether a gate on it may lead to a stage that samples cases for the model.
        covers_all_labels: whether it is the share of all units that agree, whatever their label.
        is_rated: whether `expect` of a policy, or records, give it a rate.
        counts_missing: whether a missing unit is a failure.
        is_operational: whether it is about devices and answers, not about quality.
        is_of_site: whether a guard reads a whole site: one device, one network.
        is_of_cell: whether a suspension is one incident of a cell, not of a site.
        has_version: whether what a guard reads belongs to a version.
        reads_assisted: whether units count whose reviewer saw the proposal, instead of blind ones.
        reads_audits: whether the audits alone count.
        reads_more: whether a guard reads predictions, outcomes or signs, not counted units alone.
        reads_latency: whether a record is bad if it took longer than the threshold.
        is_longer_stricter: whether a longer span of a guard reaches its threshold sooner.
        unnamed_subject: what a condition without a subject is of.
    """

    at_least = False
    for_gate = False
    gate_hint = "make it a guard"
    guard_span: timedelta | None = None
    statistic = Statistic.NONE
    subject = Subject.NONE
    min_records = 0
    needs_lever = False
    has_slices = False
    has_planted = False
    has_floors = True
    has_sets = True
    starts_shares = False
    covers_all_labels = False
    is_rated = False
    counts_missing = False
    is_operational = False
    is_of_site = False
    is_of_cell = False
    has_version = True
    reads_assisted = False
    reads_audits = False
    reads_more = False
    reads_latency = False
    is_longer_stricter = False
    unnamed_subject = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name in policies, answers and ledgers."""

    @property
    @abstractmethod
    def definition(self) -> str:
        """Return what it is, for the reference page."""

    @property
    @abstractmethod
    def example(self) -> str:
        """Return a threshold as a policy writes it."""

    @property
    @abstractmethod
    def unit(self) -> ThresholdUnit:
        """Return the unit of its thresholds."""

    @property
    @abstractmethod
    def guard_effect(self) -> str:
        """Return what a guard does by default; "" if guards can't watch it."""

    @property
    @abstractmethod
    def watch(self) -> Watch:
        """Return what a guard reads."""

    @property
    @abstractmethod
    def against(self) -> str:
        """Return what counts against it, to follow `15 of 182`; `{subject}` is of the condition."""

    def describe_against(self, subject: str) -> str:
        """Return what counts against it, of a subject."""
        return self.against.format(subject=subject)

    def __str__(self) -> str:
        """Return its name."""
        return self.name

    __repr__ = __str__

    @property
    def is_quality(self) -> bool:
        """Return whether an alarm speaks against the version, so that evidence starts anew."""
        return not (self.is_operational or self.reads_audits)

    @property
    def counts_units(self) -> bool:
        """Return whether false alarms of a guard are counted by units."""
        return self.watch in {Watch.UNITS, Watch.LABELS, Watch.OUTCOMES}

    @property
    def is_timed(self) -> bool:
        """Return whether false alarms of a guard are counted by time."""
        return self.watch in {Watch.RECORDS, Watch.SIGNS}

    def get_width(self, cost_levels: int) -> int:
        """Return how many columns its counts have."""
        return 2

    def list_columns_against(self, width: int) -> Sequence[int]:
        """Return the columns whose units speak against the threshold."""
        return (1,)

    def weigh_losses(self, cost_shares: Sequence[float]) -> Sequence[float]:
        """Return how bad a unit of each column is, in [0, 1]."""
        return (0.0, 1.0)

    def find_column(
        self, condition: Condition, unit: UnitClass, policy: CountedLevers
    ) -> int | None:
        """Return the column that counts a unit; None if the condition doesn't count it.

        Args:
            condition: on this measure.
            unit: of one lever, or of all together.
            policy: whose levers are counted.
        """
        return None  # it counts no units

    def to_share(self, threshold: Shares) -> Shares:
        """Return the share of successes that units have exactly at a threshold."""
        return threshold

    def from_share(self, share: Shares) -> Shares:
        """Return the value of the measure at a share of successes."""
        return share

    def expect(self, agreement: float | None, label_share: float | None) -> Expectation:
        """Return what to expect from a policy's agreement and a label's share of the units."""
        return Expectation(1.0, None)

    def widen(self, threshold: float, *, largest: float, factor: float) -> float:
        """Return a threshold that permits `factor` times the error of this one.

        The error is at most halfway between the permitted and the largest error, so that a guard
        can still alarm on a threshold near the end of the scale.
        """
        maximum = 1.0 if self.at_least else largest
        allowed_error = 1 - threshold if self.at_least else threshold
        error = min(factor * allowed_error, (allowed_error + maximum) / 2)
        return round(1 - error if self.at_least else error, 9)

    def find_share_limit(self, threshold: float) -> float:
        """Return the share of bad records that a guard's test permits."""
        return threshold

    def describe_counted(self, subject: str, threshold_text: str) -> str:
        """Return what an alarm counted against it, to follow `15 of 182`."""
        return self.describe_against(subject)


@dataclass(frozen=True, slots=True)
class Condition:
    """A measure of a population with its threshold, in the measure's unit.

    The unit is a share, a cost, a count, seconds, or that of the population's outcome.
    """

    measure: Measure
    threshold: float
    label: str | None = None
    lever: str | None = None
    action: str | None = None
    population: Population = ALL_UNITS

    @property
    def at_least(self) -> bool:
        """Return whether more is better."""
        return self.measure.at_least

    @property
    def share(self) -> float:
        """Return the share of successes that units have exactly at the threshold."""
        return self.measure.to_share(self.threshold)

    @property
    def key(self) -> MeasureKey:
        """Return what is measured, without the threshold and the value of an attribute.

        Label, action and outcome share a place, and so do lever and arm: no measure has both.
        """
        population = self.population
        subject = population.outcome.id if population.has_gain else self.label or self.action
        return (
            f"{self.measure.name}{population.suffix}",
            subject,
            self.lever or population.arm or None,
        )

    @property
    def id(self) -> str:
        """Return the key under which guards are stored; nothing reads it back.

        >>> from rollout.kernel.measures import MEASURES
        >>> Condition(MEASURES["recall"], 0.8, label="bear").id
        'recall:bear>=0.8'
        """
        sign = ">=" if self.at_least else "<="
        return f"{':'.join(filter(None, self.key))}{sign}{self.threshold + 0.0!r}"

    @property
    def is_whole_agreement(self) -> bool:
        """Return whether it is about all answers to all cases that occur."""
        return self.measure.covers_all_labels and self.key == (self.measure.name, None, None)

    @property
    def question(self) -> tuple[str | None, ...]:
        """Return what is asked: another one starts evidence anew, another threshold doesn't."""
        return (*self.key, *self.population.definition)

    @property
    def subject(self) -> str:
        """Return what it is of: a label, each value of an attribute, an outcome; may be ""."""
        return self.population.subject or self.label or self.action or self.measure.unnamed_subject

    def find_column(self, unit: UnitClass, policy: CountedLevers) -> int | None:
        """Return the column that counts a unit; None if it isn't counted."""
        if self.population.is_miss(self.label, unit, policy.levers_by_id.get(unit.lever)):
            return 1  # of failures: only shares are asked of cases that users plant
        return self.measure.find_column(self, unit, policy)

    def __str__(self) -> str:
        """Return the condition as text: `recall of bear at least 80 %`."""
        return self.describe(self.subject)

    @property
    def name(self) -> str:
        """Return it without its threshold: `recall of bear`."""
        return self._describe_measured(self.subject)

    def find_unit(self, cost_in: str) -> str:
        """Return the unit of its amounts, of costs `cost_in`; "" of shares."""
        if self.population.has_gain:
            return self.population.outcome.unit
        return cost_in if self.measure.statistic is Statistic.MEAN else ""

    def describe(self, subject: str) -> str:
        """Return the condition as text, about a part of what it is of.

        >>> from rollout.kernel.measures import MEASURES
        >>> Condition(MEASURES["drift"], 0.1).describe("more decision=bear")
        'drift of more decision=bear at most 10 %'
        """
        bound = "at least" if self.at_least else "at most"
        return f"{self._describe_measured(subject)} {bound} {self.threshold_text}"

    def _describe_measured(self, subject: str) -> str:
        of_subject = f" of {subject}" if subject else ""
        lever = f" ({self.lever})" if self.lever else ""
        return f"{self.measure.name}{of_subject}{lever}{self.population.remark}"

    @property
    def scaled_threshold(self) -> float:
        """Return the threshold as a share of the range of the population's outcome."""
        return self.threshold / self.population.outcome.span

    @property
    def threshold_text(self) -> str:
        """Return the threshold with its unit."""
        text = self.measure.unit.format(self.threshold)
        unit = self.population.outcome.unit if self.population.has_gain else ""
        return f"{text} {unit}".rstrip()

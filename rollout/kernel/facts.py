"""Values as facts: what ledgers hash and others read, JSON without floats or sentences.

A value of a policy is a dataclass. Its facts are its fields by name; what has its default is left
out, numbers are decimal text, spans are seconds.

What gates and guards read, as the ledger holds it, and what a gate lacks beside it.

Facts in words.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from math import exp, log
from types import MappingProxyType, UnionType
from typing import Any, Final, TypeVar, get_args, get_type_hints

from rollout.kernel.measures import MEASURES, Condition, Measure, Watch
from rollout.kernel.populations import POPULATIONS, Population

KIND: Final = "kind"
Value = TypeVar("Value")


def to_facts(value: Any) -> Any:
    """Return the facts of a value.

    >>> to_facts(Condition(MEASURES["recall"], 0.8, label="bear"))
    {'measure': 'recall', 'threshold': '0.8', 'label': 'bear'}
    """
    match value:
        case Measure():
            return value.name
        case float():
            return repr(value + 0.0)
        case timedelta():
            return repr(value.total_seconds())
        case tuple():
            return [to_facts(item) for item in value]
    return _list_facts(value) if is_dataclass(value) else value


def _list_facts(value: Any) -> dict[str, Any]:
    parts = {each.name: getattr(value, each.name) for each in fields(value)}
    defaults = {each.name: each.default for each in fields(value)}
    facts = {name: to_facts(part) for name, part in parts.items() if part != defaults[name]}
    return {KIND: value.kind, **facts} if isinstance(value, Population) else facts


def parse_condition(facts: Mapping[str, Any]) -> Condition:
    """Return the condition with such facts.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a condition.

    >>> str(parse_condition({"measure": "recall", "threshold": "0.8", "label": "bear"}))
    'recall of bear at least 80 %'
    """
    return parse_facts(Condition, facts)


def parse_facts(kind: type[Value], facts: Mapping[str, Any]) -> Value:
    """Return the value of a class with such facts.

    Raises:
        KeyError, TypeError, ValueError: they are not those of one.
    """
    value: Value = _build(kind, facts)
    return value


def _parse(hint: Any, value: Any) -> Any:
    if value is None or isinstance(hint, UnionType):
        return None if value is None else _parse(get_args(hint)[0], value)
    if hint in _PARSERS:
        return _PARSERS[hint](value)
    if is_dataclass(hint):
        return _build(hint, value)
    if type(value) is not hint:  # a boolean is no number
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value


def _build(kind: Any, facts: Mapping[str, Any]) -> Any:
    hints = _list_hints(kind)
    return kind(**{name: _parse(hints[name], value) for name, value in facts.items()})


@cache
def _list_hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


_PARSERS: Final[Mapping[Any, Callable[[Any], Any]]] = MappingProxyType(
    {
        Measure: MEASURES.__getitem__,
        Population: lambda facts: _build(
            POPULATIONS[facts[KIND]], {name: facts[name] for name in facts if name != KIND}
        ),
        float: float,
        timedelta: lambda text: timedelta(seconds=float(text)),
    }
)


UNITS, REVIEWERS, DAYS = "units", "reviewers", "days"
"""Minimums of a gate: `actual` is below `needed`."""
MISSING, RECENT_MISSING = "missing", "recent-missing"
"""Of `needed` units `actual` are missing: in the attempt, and in its last days."""
NO_UNIT, MANY_VALUES, FEW_OF_VALUE = "no-unit", "many-values", "few-of-value"
"""Of each value of an attribute: none has a unit; more than `needed` values; too few units."""
TURNED, NEWEST, ALARM, UNPLACED = "turned", "newest", "alarm", "unplaced"
"""What holds a widening: E is below 1 with the fresh answers; the newest answers agree too seldom;
a guard would trip; more decisions have neither a case nor a site than may be missing."""
LOST_GATE, EDITED_GATE, LOW_CEILING, RETIRED = "no-gate", "gate", "ceiling", "retired"
OTHER_VERSION, OTHER_FLOOR, OTHER_STEP, LOST_STAGE = "other-version", "floor", "step", "stage"
NO_HOLDER, OWN_HOLDER, RAISED_FLOOR = "no-holder", "own-holder", "raised-floor"
OTHER_HOLDER_STAGE, REPLACED, ENDED_GRANT = "holder-stage", "replaced", "grant"
EDITED_POLICY, EDITED_LADDER, OTHER_TICK, NEW_ERA = "policy", "ladder", "tick", "era"
CHANGED_EVIDENCE, SPOKEN_AGAINST, CORRECTED_CLOCK = "evidence", "incidents", "clock"
USER_NARROWED, NEXT_ATTEMPT, IN_ALARM = "narrowed", "attempt", "alarm"
"""Why a proposal is void, also `TURNED`; its words say what each is about."""
RECENT_DAYS: Final = 7
"""The last days with units in which few units may be missing, as in the whole attempt."""


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A condition with the figures on which a proposal rests; numbers are decimal text.

    Attributes:
        condition: its facts.
        counts: successes and failures; one per cost level; or of a gain the units by the model, by
            people and without outcome.
        log_e: ln E, with six decimals.
        risk: of the gate, at which it was read.
        estimate, bound: of a gain, in the outcome's unit; "" without units.
        draw_log_e: ln E against arms as they were drawn, where an arm lacks units; else "".
    """

    condition: Mapping[str, Any]
    counts: tuple[int, ...]
    log_e: str
    risk: str
    estimate: str = ""
    bound: str = ""
    draw_log_e: str = ""

    def parse_condition(self) -> Condition:
        """Return the condition."""
        return parse_condition(self.condition)

    @property
    def needed_log_e(self) -> float:
        """Return the least ln E that suffices, with six decimals."""
        return round(log(1 / float(self.risk)), 6)

    @property
    def is_enough(self) -> bool:
        """Return whether the evidence suffices, of a gain with arms as they were drawn."""
        return not self.draw_log_e and float(self.log_e) >= self.needed_log_e


@dataclass(frozen=True, slots=True)
class AlarmSubject:
    """The value that an alarm is about, of a guard that reads several.

    Attributes:
        attribute: whose value it is, or `decision`.
        value: "" of drift, if the values before lacked it.
        moved: of drift `more` or `fewer`; else "".
        share: of drift, that of the value before; None without one.
    """

    attribute: str
    value: str = ""
    moved: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True)
class StoredAlarm:
    """A guard and what it read when it was in alarm; counts are 0 where its alarm ended.

    Attributes:
        condition, over: of the guard.
        against: units or records that speak against the condition; of `heartbeat` the minutes of
            opening hours without a sign; of `gain` the difference so far, in millionths of the
            outcome's range.
        records: all of them.
        subject: the value; None of a guard without several.
        suspensions: how often it suspended, if that many take a stage; else 0.
    """

    condition: Condition
    over: timedelta | None = None
    against: int = 0
    records: int = 0
    subject: AlarmSubject | None = None
    suspensions: int = 0


@dataclass(frozen=True, slots=True)
class FreshFact:
    """What holds a widening: answers that are stored and don't count yet.

    Attributes:
        kind: one of those above.
        condition: of the gate or the guard; None of `unplaced`.
        agreed, units: counts of the condition, or of the newest answers; 0 of an alarm. Of
            `unplaced` such decisions, and all.
    """

    kind: str
    condition: Condition | None = None
    agreed: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class UnmetRequirement:
    """A requirement of a gate that is not met.

    Attributes:
        kind: one of those above.
        actual, needed: counts, as the kind says.
        subject: of values the condition, the attribute or `attribute=value`.
        share_at_most: of missing units, the share that may be.
    """

    kind: str
    actual: int = 0
    needed: int = 0
    subject: str = ""
    share_at_most: float = 0.0

    @property
    def is_minimum(self) -> bool:
        """Return whether it is a minimum of the gate, to which later units add."""
        return self.kind in {UNITS, REVIEWERS, DAYS}


@dataclass(frozen=True, slots=True)
class EvidenceSeries:
    """One condition of a gate over the time in which the gate was next.

    The lists are parallel, one entry per look: at most 400, including first, last and extremes.

    Attributes:
        condition, measure, at_least, threshold: the condition; `threshold` is its threshold.
        name, unit: the condition without its threshold; of amounts their unit, "" of shares.
        to: the stage that the gate leads to.
        attempt, risk: the version's own number, 1 plus how often the evidence had restarted, and
            the attempt's risk. The ledger's number is `attempt_number` of the evidence.
        at: instants of the looks.
        n: records counted by then; for gain units of both arms with a value.
        estimate: the plain share, mean cost or gain.
        bound: the deciding bound, valid at every look. For gain the lowest
            possible one while the evidence gives none.
    """

    condition: str
    name: str
    unit: str
    measure: str
    at_least: bool
    threshold: float
    to: str
    attempt: int
    risk: float
    at: tuple[datetime, ...]
    n: tuple[int, ...]
    estimate: tuple[float, ...]
    bound: tuple[float, ...]


MAX_EXPONENT: Final = 700.0


def say_counts(counts: tuple[int, ...]) -> str:
    """Return shares as `successes of records`, other counts as a list.

    >>> say_counts((418, 8)), say_counts((60, 3, 1))
    ('418 of 426', '60 3 1')
    """
    if len(counts) == 2:
        return f"{counts[0]} of {sum(counts)}"
    return " ".join(str(count) for count in counts)


def say_figures(reading: StoredReading, condition: Condition) -> str:
    """Return what was counted, without its evidence."""
    if not condition.population.has_gain:
        return say_counts(reading.counts)
    model, people, missing = reading.counts
    counts = f"{model} by the model, {people} by people, {missing} without outcome"
    if reading.draw_log_e:
        e_value = exp(min(float(reading.draw_log_e), MAX_EXPONENT))
        counts += f", not the arms that were sampled (E {e_value:.3g})"
    return f"{say_gain(reading, condition)}; {counts}" if reading.estimate else counts


def say_gain(reading: StoredReading, condition: Condition) -> str:
    """Return a gain and its bound: `+5.1 EUR a unit so far, at least +1.2 EUR at every look`."""
    outcome = condition.population.outcome
    text = f"{outcome.format_amount(float(reading.estimate))} a unit so far"
    if not reading.bound:
        return text
    return f"{text}, at least {outcome.format_amount(float(reading.bound))} at every look"


def say_reading(reading: StoredReading) -> str:
    """Return a reading as auditors read it.

    >>> facts = {"measure": "agreement", "threshold": "0.95"}
    >>> say_reading(StoredReading(facts, (245, 3), "4.271300", "0.05"))
    'agreement at least 95 %: 245 of 248, log E 4.271300 of 2.995732 (risk 0.05)'
    """
    return f"{say_measured(reading)}, log E {reading.log_e} of {_say_needed(reading)}"


def say_measured(reading: StoredReading) -> str:
    """Return a reading without its evidence: `agreement at least 95 %: 245 of 248`."""
    condition = reading.parse_condition()
    return f"{condition}: {say_figures(reading, condition)}"


def say_rounded(reading: StoredReading) -> str:
    """Return a reading with rounded figures; the ledger has all digits."""
    return (
        f"{say_measured(reading)}, log E {float(reading.log_e):.2f}, needed"
        f" {reading.needed_log_e:.2f} (risk {float(reading.risk) * 100:.3g} %)"
    )


ALSO_IN_ALARM: Final = "; also in alarm: "
REPEATED_SUSPENSION: Final = "third suspension in 24 h"


def say_alarms(alarms: Iterable[StoredAlarm], reason: str = "") -> str:
    """Return the alarms of a cell, the first as the cause; a typed reason if there are none."""
    return ALSO_IN_ALARM.join(map(say_alarm, alarms)) or reason


def say_alarm(alarm: StoredAlarm) -> str:
    """Return a guard's condition and what it counted.

    >>> from rollout.kernel.measures import MEASURES
    >>> say_alarm(StoredAlarm(Condition(MEASURES["agreement"], 0.9), against=15, records=1820))
    'agreement at least 90 %: 15 of 1,820 blind decisions disagree'
    """
    if alarm.suspensions:
        return REPEATED_SUSPENSION
    subject, share = alarm.subject, "" if alarm.subject is None else _say_share(alarm.subject)
    name = alarm.condition.subject if subject is None else _say_value(subject)
    return f"{alarm.condition.describe(name + share)}: {say_against(alarm)}"


def say_against(alarm: StoredAlarm) -> str:
    """Return what an alarm's guard counted: `15 of 1,820 blind decisions disagree`."""
    condition, against = alarm.condition, alarm.against
    if alarm.suspensions:
        return REPEATED_SUSPENSION
    if condition.measure.watch is Watch.SIGNS:
        return f"no heartbeat for {_say_silence(against)} in opening hours"
    if condition.population.has_gain:
        outcome = condition.population.outcome
        amount = outcome.format_amount(against * 1e-6 * outcome.span)
        return f"{amount} a unit so far, over {alarm.records:,} units"
    subject = condition.subject if alarm.subject is None else _say_value(alarm.subject)
    counted = condition.measure.describe_counted(subject, condition.threshold_text)
    return f"{against:,} of {alarm.records:,} {counted}"


def _say_value(subject: AlarmSubject) -> str:
    if not subject.value:
        return f"{subject.attribute} with a value that the reference lacks"
    return f"{subject.moved} {subject.attribute}={subject.value}".lstrip()


def _say_share(subject: AlarmSubject) -> str:
    return "" if subject.share is None else f" (was {subject.share * 100:.3g} %)"


def _say_silence(minutes: int) -> str:
    """Return minutes in at most two units.

    >>> _say_silence(31), _say_silence(51 * 60 + 5)
    ('31 min', '2 d 3 h')
    """
    days, hours = divmod(minutes // 60, 24)
    amounts = ((days, "d"), (hours, "h"), (minutes % 60, "min"))
    first = next((i for i, (amount, _) in enumerate(amounts) if amount), len(amounts) - 1)
    parts = [f"{amount} {unit}" for amount, unit in amounts[first : first + 2] if amount]
    return " ".join(parts) or "0 min"


REQUIREMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        UNITS: "{actual} of {needed} decided units",
        REVIEWERS: "{actual} of {needed} reviewers",
        DAYS: "{actual} of {needed} days",
        MISSING: "{actual} of {needed} units are missing, allowed are {share:g} %",
        RECENT_MISSING: "{actual} of {needed} units of the last {days} days are missing, allowed"
        " are {share:g} %",
        NO_UNIT: "no unit for {subject}",
        MANY_VALUES: "{subject} has {actual} values, and at most {needed} can be slices; slice by"
        " an attribute with fewer values",
        FEW_OF_VALUE: "{actual} of {needed} decided units with {subject}; wait for more, or leave"
        " this value to humans with `when` in the window",
    }
)


def say_requirement(requirement: UnmetRequirement) -> str:
    """Return what a gate lacks.

    >>> say_requirement(UnmetRequirement(MISSING, 3, 40, share_at_most=0.05))
    '3 of 40 units are missing, allowed are 5 %'
    """
    return REQUIREMENTS[requirement.kind].format(
        actual=requirement.actual,
        needed=requirement.needed,
        subject=requirement.subject,
        share=requirement.share_at_most * 100,
        days=RECENT_DAYS,
    )


VOID_CAUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        TURNED: "the evidence has turned",
        LOST_GATE: "the policy has no gate for it any more",
        EDITED_GATE: "the policy's gate was edited",
        LOW_CEILING: "it lies above the cell's ceiling now",
        RETIRED: "the version is retired",
        LOST_STAGE: "the cell no longer holds the stage",
        OTHER_VERSION: "another version acts in the cell now",
        OTHER_FLOOR: "the cell's confidence floor has changed",
        OTHER_STEP: "the cell's stage is no longer the one below",
        NO_HOLDER: "no version acts in the cell any more",
        OWN_HOLDER: "the version acts in the cell already",
        RAISED_FLOOR: "an alarm raised the confidence floor of the acting version",
        OTHER_HOLDER_STAGE: "the acting version's stage has changed",
        REPLACED: "{about} took effect in the cell",
        EDITED_POLICY: "the policy was edited",
        EDITED_LADDER: "the policy's ladder was edited",
        OTHER_TICK: "tick: {about} stays as it is, since evidence is counted by its slots; write"
        " tick: {about}, or start a rollout of another name",
        CHANGED_EVIDENCE: "its evidence was not what was counted",
        ENDED_GRANT: "{cell}: the grant of {about} has ended",
        SPOKEN_AGAINST: "{incidents} spoke against {about} after it was raised",
        USER_NARROWED: "{by} narrowed {cell}",
        NEXT_ATTEMPT: "{by} began the next attempt",
        NEW_ERA: "era {about} began",
        CORRECTED_CLOCK: "the rollout's time went back to the clock's",
        IN_ALARM: "{cell} is narrowed: {alarms}",
    }
)


def say_void(
    cause: str,
    about: str = "",
    by: str = "",
    cell: object = None,
    incidents: Iterable[str] = (),
    alarms: Iterable[StoredAlarm] = (),
) -> str:
    """Return why a proposal is void.

    >>> say_void(ENDED_GRANT, "supervised", cell="creek · day")
    'creek · day: the grant of supervised has ended'
    """
    return VOID_CAUSES.get(cause, cause).format(
        about=about,
        by=by,
        cell=cell,
        incidents=" and ".join(incidents),
        alarms=say_alarms(alarms),
    )


def _say_needed(reading: StoredReading) -> str:
    return f"{reading.needed_log_e:.6f} (risk {float(reading.risk):g})"

"""Values as facts, and what gates and guards read as the ledger holds it.

Facts are what ledgers hash and others read: JSON without floats or sentences. A value of a policy
is a dataclass. Its facts are its fields by name; what has its default is left out, numbers are
decimal text, spans are seconds.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from math import log
from types import MappingProxyType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from rollout.kernel.calendar.instants import Cell
from rollout.kernel.measures import MEASURES, Condition, Measure
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


def format_facts(value: Any) -> str:
    """Return the facts of a value as canonical JSON, a line of an evidence hash."""
    return json.dumps(to_facts(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
    if get_origin(hint) is tuple:
        return tuple(_parse(get_args(hint)[0], item) for item in value)
    if hint in _PARSERS:
        return _PARSERS[hint](value)
    if is_dataclass(hint):
        return _build(hint, value)
    if type(value) is not (get_origin(hint) or hint):  # a boolean is no number
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value


def _build(kind: Any, facts: Mapping[str, Any]) -> Any:
    hints = _list_hints(kind)
    return kind(**{name: _parse(hints[name], value) for name, value in facts.items()})


_list_hints = cache(get_type_hints)


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
FORBIDDEN, NO_PERMIT, ENDED_PERMIT, OTHER_ERA = (
    "forbidden",
    "no-permit",
    "ended-permit",
    "other-era",
)
OTHER_DECIDER, NO_PREDICTION, UNSURE = "other-decider", "no-prediction", "unsure"
OTHER_ACTION, OTHER_ANSWER = "other-action", "other-answer"
"""Why an action of the model is not authorized."""
LATER_CASE, CORRECTED_CASE = "case", "corrected-case"
LATER_PREDICTION, CORRECTED_PREDICTION = "prediction", "corrected-prediction"
"""`later` of such a trigger: the record that came after the action and shows it."""
CLOCKS_APART, CLOCK_BACK, SENDER_AHEAD = "clocks-apart", "clock-back", "sender-ahead"
UNKNOWN_HEAD, LOST_HEAD, LOST_ENTRY = "unknown-head", "lost-head", "lost-entry"
FAILED_WRITE, FAILED_BATCH, UNFAMILIAR_VALUE = "write", "batch", "unfamiliar"
"""What else a `Trigger` is of."""
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
class Trigger:
    """Why the program itself opened an incident, stopped cells or began an era.

    Attributes:
        kind: one of `TRIGGERS` of `kernel.words`, which says it.
        values: facts by name, as that sentence has them; no name, key or text, which may have to be
            erased: the entry has them.
    """

    kind: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LooserRule:
    """A rule that an edit of a policy loosens.

    Attributes:
        kind: one of `LOOSER_RULES` of `kernel.words`, which says it.
        values: facts by name, as that sentence has them.
        cells: the first cells that it is about, () for all, and how many there are beside them.
    """

    kind: str
    values: dict[str, Any]
    cells: tuple[Cell, ...] = ()
    others: int = 0


def build_looser(kind: str, **values: Any) -> LooserRule:
    """Return a looser rule with the facts of values."""
    return LooserRule(kind, {name: to_facts(value) for name, value in values.items()})


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

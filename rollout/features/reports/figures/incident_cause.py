"""The cause of an incident, and the courses of detectors until their alarms.

The cause says since when a version differs more, and in which cases. All its figures have one
population: decisions given without seeing the answer, one per unit. The values of its cases are
compared within the time since the change, so a change that hits all alike names no value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from math import log
from typing import Final, Literal

import numpy as np
import scipy

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import CellState, Scope
from rollout.engine.decide.widening_steps import find_acting_index
from rollout.engine.events import VOID_STATE, IncidentOpened, LedgerEvent, Reach, select_events
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.guard_evidence import GuardEvidence
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import names_slices
from rollout.kernel.policy.policy import Guard, describe_guard
from rollout.kernel.statistics.intervals import Share, compute_share
from rollout.kernel.statistics.value_search import (
    ANSWER,
    ATTRIBUTE,
    MIN_CASES,
    ComparedValue,
    KindKey,
    ValueKey,
    ValueKind,
    ValueSearch,
    find_visible_difference,
    search_values,
)

MIN_LOG_RATIO: Final = 4.0
"""How much likelier a change must make the answers, as a logarithm, to be named."""
MAX_NEW_VALUES: Final = 5
Verdict = Literal["stands-out", "follows", "new", "chance"]
"""What a comparison says of a value: it can be the cause, it stands out as a consequence of the
cause, it is new and can't be told yet, or its difference could be chance."""
BATCH_SIZE: Final = 20
"""Judged units by which the figures of a reader who may review move at once."""


@dataclass(frozen=True, slots=True)
class JudgedUnits:
    """Units with a blind decision, in the order in which their cases occurred.

    Attributes:
        occurred: microseconds since 1970, UTC, shape (units,); units of a batch have one time.
        days: local day numbers, shape (units,).
        differs: where the version's answer is not the human's, shape (units,).
        kinds: properties of their cases.
    """

    occurred: Ints
    days: Ints
    differs: Bools
    kinds: tuple[ValueKind, ...]

    def select(self, mask: Bools) -> "JudgedUnits":
        """Return the units at which `mask` is true."""
        return JudgedUnits(
            self.occurred[mask],
            self.days[mask],
            self.differs[mask],
            tuple(replace(kind, codes=kind.codes[mask]) for kind in self.kinds),
        )

    def find_with(self, key: KindKey, value: str) -> Bools:
        """Return which units have a value."""
        values = next(kind for kind in self.kinds if kind.key == key)
        has_value: Bools = values.codes == values.values.index(value)
        return has_value


@dataclass(frozen=True, slots=True)
class ValueFinding:
    """A compared value, and its cases and all others in the times around the incident.

    `visible_difference` would stand out 8 times in 10; None if none would.
    """

    compared: ComparedValue
    verdict: Verdict
    before: Share
    during: Share
    after: Share
    others_before: Share
    visible_difference: float | None


@dataclass(frozen=True, slots=True)
class NewCaseValue:
    """An attribute value that no judged unit had before the day of the change."""

    kind: str
    value: str
    since: Share
    others: Share


@dataclass(frozen=True, slots=True)
class IncidentCause:
    """Where a version differs around an incident.

    Attributes:
        started: microseconds of the first unit after the likeliest rise of the share of differing
            units; None if no rise is likely, and then all units are compared.
        before, during, after: the units until then, until the incident opened, and later.
        search: all compared values; those that stand out first.
        findings: the first values of the search.
        new_values: most frequent first. A new value that (nearly) all cases have can't be compared.
        standout: the value to name as the cause; None if none stands out, or none beyond answers
            and what can't be told from a new value.
    """

    started: int | None
    before: Share
    during: Share
    after: Share
    since: Share
    search: ValueSearch
    findings: tuple[ValueFinding, ...]
    new_values: tuple[NewCaseValue, ...]
    standout: ValueFinding | None


def find_incident_cause(units: JudgedUnits, opened: int, *, limit: int = 50) -> IncidentCause:
    """Return since when and in which cases a version differs more than elsewhere.

    Args:
        units: from some time before the incident until some time after it.
        opened: microseconds of the incident.
        limit: number of findings, besides those that stand out.

    A value that is new on the day of the change puts the start back to its first unit.
    """
    index = np.arange(len(units.differs))
    is_before = units.occurred < opened
    change = find_rise(units.differs[is_before], units.occurred[is_before])
    new_values = [] if change is None else _list_new_values(units, change)
    start = 0 if change is None else change
    if new_values:
        start = min(start, int(np.argmax(units.find_with(*new_values[0]))))
    is_since, is_after = index >= start, units.occurred >= opened
    since = units.select(is_since)
    search = search_values(since.differs, since.kinds)
    verdicts = _judge_values(since, search, new_values)
    search = _rank_causes(search, verdicts, new_values)
    periods = (~is_since, is_since & ~is_after, is_after)
    findings = tuple(
        _build_finding(units, value, verdicts[value.key], periods, len(search.values))
        for value in search.values[: max(limit, len(search.standouts))]
    )
    before, during, after = (_count_differing(units, period) for period in periods)
    standout = findings[0] if findings and findings[0].verdict == "stands-out" else None
    return IncidentCause(
        None if change is None else int(units.occurred[start]),
        *(before, during, after, _count_differing(units, is_since)),
        search,
        findings,
        tuple(
            NewCaseValue(
                key[1], value, _count_differing(since, has_it), _count_differing(since, ~has_it)
            )
            for key, value in new_values
            for has_it in [since.find_with(key, value)]
        ),
        standout,
    )


def _judge_values(
    since: JudgedUnits, search: ValueSearch, new_values: Sequence[ValueKey]
) -> dict[ValueKey, Verdict]:
    """Return the verdict on each compared value.

    An answer follows from its case, so it is a consequence. Where a value is new, others are
    consequences of it too unless they stand out among the cases without it: else nothing tells
    them from symptoms of that. The test and its error rate are the same.
    """
    independent = search.standouts
    if new_values and independent:
        others = since.select(~since.find_with(*new_values[0]))
        independent = search_values(others.differs, others.kinds).standouts
    causes = {*new_values, *(value.key for value in independent if value.source != ANSWER)}
    verdicts: dict[ValueKey, Verdict] = {
        value.key: "new" if value.key in new_values else "chance" for value in search.values
    }
    for value in search.standouts:
        verdicts[value.key] = "stands-out" if value.key in causes else "follows"
    return verdicts


def _rank_causes(
    search: ValueSearch, verdicts: Mapping[ValueKey, Verdict], new_values: Sequence[ValueKey]
) -> ValueSearch:
    """Return the search with new values first among those that stand out, and answers last.

    All of them passed the same test: the order only chooses which to name first. What nobody had
    met before a change can have caused it. What cases had before without differing goes along with
    the cause at most.
    """
    standouts = sorted(
        search.standouts,
        key=lambda value: (
            verdicts[value.key] == "follows",
            value.source == ANSWER,
            value.key not in new_values,
        ),
    )
    return replace(search, values=(*standouts, *search.values[len(standouts) :]))


def _list_new_values(units: JudgedUnits, change: int) -> list[ValueKey]:
    """Return attribute values first met on the day of the change, most frequent first.

    Which value is new, and how frequent, depends on no answer.
    """
    first_of_day = int(np.searchsorted(units.days, units.days[change]))
    is_that_day = units.days == units.days[change]
    candidates: list[tuple[int, KindKey, str]] = []
    for kind in units.kinds:
        if kind.source != ATTRIBUTE or not len(kind.values):
            continue
        is_set = kind.codes >= 0
        size = len(kind.values)
        earlier = np.bincount(kind.codes[:first_of_day][is_set[:first_of_day]], minlength=size)
        later = np.bincount(kind.codes[first_of_day:][is_set[first_of_day:]], minlength=size)
        that_day = np.bincount(kind.codes[is_that_day & is_set], minlength=size)
        is_new = (earlier == 0) & (that_day > 0) & (later >= MIN_CASES)
        candidates += [
            (int(later[code]), kind.key, kind.values[code]) for code in np.flatnonzero(is_new)
        ]
    candidates.sort(key=lambda item: (-item[0], item[1:]))
    return [(key, value) for _, key, value in candidates[:MAX_NEW_VALUES]]


def _build_finding(
    units: JudgedUnits,
    value: ComparedValue,
    verdict: Verdict,
    periods: Sequence[Bools],
    number: int,
) -> ValueFinding:
    has_value = units.find_with(*value.key)
    before, during, after = (_count_differing(units, has_value & period) for period in periods)
    return ValueFinding(
        *(value, verdict, before, during, after),
        _count_differing(units, ~has_value & periods[0]),
        find_visible_difference(value, number),
    )


def _count_differing(units: JudgedUnits, mask: Bools) -> Share:
    return compute_share(int(units.differs[mask].sum()), int(mask.sum()))


def find_rise(differs: Bools, times: Ints) -> int | None:
    """Return the first unit after the likeliest rise of a share, None if no rise is likely.

    Units of one time are never parted.

    >>> find_rise(np.repeat([False, True], [30, 10]), np.arange(40))
    30
    >>> find_rise(np.repeat([False, True], [30, 10]), np.arange(40) // 20)
    20
    >>> find_rise(np.repeat(True, 10), np.arange(10)) is None
    True

    Source: Hinkley and Hinkley, Biometrika 57 (1970) 477.
    """
    n = len(differs)
    if n < 2:
        return None
    sizes = np.arange(1, n, dtype=np.float64)
    counts = np.cumsum(differs)[:-1].astype(np.float64)
    total = float(differs.sum())
    split = compute_log_likelihood(counts, sizes)
    split += compute_log_likelihood(total - counts, n - sizes)
    whole = compute_log_likelihood(np.array([total]), np.array([float(n)]))[0]
    is_rise = (total - counts) / (n - sizes) > counts / sizes
    gains = np.where(is_rise & (times[1:] > times[:-1]), split - whole, 0.0)
    best = int(np.argmax(gains))
    return best + 1 if gains[best] >= MIN_LOG_RATIO else None


def compute_log_likelihood(counts: Floats, sizes: Floats) -> Floats:
    """Return the logarithms of the likelihoods of shares at their best; 0 without records."""
    shares = counts / np.maximum(sizes, 1)
    misses = scipy.special.xlogy(sizes - counts, 1 - shares)
    return np.asarray(scipy.special.xlogy(counts, shares) + misses, dtype=np.float64)


def list_batch_ends(slots: Ints) -> list[int]:
    """Return the last slot of each whole batch of judged units, in order.

    Batches run from the first unit on and split no slot, so two looks differ by whole batches.

    >>> list_batch_ends(np.repeat([3, 4, 7, 9], [12, 12, 15, 4])), list_batch_ends(np.arange(2))
    ([4], [])
    """
    ends, pending = [], 0
    for slot, size in zip(*np.unique(slots, return_counts=True), strict=True):
        pending += int(size)
        if pending >= BATCH_SIZE:
            ends.append(int(slot))
            pending = 0
    return ends


MAX_COURSE_POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class CoursePoint:
    """The detector after a slot; `against` and `records` are counted since its start."""

    at: datetime
    log_value: float
    against: int
    records: int

    @property
    def value_log10(self) -> float:
        """Return the decimal logarithm of its value."""
        return self.log_value / log(10)


@dataclass(frozen=True, slots=True)
class DetectorCourse:
    """A detector from its start to its alarm.

    Attributes:
        guard: its condition and period.
        counted: which records speak against the condition, to follow `15 of 182`.
        threshold: the value that raises the alarm.
        points: in order; of more slots than the most points, each n-th and the last one.
    """

    guard: str
    counted: str
    threshold: float
    points: tuple[CoursePoint, ...]


def has_detector(guard: Guard) -> bool:
    """Return whether a guard has one detector, of decided units."""
    return guard.condition.measure.watch is Watch.UNITS and not names_slices(guard.condition)


def build_detector_course(
    view: EvidenceView,
    guard: Guard,
    state: CellState,
    opened_at: datetime,
    alarms: tuple[StoredAlarm, ...],
    *,
    max_points: int | None = None,
) -> DetectorCourse | None:
    """Return the detector's course until an incident, None if it can't be told any more.

    Args:
        view: the evidence of the incident's version in its cell.
        state: the version's state before the incident, at which its detectors start.
        alarms: of the incident. If the records of today are not those that it counted, as after a
            change of the policy, there is no course.
        max_points: most points, by default `MAX_COURSE_POINTS`.
    """
    if not has_detector(guard):
        return None
    view = replace(view, state=state)
    view = view.get_floor_view(find_acting_index(view.policy, state))
    series = GuardEvidence(view).compute_series(guard)
    number = int(
        np.searchsorted(series.slots, find_slot_before(opened_at, view.policy.tick), side="right")
    )
    if series.log_path is None or not number:
        return None
    counts = series.bad_counts[number - 1], series.record_counts[number - 1]
    if counts not in {(alarm.against, alarm.records) for alarm in alarms[:1]}:
        return None
    step = -(-number // (max_points or MAX_COURSE_POINTS))
    return DetectorCourse(
        describe_guard(guard),
        guard.condition.measure.describe_against(guard.condition.subject),
        guard.false_alarm_every,
        tuple(
            CoursePoint(
                to_instant(int(series.slots[i]), view.policy.tick),
                float(series.log_path[i]),
                int(series.bad_counts[i]),
                int(series.record_counts[i]),
            )
            for i in range((number - 1) % step, number, step)
        ),
    )


MAX_COURSES: Final = 4
MAX_REPORT_POINTS: Final = 60


@dataclass(frozen=True, slots=True)
class IncidentCourse:
    """The detector behind an incident, from its start to its alarm.

    Attributes:
        incident: its id.
        site, window, version: of the incident.
        at: when it opened.
        timezone: of the site.
        course: at most 60 points, the last at the alarm.
    """

    incident: str
    site: str
    window: str
    version: str
    at: datetime
    timezone: str
    course: DetectorCourse


def compute_incident_courses(inputs: ReportInputs) -> tuple[IncidentCourse, ...]:
    """Return the courses of the newest incidents of the span, oldest first.

    A course is whole or there is none: records that the report withholds were read by the detector
    as well, and then its counts are not those of the alarm.
    """
    newest_first = (
        _build_course(inputs, incident, scope)
        for incident, scope in reversed(list(_list_alarms(inputs)))
    )
    courses = islice((course for course in newest_first if course is not None), MAX_COURSES)
    return tuple(reversed(list(courses)))


def _list_alarms(inputs: ReportInputs) -> Iterator[tuple[IncidentOpened, Scope]]:
    """Yield the alarms of versions in the policy's cells, with the scope before each."""
    starts = {
        index: (event, _find_first_effect(inputs.events, index, event.guard))
        for index, each in enumerate(inputs.events)
        for event in select_events((each,), IncidentOpened)
        if event.guard
        and event.at >= inputs.first
        and (event.cell, event.version) in inputs.evidence_views
    }
    scope, applied = Scope(), 0
    for event, start in starts.values():
        scope, applied = apply_events(inputs.events[applied:start], scope), start
        yield event, scope


def _find_first_effect(events: Sequence[LedgerEvent], index: int, guard: str) -> int:
    """Return the index of the first effect of the alarm that opened an incident.

    A tick writes an alarm's effects and then the incident.
    """
    while index and (
        (event := events[index - 1]).closing_state == VOID_STATE
        or (event.stage_reach is Reach.OWN and event.alarm and event.alarm.guard == guard)
    ):
        index -= 1
    return index


def _build_course(
    inputs: ReportInputs, incident: IncidentOpened, scope: Scope
) -> IncidentCourse | None:
    cell, version, policy = incident.cell, incident.version, inputs.policy
    guard = next((guard for guard in policy.guards if guard.id == incident.guard), None)
    if cell is None or guard is None or version not in scope.versions:
        return None
    course = build_detector_course(
        inputs.evidence_views[cell, version],
        guard,
        scope.get_cell_state(cell, version),
        incident.at,
        incident.alarms,
        max_points=MAX_REPORT_POINTS,
    )
    if course is None:
        return None
    return IncidentCourse(
        *(incident.incident, cell.site, cell.window, version),
        *(incident.at, policy.get_timezone(cell.site)),
        course,
    )

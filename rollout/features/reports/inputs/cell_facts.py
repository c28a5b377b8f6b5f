"""What figures and pages say of a cell: its stages, the state of its gate, its timeline.

A gate has its conditions on the current evidence, and what is missing. A timeline has buckets,
stages, points of versions, marks and gaps. Light processes load these values: nothing here needs a
frame or an array.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.engine.decide.incidents import list_new_values
from rollout.engine.events import LedgerEvent
from rollout.engine.words.event_kinds import find_tone
from rollout.engine.words.event_text import describe_mark
from rollout.engine.words.formatting import format_cell_name
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.facts import UnmetRequirement
from rollout.kernel.policy.familiarity import format_value


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What a report says of one cell."""

    site: str
    window: str

    @property
    def cell(self) -> Cell:
        """Return the cell."""
        return Cell(self.site, self.window)

    @property
    def cell_name(self) -> str:
        """Return the name of the cell on pages."""
        return format_cell_name(self.site, self.window)


@dataclass(frozen=True, slots=True)
class CellVersionFacts(CellFacts):
    """What a report says of one version in one cell."""

    version: str


@dataclass(frozen=True, slots=True)
class StageInterval:
    """A period on one stage; `version` is the acting one, None in shadow."""

    stage: str
    version: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class GrantFacts(StageInterval):
    """A grant that is valid at the end, and its proposal."""

    version: str
    proposal: str


@dataclass(frozen=True, slots=True)
class CellStages(CellFacts):
    """Stage history of one cell.

    Attributes:
        site, window: the cell.
        stage, version: at the end.
        since: when the last stage and version began, also if that was before the report's span.
        intervals: from the first instant to the last, without gaps.
        grants: valid at the end, the lowest stage first.
        widened, narrowed: how often the stage went up, and down, in the report's span.
        days_above: days above shadow.
    """

    stage: str
    version: str | None
    since: datetime
    intervals: tuple[StageInterval, ...]
    grants: tuple[GrantFacts, ...]
    widened: int
    narrowed: int
    days_above: float

    @property
    def was_above_shadow(self) -> bool:
        """Return whether the cell was above shadow at any time of the report's span."""
        return self.widened > 0 or any(interval.stage != SHADOW for interval in self.intervals)


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """One condition of a gate on the current evidence.

    Attributes:
        condition, measure, label, lever: what is measured.
        name, unit: the condition without its threshold; of amounts their unit, "" of shares.
        threshold, at_least: the threshold in the measure's unit, and its direction.
        n, counts: records, and their classes (agreeing and not; per cost level; of
            a gain units of the model's arm, of people's, and without outcome).
        estimate: plain share or mean cost, None without records.
        bound: the deciding bound, valid at every look; None without records.
        log_e, log_e_needed: the evidence, and what opens the gate; natural logarithms.
        met: whether this condition is met.
        records_needed_min: agreements still needed if all further records agree; None if none are
            needed, or the measure is no share.
        probability_below: chance that the true share is below the threshold, given the counts.
        records_needed_p50, records_needed_p90: further records after which the condition is met
            with a chance of 50 % and 90 % at the present share; None if that is not expected.
        is_planted: whether it is about planted cases, which come as users plant them.
    """

    condition: str
    name: str
    unit: str
    measure: str
    label: str | None
    lever: str | None
    threshold: float
    at_least: bool
    n: int
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    log_e: float
    log_e_needed: float
    met: bool
    records_needed_min: int | None
    probability_below: float | None
    records_needed_p50: int | None
    records_needed_p90: int | None
    is_planted: bool = False

    @property
    def is_estimate_met(self) -> bool:
        """Return whether the estimate is within the threshold, or unknown."""
        if self.estimate is None:
            return True
        return self.estimate >= self.threshold if self.at_least else self.estimate <= self.threshold

    def describe_need(self) -> str:
        """Describe an unmet condition; the estimate alone may be within the threshold."""
        is_near = self.estimate is not None and self.is_estimate_met
        return f"the gate needs {'more evidence for ' if is_near else ''}{self.condition}"


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The state of a gate: its conditions, and its other `unmet` requirements, in words `missing`.

    `cases` says which cases count, at a confidence floor above the lowest; else it is "".
    """

    to: str
    risk: float
    met: bool
    missing: tuple[str, ...]
    unmet: tuple[UnmetRequirement, ...]
    required_approvals: tuple[str, ...]
    conditions: tuple[ConditionFacts, ...]
    cases: str = ""

    @property
    def worst_condition(self) -> ConditionFacts | None:
        """Return the unmet condition that lacks most evidence, of those whose estimate fails it."""
        failing = [item for item in self.conditions if not (item.met or item.is_estimate_met)]
        return min(failing, key=lambda item: item.log_e - item.log_e_needed, default=None)


HUMAN, CONFIRMED, MODEL = DECIDERS = ("human", "confirmed", "model")
"""Who decided a unit: a human, a human with the model's answer before them, or the model."""


@dataclass(frozen=True, slots=True)
class TimelineBucket:
    """Closed units of a bucket by who decided them under the stage; it ends with the next."""

    since: datetime
    human: int
    confirmed: int
    model: int


@dataclass(frozen=True, slots=True)
class TimelineStage:
    """A time on one stage: the acting version, "" in shadow, and who decided.

    `model_share` is the share of cases drawn for the model, None where humans decided.
    """

    stage: str
    version: str
    decider: str
    since: datetime
    until: datetime
    model_share: float | None = None


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """A version in a bucket.

    Attributes:
        bucket: index of the bucket.
        judged: closed units with a blind decision.
        value: share or mean cost over them; None without any.
        bound: what the gate had proved at the bucket's end, valid at every look.
    """

    bucket: int
    judged: int
    value: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class TimelineVersion:
    """The points of a version, and whether it acts in the cell now."""

    version: str
    acting: bool
    points: tuple[TimelinePoint, ...]


@dataclass(frozen=True, slots=True)
class TimelineThreshold:
    """A threshold of the policy in force: of a gate or of a guard."""

    kind: str
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class TimelineMark:
    """An event of the cell; `revision` is its ledger entry, `tone` wider, narrower or "".

    Of a new value, `attribute` and `value` name it.
    """

    at: datetime
    revision: int
    kind: str
    text: str
    tone: str
    attribute: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class TimelineGap:
    """A time of which records are gone: its counts stay, its cases can't be opened."""

    kind: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class CellTimeline(CellFacts):
    """What is drawn of a cell.

    Attributes:
        since, until: the span; it begins with the first bucket.
        bucket: length of a bucket, as text.
        measure, at_least: what `value` and `bound` are, and the side on which they are good.
        batch: judged units by which figures move at once for this reader; None if at each unit.
        counted_until: up to when units and stages are known; None before the first tick.
    """

    timezone: str
    since: datetime
    until: datetime
    counted_until: datetime | None
    bucket: str
    measure: str
    at_least: bool
    batch: int | None
    buckets: tuple[TimelineBucket, ...]
    stages: tuple[TimelineStage, ...]
    versions: tuple[TimelineVersion, ...]
    thresholds: tuple[TimelineThreshold, ...]
    marks: tuple[TimelineMark, ...]
    gaps: tuple[TimelineGap, ...]


@dataclass(frozen=True, slots=True)
class TimelineRequest:
    """Which timeline is wanted: by default six weeks up to now, of all versions."""

    cell: Cell
    since: datetime | None = None
    until: datetime | None = None
    version: str = ""


def list_cell_marks(events: Sequence[LedgerEvent], cell: Cell) -> tuple[TimelineMark, ...]:
    """Return a cell's events, and values that a version met for the first time, by time."""
    new_values = (
        TimelineMark(
            value.at, 0, "NewValue", f"{value.version}: first {format_value(value.value)}", ""
        )
        for value in list_new_values(events)
        if value.cell == cell
    )
    return sort_marks([*_list_events(events, cell), *new_values])


def sort_marks(marks: Iterable[TimelineMark]) -> tuple[TimelineMark, ...]:
    """Return marks by time; those of one instant keep their order."""
    return tuple(sorted(marks, key=lambda mark: mark.at))


def _list_events(events: Sequence[LedgerEvent], cell: Cell) -> Iterator[TimelineMark]:
    """Yield what happened in a cell, or in the whole rollout, in order."""
    own_events = [event for event in events if cell in event.list_cells()]
    opened = {name for event in own_events for name in (event.about_proposal, event.about_stop)}
    for revision, event in enumerate(events, start=1):
        if event.concerns(cell, opened) and (text := describe_mark(event)):
            kind = type(event).__name__
            yield TimelineMark(event.at, revision, kind, text, find_tone(kind))

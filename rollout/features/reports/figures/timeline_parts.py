"""The parts of a cell's timeline: buckets, stages, points of versions, marks and gaps."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.engine.decide.incidents import list_new_values
from rollout.engine.events import LedgerEvent
from rollout.engine.words.event_kinds import find_tone
from rollout.engine.words.event_text import describe_mark
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.familiarity import format_value

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
class CellTimeline:
    """What is drawn of a cell.

    Attributes:
        since, until: the span; it begins with the first bucket.
        bucket: length of a bucket, as text.
        measure, at_least: what `value` and `bound` are, and the side on which they are good.
        batch: judged units by which figures move at once for this reader; None if at each unit.
        counted_until: up to when units and stages are known; None before the first tick.
    """

    site: str
    window: str
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

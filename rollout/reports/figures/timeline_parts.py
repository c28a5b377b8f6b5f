"""The parts of a cell's timeline: buckets, stages, points of versions, marks and gaps."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell

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
    """A time on one stage: the acting version, "" in shadow, and who decided."""

    stage: str
    version: str
    decider: str
    since: datetime
    until: datetime


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
    """An event of the cell; `revision` is its ledger entry, `tone` wider, narrower or ""."""

    at: datetime
    revision: int
    kind: str
    text: str
    tone: str


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

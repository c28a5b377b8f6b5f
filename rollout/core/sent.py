"""Records as they are sent by the thousand: the fields of `rollout.core.records`, as light tuples.

Making a frozen dataclass takes six times as long as making a tuple, and a box sends a case, a
prediction and a verdict for every pair. Whoever keeps, queues or answers items reads fields by
name and takes either; whoever goes on with one makes its record by `record_of`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from rollout.core.records import Case, Decision, Prediction, Record


class SentCase(NamedTuple):
    """A `Case`."""

    key: str
    site: str
    occurred_at: datetime
    window: str
    episode: str | None
    attributes: Mapping[str, str]
    media: Mapping[str, str]
    revision: int


class SentPrediction(NamedTuple):
    """A `Prediction`. An assignment that went with it is not the sender's to say."""

    key: str
    version: str
    answers: Mapping[str, str | None]
    confidence: float | None
    probabilities: Mapping[str, float] | None
    latency_ms: float | None
    error: str | None
    at: datetime | None
    revision: int
    scope_revision: None = None
    decider: None = None
    exposure: None = None
    share: None = None


class SentDecision(NamedTuple):
    """A `Decision` that was given elsewhere, so in no seat of ours."""

    key: str
    reviewer: str
    answers: Mapping[str, str | None]
    exposure: str
    claims: str
    unsure: bool
    started_at: datetime | None
    submitted_at: datetime | None
    note: str | None
    revision: int
    seat: None = None
    review: None = None


Light = SentCase | SentPrediction | SentDecision
LIGHT = (SentCase, SentPrediction, SentDecision)
AnyCase = Case | SentCase
AnyPrediction = Prediction | SentPrediction
AnyDecision = Decision | SentDecision
AnyRecord = Record | Light
CASES = (Case, SentCase)
PREDICTIONS = (Prediction, SentPrediction)
DECISIONS = (Decision, SentDecision)


def case_of(sent: AnyCase) -> Case:
    """Return the case that a light one is; a case is itself."""
    return Case(**sent._asdict()) if isinstance(sent, SentCase) else sent


def record_of(sent: AnyRecord) -> Record:
    """Return the record that a light one is; a record is itself.

    >>> from datetime import UTC, datetime
    >>> case = SentCase("a", "creek", datetime(2027, 1, 1, tzinfo=UTC), "day", None, {}, {}, 1)
    >>> record_of(case).site
    'creek'
    >>> record_of(record_of(case)) == record_of(case)
    True
    """
    match sent:
        case SentCase():
            return case_of(sent)
        case SentPrediction():
            return Prediction(**sent._asdict())
        case SentDecision():
            return Decision(**sent._asdict())
    return sent

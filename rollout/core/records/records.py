"""What is ingested: cases, and what was said, done and found out about them.

Any order is right: each record names its case by the caller's key, and one that comes before its
case waits for it. `revision` n takes the place of n − 1; the highest one known is what holds.
`received_at` is the store's; fields marked so are filled in by the service and are no part of
what the caller said, so they make no difference between a repeat and a conflict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to decide. `window` is filled in by the service, from its time and the policy."""

    key: str
    site: str
    occurred_at: datetime
    window: str
    episode: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A version's answer to a case; a lever that is left out, or None, has failed.

    `at` None is the case's time. `scope_revision` and what follows it are the assignment that was
    given with it, filled in by the service.
    """

    key: str
    version: str
    answers: Mapping[str, str | None]
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    latency_ms: float | None = None
    error: str | None = None
    at: datetime | None = None
    revision: int = 1
    scope_revision: int | None = None
    decider: str | None = None
    exposure: str | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's verdict. `claims` is the exposure that the caller says; `exposure` what holds.

    A lever that is left out, or None, is "unsure". `exposure`, `seat` and `review` are filled in
    by the service.
    """

    key: str
    reviewer: str
    answers: Mapping[str, str | None]
    exposure: str
    claims: str = "unknown"
    unsure: bool = False
    started_at: datetime | None = None
    submitted_at: datetime | None = None
    note: str | None = None
    revision: int = 1
    seat: int | None = None
    review: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What was done, by `person` or `model`. `permission` is filled in by the service."""

    key: str
    lever: str
    action: str
    by: str
    at: datetime
    permission: str
    version: str | None = None
    scope_revision: int | None = None
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What later turned out to be true: answers, a harm, or both."""

    key: str
    at: datetime
    answers: Mapping[str, str | None] = field(default_factory=dict)
    harm: str | None = None
    source: str = ""
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A site was heard."""

    site: str
    at: datetime


Record = Case | Prediction | Decision | Action | Outcome


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

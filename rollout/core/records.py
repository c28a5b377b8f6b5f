"""What is ingested: cases, and what was said, done and found out about them.

Any order is right: each record names its case by the caller's key, and one that comes before its
case waits for it. `revision` n takes the place of n − 1; the highest one known is what holds.
`received_at` is the store's; fields marked so are filled in by the service and are no part of
what the caller said, so they make no difference between a repeat and a conflict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


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

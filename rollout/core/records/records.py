"""Records that clients send about cases.

Records arrive in any order and name their case by the client's key. The highest `revision`
counts. Fields that the service fills in don't count when a repeat is compared with a conflict.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple


@dataclass(frozen=True, slots=True)
class PlantedDeclaration:
    """The key of a planted case, and when it was declared."""

    key: str
    declared_at: datetime


@dataclass(frozen=True, slots=True)
class BaselineCount:
    """How often humans chose `action` in a cell in [since, until)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    imported_by: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """Return the key under which a later baseline replaces this one."""
        return (self.site, self.window, self.lever, self.action, self.since, self.until)


UNREGISTERED: Final = -(2**31)
"""Added to the revisions of cases whose sender doesn't register cases: all are below those that do,
so that a case of a registering sender replaces them."""
NAMED_BY_DECISION: Final = UNREGISTERED
"""Revision of a case that only a decision places; clients' own begin with 1."""
UNTIMED: Final = MappingProxyType({"occurred_at": "that of its decision"})
"""Attributes of such a case whose decision names its site only."""
NO_PLACE: Final = (
    "no case of this key is stored: send the case first, or name the decision's `site`"
)
UNKNOWN_PLACE: Final = "its site is none of the policy's"
"""What the reason begins with for a decision that names such a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to decide. The service computes `window` from time and policy."""

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
    """A version's answers to a case; a missing lever is a failure.

    `at` None is the case's time. The service fills in `scope_revision` and the fields after it from
    the assignment that was returned with the prediction, or that an offline client made. An import
    knows `decider` and `exposure` alone.
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
    """A human decision; a missing or None lever is "unsure".

    `claims` is the exposure that the client claims, `exposure` the one that counts. The service
    fills in `exposure`, `seat` (number of the review task), `review`, `basis` (what `exposure`
    follows from, by `rollout.store.records.decision_bases`) and `source`: a kind of
    `rollout.core.policy.evidence_sources`, None for a record without one.
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
    basis: Mapping[str, Any] | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action taken by `person` or `model`.

    The service fills in `permission`, and `permit_kind` if a permit of ours came with it.
    """

    key: str
    lever: str
    action: str
    by: str
    at: datetime
    permission: str
    version: str | None = None
    scope_revision: int | None = None
    revision: int = 1
    permit_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The later known truth of a case: answers, values, a harm, or several of them.

    `values` are by id of an outcome of the policy, as sent: also beyond its range. The service
    fills in `source_kind`, which is to an outcome what `source` is to a decision.
    """

    key: str
    at: datetime
    answers: Mapping[str, str | None] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    harm: str | None = None
    source: str = ""
    revision: int = 1
    source_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life of a site."""

    site: str
    at: datetime


Record = Case | Prediction | Decision | Action | Outcome


class SentCase(NamedTuple):
    """A `Case` as parsed from a request."""

    key: str
    site: str
    occurred_at: datetime
    window: str
    episode: str | None
    attributes: Mapping[str, str]
    media: Mapping[str, str]
    revision: int


class SentPrediction(NamedTuple):
    """A `Prediction` as parsed from a request, with an assignment once that is checked."""

    key: str
    version: str
    answers: Mapping[str, str | None]
    confidence: float | None
    probabilities: Mapping[str, float] | None
    latency_ms: float | None
    error: str | None
    at: datetime | None
    revision: int
    scope_revision: int | None = None
    decider: str | None = None
    exposure: str | None = None
    share: float | None = None


class SentDecision(NamedTuple):
    """A `Decision` made outside this service's review queue."""

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
    basis: Mapping[str, Any] | None = None
    source: str | None = None


SentRecord = SentCase | SentPrediction | SentDecision
SENT_TYPES = (SentCase, SentPrediction, SentDecision)
AnyCase = Case | SentCase
AnyDecision = Decision | SentDecision
AnyRecord = Record | SentRecord
CASE_TYPES = (Case, SentCase)
PREDICTION_TYPES = (Prediction, SentPrediction)
DECISION_TYPES = (Decision, SentDecision)


def is_registered(revision: int) -> bool:
    """Return whether a case's revision is of a sender that registers cases."""
    return revision > 0


def mark_unregistered(case: AnyCase) -> AnyCase:
    """Return a case as of a sender that registers none; an invalid revision stays as it is.

    >>> from datetime import UTC, datetime
    >>> case = Case(key="a", site="creek", occurred_at=datetime(2027, 1, 1, tzinfo=UTC), window="")
    >>> mark_unregistered(case).revision == UNREGISTERED + 1
    True
    """
    if not 0 < case.revision < -UNREGISTERED:
        return case
    revision = case.revision + UNREGISTERED
    if isinstance(case, SentCase):
        return case._replace(revision=revision)
    return replace(case, revision=revision)


def to_case(record: AnyCase) -> Case:
    """Return a record of either case type as a `Case`."""
    return Case(**record._asdict()) if isinstance(record, SentCase) else record


def to_record(record: AnyRecord) -> Record:
    """Return a record of any type as its full type.

    >>> from datetime import UTC, datetime
    >>> case = SentCase("a", "creek", datetime(2027, 1, 1, tzinfo=UTC), "day", None, {}, {}, 1)
    >>> to_record(case).site
    'creek'
    >>> to_record(to_record(case)) == to_record(case)
    True
    """
    match record:
        case SentCase():
            return to_case(record)
        case SentPrediction():
            return Prediction(**record._asdict())
        case SentDecision():
            return Decision(**record._asdict())
    return record


def pick_first_draws(case_rows: Collection[Any]) -> dict[int, str]:
    """Return by case the draws of the revision that was received first; those without are left out.

    Later revisions never draw anew, whatever the policy says by then. Those of senders that
    register no cases draw only as long as there are no others.
    """
    drawn_ids = {row.case_id for row in case_rows if row.draws is not None}
    first_rows: dict[int, Any] = {}
    for row in case_rows if drawn_ids else ():
        first = first_rows.setdefault(row.case_id, row)
        if _get_order(row) < _get_order(first):
            first_rows[row.case_id] = row
    return {n: row.draws for n, row in first_rows.items() if row.draws is not None}


def _get_order(row: Any) -> tuple[bool, int, int]:
    counts = row.revision == NAMED_BY_DECISION or is_registered(row.revision)
    return not counts, row.received_at, row.revision


def list_drawn(draws: Mapping[str, bool]) -> tuple[str, ...] | None:
    """Return the versions with a sample that run on a case; None if none has a sample."""
    return tuple(version for version, is_drawn in draws.items() if is_drawn) if draws else None

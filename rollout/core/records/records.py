"""Records that clients send about cases.

Records arrive in any order and name their case by the client's key. The highest `revision`
counts. Fields that the service fills in don't count when a repeat is compared with a conflict.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace


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


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """What a client sent about the case `key`."""

    key: str
    revision: int = 1


class Case(Record, frozen=True, kw_only=True):
    """One thing to decide. The service computes `window` from time and policy."""

    site: str
    occurred_at: datetime
    window: str
    episode: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)


class Prediction(Record, frozen=True, kw_only=True):
    """A version's answers to a case; a missing lever is a failure.

    `at` None is the case's time. The service fills in `scope_revision` and the fields after it from
    the assignment that was returned with the prediction, or that an offline client made. An import
    knows `decider` and `exposure` alone.
    """

    version: str
    answers: Mapping[str, str | None]
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    latency_ms: float | None = None
    error: str | None = None
    at: datetime | None = None
    scope_revision: int | None = None
    decider: str | None = None
    exposure: str | None = None
    share: float | None = None


class Decision(Record, frozen=True, kw_only=True):
    """A human decision; a missing or None lever is "unsure".

    `claims` is the exposure that the client claims, `exposure` the one that counts. The service
    fills in `exposure`, `seat` (number of the review task), `review`, `basis` (what `exposure`
    follows from, by `rollout.store.records.decision_bases`) and `source`: a kind of
    `rollout.core.policy.evidence_sources`, None for a record without one.
    """

    reviewer: str
    answers: Mapping[str, str | None]
    exposure: str
    claims: str = "unknown"
    unsure: bool = False
    started_at: datetime | None = None
    submitted_at: datetime | None = None
    note: str | None = None
    seat: int | None = None
    review: int | None = None
    basis: Mapping[str, Any] | None = None
    source: str | None = None


class Action(Record, frozen=True, kw_only=True):
    """An action taken by `person` or `model`.

    The service fills in `permission`, and `permit_kind` if a permit of ours came with it.
    """

    lever: str
    action: str
    by: str
    at: datetime
    permission: str
    version: str | None = None
    scope_revision: int | None = None
    permit_kind: str | None = None


class Outcome(Record, frozen=True, kw_only=True):
    """The later known truth of a case: answers, values, a harm, or several of them.

    `values` are by id of an outcome of the policy, as sent: also beyond its range. The service
    fills in `source_kind`, which is to an outcome what `source` is to a decision.
    """

    at: datetime
    answers: Mapping[str, str | None] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    harm: str | None = None
    source: str = ""
    source_kind: str | None = None


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A sign of life of a site."""

    site: str
    at: datetime


def is_registered(revision: int) -> bool:
    """Return whether a case's revision is of a sender that registers cases."""
    return revision > 0


def mark_unregistered(case: Case) -> Case:
    """Return a case as of a sender that registers none; an invalid revision stays as it is.

    >>> from datetime import UTC, datetime
    >>> case = Case(key="a", site="creek", occurred_at=datetime(2027, 1, 1, tzinfo=UTC), window="")
    >>> mark_unregistered(case).revision == UNREGISTERED + 1
    True
    """
    if not 0 < case.revision < -UNREGISTERED:
        return case
    return replace(case, revision=case.revision + UNREGISTERED)


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

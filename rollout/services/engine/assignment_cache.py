"""Cache of assignments: what `decide_assignment` returns for one scope, until it may change.

The compiled table answers; near an edge, near the end of a lease, and for questions in which
anything is missing, the rules are evaluated. Equal assignments are one object, whose text is
formatted once. A new scope has a new cache. A test compares the cache with `decide_assignment`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from math import inf
from typing import Final, Protocol

from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import Assignment, CaseQuestion, decide_assignment
from rollout.core.scope.assignment_table import EDGE_MARGIN, AssignmentTable
from rollout.core.scope.scope import Scope

EPOCH: Final = datetime.fromtimestamp(0, UTC)
# bounded, because clients choose the names of versions
MAX_CACHED_ASSIGNMENTS: Final = 20_000


class ClientQuestion(Protocol):
    """A client's question about a case: `CaseQuestion`, or a request body."""

    @property
    def site(self) -> str:
        """Return the site of the case."""
        ...

    @property
    def at(self) -> datetime | None:
        """Return when the case occurred."""
        ...

    @property
    def version(self) -> str:
        """Return the version that would decide."""
        ...

    @property
    def key(self) -> str:
        """Return the client's key of the case."""
        ...

    @property
    def episode(self) -> str | None:
        """Return the episode of the case."""
        ...

    @property
    def confidence(self) -> float | None:
        """Return the version's confidence."""
        ...

    @property
    def attributes(self) -> Mapping[str, str] | None:
        """Return the attributes that windows depend on."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SharedAssignment:
    """An assignment shared by equal cases; hashed by identity, which is fast."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class CachedAssignment:
    """An assignment with the full lease, granted until `full_lease_until` in Unix seconds."""

    shared_assignment: SharedAssignment
    full_lease_until: float


class AssignmentCache:
    """The assignments of one scope.

    Several threads may use it: what two compute at once is equal.
    """

    def __init__(self, scope: Scope, policy: Policy, salt: bytes) -> None:
        self._scope, self._policy, self._salt = scope, policy, salt
        self._shared_assignments: dict[Assignment, SharedAssignment] = {}
        # a salt that was edited to nothing fails questions, and not the reading of the rollout
        self._table = (
            AssignmentTable(scope, policy, salt, EPOCH, self._cache_assignment) if salt else None
        )

    def assign_questions(
        self,
        questions: Sequence[ClientQuestion],
        now: datetime,
        draws: Sequence[bool | None] = (),
    ) -> list[SharedAssignment]:
        """Return the assignment of each question; `now` needs a time zone.

        `draws` has whether the sample of each question's version has the case, if any has one.
        """
        if self._table is None or True in draws or False in draws:
            drawn = draws or repeat(None)
            return [self._evaluate_rules(q, now, d) for q, d in zip(questions, drawn, strict=False)]
        seconds, find_answer = now.timestamp(), self._table.find_answer
        return [
            cached_assignment.shared_assignment
            if (
                cached_assignment := find_answer(
                    question.site,
                    question.at,
                    question.version,
                    question.key,
                    seconds,
                    question.episode,
                    question.confidence,
                    question.attributes,
                )
            )
            is not None
            and seconds < cached_assignment.full_lease_until
            else self._evaluate_rules(question, now)
            for question in questions
        ]

    def _evaluate_rules(
        self, question: ClientQuestion, now: datetime, is_drawn: bool | None = None
    ) -> SharedAssignment:
        return self._share_assignment(self._compute_assignment(question, now, is_drawn))

    def _compute_assignment(
        self, question: ClientQuestion, now: datetime, is_drawn: bool | None
    ) -> Assignment:
        assignment_question = CaseQuestion(
            site=question.site,
            at=question.at,
            version=question.version,
            key=question.key,
            episode=question.episode or "",
            confidence=question.confidence,
            attributes=question.attributes,
            is_drawn=is_drawn,
        )
        return decide_assignment(
            self._scope, self._policy, self._salt, assignment_question, now=now
        )

    def _share_assignment(self, assignment: Assignment) -> SharedAssignment:
        """Return the shared object of an assignment."""
        if len(self._shared_assignments) >= MAX_CACHED_ASSIGNMENTS:
            self._shared_assignments.clear()
        return self._shared_assignments.setdefault(assignment, SharedAssignment(assignment))

    def _cache_assignment(
        self, _site: str, assignment: Assignment, until: float
    ) -> CachedAssignment:
        full_lease_until = until if until == inf else until - assignment.lease.total_seconds()
        return CachedAssignment(self._share_assignment(assignment), full_lease_until - EDGE_MARGIN)

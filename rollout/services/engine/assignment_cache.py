"""Cache of assignments: what `decide_assignment` returns for one scope, until it may change.

An assignment depends on site, window, version, confidence, unfamiliar attribute values and the
bucket of the sampling value. It
changes with the ledger (a new scope has a new cache), at a window's edge, and when a grant begins
or ends. Each assignment is computed once and reused for equal cases until the next of these
instants. A test compares the cache with `decide_assignment`.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from rollout.core.calendar.opening_hours import find_next_change
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.familiarity import AttributeValue
from rollout.core.policy.policy import NEVER, Policy
from rollout.core.scope.assignment import (
    MAX_CLOCK_SKEW,
    Assignment,
    CaseQuestion,
    compute_end,
    compute_unit_key,
    decide_assignment,
    find_unfamiliar_values,
)
from rollout.core.scope.scope import Scope
from rollout.core.statistics.sampling import compute_sampling_value, compute_sampling_values
from rollout.services.engine.window_lookup import WindowLookup

AssignmentKey = tuple[str, str, str, bool, int, tuple[AttributeValue, ...]]
"""Site, window, version, whether the confidence suffices, bucket, unfamiliar attribute values."""
MAX_SKEW_SECONDS: Final = MAX_CLOCK_SKEW.total_seconds()
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
    """An assignment valid in [since, until), in Unix seconds.

    The full lease is granted until `full_lease_until`.
    """

    shared_assignment: SharedAssignment
    since: float
    until: float
    full_lease_until: float


@dataclass(frozen=True, slots=True)
class CachedWindow:
    """The window of a site in [since, until), for policies without attributes."""

    window: str
    since: float
    until: float


class AssignmentCache:
    """The assignments of one scope.

    Several threads may use it: what two compute at once is equal.
    """

    def __init__(self, scope: Scope, policy: Policy, salt: bytes) -> None:
        self._scope, self._policy, self._salt, self._at = scope, policy, salt, scope.at
        self._sites, self._bucket_edges = policy.sites_by_id, policy.bucket_edges
        self._confidence_floor = policy.evidence.confidence_floor
        self._needs_familiar = policy.evidence.familiar is not None
        self._is_case_unit = policy.evidence.unit == "case"
        self._windows = WindowLookup(policy)
        self._has_hours_only = not any(window.when for window in policy.windows)
        self._scope_started_at = 0.0 if scope.at is None else scope.at.timestamp()
        self._assignments: dict[AssignmentKey, CachedAssignment] = {}
        self._shared_assignments: dict[Assignment, SharedAssignment] = {}
        self._cached_windows: dict[str, CachedWindow] = {}

    def assign_questions(
        self, questions: Sequence[ClientQuestion], now: datetime
    ) -> list[SharedAssignment]:
        """Return the assignment of each question; `now` needs a time zone."""
        if len(questions) == 1:
            unit_key = self._compute_unit_key(questions[0])
            sampling_value = compute_sampling_value(self._salt, "stage", unit_key)
            return [self._assign_question(questions[0], sampling_value, now, now.timestamp())]
        unit_keys = (
            [question.key for question in questions]
            if self._is_case_unit
            else [self._compute_unit_key(question) for question in questions]
        )
        sampling_values = compute_sampling_values(self._salt, "stage", unit_keys).tolist()
        seconds = now.timestamp()
        return [
            self._assign_question(question, sampling_value, now, seconds)
            for question, sampling_value in zip(questions, sampling_values, strict=True)
        ]

    def _compute_unit_key(self, question: ClientQuestion) -> str:
        at = question.at if question.at is not None and question.at.tzinfo is not None else None
        return compute_unit_key(self._policy, question.key, question.site, at, question.episode)

    def _assign_question(
        self, question: ClientQuestion, sampling_value: float, now: datetime, seconds: float
    ) -> SharedAssignment:
        at, site = question.at, question.site
        if at is None or at.tzinfo is None or site not in self._sites or not question.key:
            return self._share_assignment(self._compute_assignment(question, now))
        occurred_seconds = at.timestamp()  # datetimes of two zones compare slowly
        if abs(occurred_seconds - seconds) > MAX_SKEW_SECONDS:
            return self._share_assignment(self._compute_assignment(question, now))
        is_confident = self._confidence_floor is None or _is_confident(
            question.confidence, self._confidence_floor
        )
        cached_window = self._cached_windows.get(site)
        if (
            cached_window is not None
            and cached_window.since <= occurred_seconds < cached_window.until
        ):
            window = cached_window.window
        else:
            window = self._find_window(site, at, occurred_seconds, question.attributes)
        cache_key = (
            site,
            window,
            question.version,
            is_confident,
            bisect_right(self._bucket_edges, sampling_value),
            self._find_unfamiliar_values(site, window, question),
        )
        cached_assignment = self._assignments.get(cache_key)
        if (
            cached_assignment is None
            or not cached_assignment.since <= seconds < cached_assignment.until
        ):
            cached_assignment = self._cache_assignment(
                cache_key, self._compute_assignment(question, now), now
            )
        if seconds <= cached_assignment.full_lease_until >= self._scope_started_at:
            return cached_assignment.shared_assignment
        return self._share_assignment(self._compute_assignment(question, now))

    def _find_unfamiliar_values(
        self, site: str, window: str, question: ClientQuestion
    ) -> tuple[AttributeValue, ...]:
        if not self._needs_familiar:
            return ()
        return find_unfamiliar_values(
            self._scope, self._policy, Cell(site, window), question.version, question.attributes
        )

    def _compute_assignment(self, question: ClientQuestion, now: datetime) -> Assignment:
        assignment_question = CaseQuestion(
            site=question.site,
            at=question.at,
            version=question.version,
            key=question.key,
            episode=question.episode or "",
            confidence=question.confidence,
            attributes=question.attributes,
        )
        return decide_assignment(
            self._scope, self._policy, self._salt, assignment_question, now=now
        )

    def _share_assignment(self, assignment: Assignment) -> SharedAssignment:
        """Return the shared object of an assignment."""
        if len(self._shared_assignments) >= MAX_CACHED_ASSIGNMENTS:
            self._shared_assignments.clear()
        return self._shared_assignments.setdefault(assignment, SharedAssignment(assignment))

    def _find_window(
        self, site: str, at: datetime, occurred_seconds: float, attributes: Mapping[str, str] | None
    ) -> str:
        if not self._has_hours_only:
            return self._windows.find_window(site, at, attributes or {})
        opening_hours = (
            window.hours for window in self._policy.windows if window.hours is not None
        )
        changes = (
            find_next_change(window_hours, self._sites[site], at) for window_hours in opening_hours
        )
        until = min((change for change in changes if change is not None), default=NEVER)
        cached_window = self._cached_windows[site] = CachedWindow(
            self._windows.find_window(site, at, {}), occurred_seconds, until.timestamp()
        )
        return cached_window.window

    def _cache_assignment(
        self, cache_key: AssignmentKey, assignment: Assignment, now: datetime
    ) -> CachedAssignment:
        """Store an assignment; shadow ends only where a limit starts."""
        site = self._sites[cache_key[0]]
        until = self._policy.find_start(Cell(*cache_key[:2]), now) or NEVER
        full_lease = site.lease or self._policy.lease
        if assignment.stage != SHADOW:
            assignment = replace(assignment, lease=full_lease)
            since = now if self._at is None else max(now, self._at)
            cell, version = Cell(*cache_key[:2]), self._scope.get_first_name(cache_key[2])
            until = compute_end(self._scope, self._policy, cell, version, since)
        end_seconds = until.timestamp()
        full_lease_until = (
            end_seconds - full_lease.total_seconds() if assignment.stage != SHADOW else end_seconds
        )
        cached_assignment = CachedAssignment(
            self._share_assignment(assignment), now.timestamp(), end_seconds, full_lease_until
        )
        if len(self._assignments) >= MAX_CACHED_ASSIGNMENTS:
            self._assignments.clear()
        self._assignments[cache_key] = cached_assignment
        return cached_assignment


def _is_confident(confidence: float | None, floor: float) -> bool:
    return confidence is not None and floor <= confidence <= 1

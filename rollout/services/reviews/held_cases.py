"""Cases held ahead: claimed for a reviewer and loaded before they appear.

Held are the next blind tasks of the queue, as long as nobody waits for their answer. Which ones
depends on site, window and time alone, so it tells nothing about gold cases or predictions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from rollout import faults
from rollout.core.calendar.sites import Cell
from rollout.core.records.reviews import ADJUDICATE, BLIND_KINDS, CASE, REVIEW_PAGE
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.scope import Scope, compute_held_level
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.reviews.decisions import check_is_user
from rollout.services.reviews.review_queue import (
    ALL_REVIEW_KINDS,
    REVIEW_KINDS_BY_QUEUE,
    ClaimedTask,
    count_waiting,
    expose_tasks,
    find_permitted_sites,
)
from rollout.services.reviews.reviews import CLAIM_DURATION
from rollout.store.database.session import Database, Transaction
from rollout.store.records.exposures import ExposureStore
from rollout.store.records.newest_records import NewestRecords
from rollout.store.reviews.reviews import ReviewTaskStore, StoredReviewTask

MAX_HELD_CASES: Final = 3
"""Maximum of cases held ahead, without the one on the page."""

PAGE_HELD_CASES: Final = 1
"""Cases whose picture a page preloads without scripts."""

PAGE_KINDS: Final = (*REVIEW_KINDS_BY_QUEUE["blind"], *REVIEW_KINDS_BY_QUEUE["assisted"])


URGENT, CHANGED = "urgent", "changed"
"""Why a page has to load its next case anew."""


@dataclass(frozen=True, slots=True)
class ReviewPageTasks:
    """Claimed tasks of a review page.

    Attributes:
        tasks: the case on the page, unless it is known there, and those held ahead.
        to_go: pending cases, with the claimed ones.
        to_settle: pending adjudications.
        terms: fingerprint of what cases are held under.
        reload_reason: `URGENT` or `CHANGED` if the page is outdated and holds nothing any more.
    """

    tasks: tuple[ClaimedTask, ...]
    to_go: int
    to_settle: int
    terms: str
    reload_reason: str = ""


def compute_hold_terms(scope: Scope) -> str:
    """Return a fingerprint of policy and stops, under which cases are held.

    Events that follow from predictions are no part of it: a page shows that it changed.
    """
    terms = [str(scope.era), scope.policy_hash, *sorted(scope.stops)]
    return sha256("\n".join(terms).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class HeldPage:
    """What an open page has.

    Attributes:
        current: number of the task whose case appears.
        held: numbers of tasks that it holds ahead.
        terms: fingerprint under which it holds them.
    """

    current: int
    held: Collection[int]
    terms: str


def is_urgent_task(task: StoredReviewTask, at: datetime) -> bool:
    """Return whether a client still waits for the answer."""
    return task.answer_by is not None and at < task.answer_by


class _PageQueue:
    """The claimed tasks of one reviewer, within a write transaction."""

    def __init__(
        self,
        transaction: Transaction,
        caller: Caller,
        state: RolloutState,
        at: datetime,
        claim_time: datetime,
    ) -> None:
        self._transaction, self._caller, self._state = transaction, caller, state
        self._at, self._claim_time = at, claim_time
        self._sites = find_permitted_sites(caller, Permission.REVIEW, state)
        self._store = ReviewTaskStore(transaction, state.rollout)
        self._store.lock_reviewer(caller.name)
        self._store.release_revealed(caller.name)

    def list_claimed(self) -> list[StoredReviewTask]:
        """Return the claimed tasks: urgent ones, those that appeared, then as they were claimed."""
        claimed = self._store.list_claimed(
            self._caller.name, self._claim_time, PAGE_KINDS, self._sites
        )
        urgent = [task for task in claimed if is_urgent_task(task, self._at)]
        others = sorted(
            (task for task in claimed if not is_urgent_task(task, self._at)),
            key=lambda task: task.claimed_until or self._claim_time,
        )
        unshown = self._list_unshown(others)
        return [
            *sorted(urgent, key=lambda task: task.answer_by or self._at),
            *(task for task in others if task not in unshown),
            *unshown,
        ]

    def claim_next(self) -> StoredReviewTask | None:
        """Claim the next task, of whatever kind."""
        return self._claim(lambda _task: True)

    def claim_urgent(self) -> StoredReviewTask | None:
        """Claim the next task if somebody waits for its answer."""
        return self._claim(lambda task: is_urgent_task(task, self._at))

    def hold_more(
        self, held_tasks: Sequence[StoredReviewTask], count: int
    ) -> list[StoredReviewTask]:
        """Return `held_tasks` with the next tasks, up to `count`, as long as they can be held."""
        tasks = list(held_tasks)
        while len(tasks) < count:
            task = self._claim(self.can_be_held)
            if task is None:
                break
            tasks.append(task)
        return tasks

    def can_be_held(self, task: StoredReviewTask) -> bool:
        """Return whether nobody waits for the answer of a blind task.

        Above shadow, blind answers are audits: guards and renewals wait for them.
        """
        if task.kind not in BLIND_KINDS or is_urgent_task(task, self._at):
            return False
        if task.due_at is not None and task.due_at <= self._at + CLAIM_DURATION:
            return False
        newest = NewestRecords(self._transaction, self._state.rollout)
        case = newest.load_cases([task.case_id]).get(task.case_id)
        if case is None:
            return False
        cell, scope = Cell(case.site, case.window), self._state.scope
        holder = scope.get_holder(cell)
        return holder is None or not compute_held_level(
            self._state.policy, scope.get_cell_state(cell, holder), self._at
        )

    def find_awaited(self) -> StoredReviewTask | None:
        """Return the next free task if it can't be held ahead."""
        task = self._store.find_next(
            self._caller.name, self._at, PAGE_KINDS, self._sites, self._claim_time
        )
        return None if task is None or self.can_be_held(task) else task

    def release(self, tasks: Iterable[StoredReviewTask]) -> None:
        """Give tasks back to the queue."""
        for task in tasks:
            self._store.release(task)

    def release_unshown(self, tasks: Sequence[StoredReviewTask]) -> None:
        """Give back the tasks whose case has not appeared anywhere.

        Others may be on the screen of another window, or of a program.
        """
        self.release(self._list_unshown(tasks))

    def renew_unshown(self, tasks: Sequence[StoredReviewTask]) -> None:
        """Let the claims of cases that appear now begin anew, once."""
        for task in self._list_unshown(tasks):
            self._store.renew(task, self._claim_time + CLAIM_DURATION)

    def expose(
        self, tasks: Sequence[StoredReviewTask], held_tasks: Sequence[StoredReviewTask]
    ) -> tuple[ClaimedTask, ...]:
        """Return tasks for the page and record them: `held_tasks` as given, others as shown."""
        given_ids = {task.id for task in held_tasks}
        return expose_tasks(
            self._transaction, self._state, self._caller, tasks, self._at, given_ids=given_ids
        )

    def build_page(
        self, tasks: tuple[ClaimedTask, ...], reload_reason: str = ""
    ) -> ReviewPageTasks:
        """Return the tasks of a page with the numbers of pending ones."""
        waiting = count_waiting(
            self._transaction, self._state, self._caller, self._at, self._claim_time
        )
        claimed = self._store.list_claimed(
            self._caller.name, self._claim_time, ALL_REVIEW_KINDS, self._sites
        )
        conflict_count = sum(task.kind == ADJUDICATE for task in claimed)
        return ReviewPageTasks(
            tasks,
            to_go=len(claimed) - conflict_count + waiting["blind"] + waiting["assisted"],
            to_settle=conflict_count + waiting["adjudicate"],
            terms=compute_hold_terms(self._state.scope),
            reload_reason=reload_reason,
        )

    def _list_unshown(self, tasks: Sequence[StoredReviewTask]) -> list[StoredReviewTask]:
        exposures = ExposureStore(self._transaction, self._state.rollout).list_for_reviewer(
            self._caller.name, {task.case_id for task in tasks}
        )
        return [
            task
            for task in tasks
            if (CASE, REVIEW_PAGE) not in exposures.get(task.case_id, frozenset())
        ]

    def _claim(self, is_accepted: Callable[[StoredReviewTask], bool]) -> StoredReviewTask | None:
        return self._store.claim(
            self._caller.name,
            self._at,
            PAGE_KINDS,
            self._sites,
            self._claim_time + CLAIM_DURATION,
            self._claim_time,
            is_accepted=is_accepted,
        )


@contextmanager
def _open_queue(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    claim_time: datetime | None,
) -> Iterator[_PageQueue]:
    """Open the queue of a user who may review, within a write transaction of its own."""
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    check_is_user(caller)
    with database.begin_write() as transaction:
        yield _PageQueue(transaction, caller, state, at, claim_time or at)


def claim_page_tasks(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    *,
    claim_time: datetime | None = None,
) -> ReviewPageTasks:
    """Return the case of a review page, claimed if need be, and those held ahead.

    A case that somebody waits for comes first. `claim_time` is `at` on the clock of claims; None
    means the same clock.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
        UserRequiredError: the caller is a service account.
    """
    with _open_queue(database, caller, state, at, claim_time) as queue:
        claimed = queue.list_claimed()
        if not claimed or not is_urgent_task(claimed[0], at):
            task = queue.claim_urgent() if claimed else queue.claim_next()
            claimed = claimed if task is None else [task, *claimed]
        queue.release(task for task in claimed[1:] if is_urgent_task(task, at))
        held_tasks = [task for task in claimed[1:] if queue.can_be_held(task)][:PAGE_HELD_CASES]
        if claimed:
            held_tasks = queue.hold_more(held_tasks, PAGE_HELD_CASES)
        faults.reach_point("review.claimed")
        return queue.build_page(queue.expose([*claimed[:1], *held_tasks], held_tasks))


def hold_cases_ahead(
    database: Database,
    caller: Caller,
    state: RolloutState,
    page: HeldPage,
    at: datetime,
    *,
    claim_time: datetime | None = None,
) -> ReviewPageTasks:
    """Record that a case appears, and return those held ahead of it.

    Cases are given back if one that can't be held comes before them, and if policy or stops
    changed. `claim_time` is `at` on the clock of claims; None means the same clock.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
        UserRequiredError: the caller is a service account.
    """
    with _open_queue(database, caller, state, at, claim_time) as queue:
        claimed = queue.list_claimed()
        current = [task for task in claimed if task.id == page.current]
        others = [task for task in claimed if task.id != page.current]
        holdable = [task for task in others if queue.can_be_held(task)]
        awaited = queue.find_awaited()
        reload_reason = ""
        if page.terms != compute_hold_terms(state.scope) or not current:
            reload_reason = CHANGED
        elif awaited is not None and is_urgent_task(awaited, at):
            reload_reason = "" if is_urgent_task(current[0], at) else URGENT
        held_tasks = [
            task
            for task in holdable
            if not reload_reason and (awaited is None or _comes_before(task, awaited, at))
        ][:MAX_HELD_CASES]
        queue.release_unshown([task for task in others if task not in held_tasks])
        if not reload_reason:
            held_tasks = queue.hold_more(held_tasks, MAX_HELD_CASES)
        faults.reach_point("review.claimed")
        queue.renew_unshown(current)
        tasks = queue.expose([*current, *held_tasks], held_tasks)[len(current) :]
        return queue.build_page(tasks, reload_reason)


def _comes_before(task: StoredReviewTask, awaited: StoredReviewTask, at: datetime) -> bool:
    """Return whether a held task precedes an awaited one in the queue."""
    if is_urgent_task(awaited, at):
        return False
    latest = datetime.max.replace(tzinfo=at.tzinfo)
    return (task.due_at or latest, task.opened_at) <= (awaited.due_at or latest, awaited.opened_at)

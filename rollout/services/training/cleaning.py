"""The work list of cases to look at again, and what people choose about them.

Whoever reads the list sees what versions said, so nothing is on it that somebody may still judge
blind, and what is shown to a person is noted. A choice changes no record and is never evidence.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout import faults
from rollout.core.errors import Refusal, StaleRevision
from rollout.core.records.label_cleaning import Choice, Place, check_choice, holding
from rollout.core.records.records import Case
from rollout.core.records.reviews import PREDICTION, VERDICTS, due_at
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.label_issues import WorkItem, work_items
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.services.training.training import Wanted, settled
from rollout.store.counting.count_windows import Spans
from rollout.store.database.session import Database, Transaction
from rollout.store.records.case_pages import CasePages
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.cleanings import Cleanings

PAGE = "cleaning"
BACK = timedelta(days=30)
SAVED, UNCHANGED, REJECTED = "saved", "unchanged", "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody chooses about a case; `lever` "" is the only one that there is."""

    key: str
    choice: str
    lever: str = ""
    label: str | None = None
    reason: str = ""
    version: str = ""
    report: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What became of a wish: `saved`, `unchanged` as it holds already, or `rejected` and why."""

    key: str
    lever: str
    status: str
    reason: str = ""


def work_list(
    database: Database,
    caller: Caller,
    name: str,
    at: datetime,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    chosen: bool | None = None,
) -> Sequence[WorkItem]:
    """Return the cases to look at again, the dearest first, of sites that the caller may read.

    Args:
        database: where the rollout is.
        caller: who asks.
        name: of the rollout.
        at: now.
        since: when the first cases occurred; by default 30 days before the end.
        until: before when the last ones did; by default now.
        chosen: only those about which something was chosen, only the others, or, by None, all.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
        NothingToReport: the span is empty.
    """
    require(caller, Act.READ, name)
    options = Wanted(since=(until or at) - BACK if since is None else since, until=until)
    with database.reading() as transaction:
        state = standing(transaction, name)
        inputs, _ = settled(transaction, state, options, at)
    choices = holding(inputs.cleanings)
    # of all sites: how sure a version has to be is read off all of them
    all_items = work_items(inputs.records, inputs.cases, inputs.policy, choices)
    items = [item for item in all_items if caller.may(Act.READ, name, item.loss.site or "")]
    if chosen is not None:
        items = [item for item in items if (item.choice is not None) == chosen]
    return items


def note_shown(
    database: Database, caller: Caller, name: str, items: Sequence[WorkItem], at: datetime
) -> None:
    """Note what is about to be shown of the list; commit before the answer leaves."""
    _note(database, caller, name, {item.loss.case_key for item in items}, PREDICTION, at)


def _note(
    database: Database, caller: Caller, name: str, keys: Collection[str], what: str, at: datetime
) -> None:
    if caller.machine or not keys:
        return
    with database.writing() as transaction:
        state = standing(transaction, name)
        record_shown(transaction, state, caller, keys, what=what, page=PAGE, at=at)
        if hidden_from(transaction, state, caller, keys, at):  # they took one meanwhile
            raise StaleRevision("you have just been given one of these cases; ask again")


def choices_of(
    database: Database,
    caller: Caller,
    name: str,
    at: datetime,
    *,
    before: int | None = None,
    limit: int = 100,
) -> tuple[Sequence[Choice], int | None]:
    """Return choices, newest first, of sites that the caller may read, and where to go on.

    Of a case that people judge now, as a known one, nothing is told to anybody.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        state = standing(transaction, name)
        numbered_choices = Cleanings(transaction, state.rollout).page(before=before, limit=limit)
        sites = _closed_sites(
            transaction, state, [choice.choice.key for choice in numbered_choices], at
        )
    visible_choices = [choice.choice for choice in numbered_choices if choice.choice.key in sites]
    readable_choices = [
        choice for choice in visible_choices if caller.may(Act.READ, name, sites[choice.key])
    ]
    _note(database, caller, name, {choice.key for choice in readable_choices}, VERDICTS, at)
    return readable_choices, numbered_choices[-1].number if len(numbered_choices) == limit else None


def _closed_sites(
    transaction: Transaction, stood: Standing, keys: Sequence[str], at: datetime
) -> Mapping[str, str]:
    """Return where each case is, of those that nobody is to judge unseen."""
    blind_case_ids = Spans(transaction, stood.rollout).unseen(at)
    case_ids = CallerKeys(transaction, stood.rollout).find(set(keys))
    cases = Newest(transaction, stood.rollout).cases(case_ids.values())
    return {case.key: case.site for case_id, case in cases.items() if case_id not in blind_case_ids}


def choose(
    database: Database, caller: Caller, name: str, wishes: Sequence[Wish], at: datetime
) -> Sequence[Chosen]:
    """Keep what somebody chooses, and answer each wish in its order.

    A wish that is refused takes nothing from its neighbours. The last choice about a case and
    lever holds; the same once more is not doubled.

    Raises:
        NotAllowed: the caller is no operator in the rollout.
        UnknownRollout: there is none that they may see.
    """
    require(caller, Act.OPERATE, name)
    with database.writing() as transaction:
        state = standing(transaction, name)
        cleanings = Cleanings(transaction, state.rollout)
        cleanings.take_turns()
        batch = _Desk(transaction, state, caller, at, wishes)
        faults.point("cleaning.read")
        results = [batch.answer(request) for request in wishes]
        cleanings.add(batch.new)
        faults.point("cleaning.kept")
    return results


class _Desk:
    """Looks at wishes one by one, and holds what is to be kept."""

    def __init__(
        self,
        transaction: Transaction,
        stood: Standing,
        caller: Caller,
        at: datetime,
        wishes: Sequence[Wish],
    ) -> None:
        keys = {request.key for request in wishes if "\0" not in request.key}
        self._stood, self._caller, self._at = stood, caller, at
        self._pages = CasePages(transaction, stood.rollout)
        self._numbers = CallerKeys(transaction, stood.rollout).find(keys)
        self._cases = Newest(transaction, stood.rollout).cases(self._numbers.values())
        self._unseen = Spans(transaction, stood.rollout).unseen(at)
        stored_choices = Cleanings(transaction, stood.rollout).of(self._numbers.values())
        self._held: dict[Place, Choice] = dict(holding(stored_choices))
        self.new: list[tuple[int, Choice]] = []

    def answer(self, wish: Wish) -> Chosen:
        """Say what becomes of a wish, and take note of it."""
        lever = wish.lever or self._only_lever()
        try:
            self._check(wish, lever)
        except Refusal as refusal:
            return Chosen(wish.key, lever, REJECTED, str(refusal))
        choice_key, current_choice = (wish.key, lever), self._held.get((wish.key, lever))
        if current_choice is not None and (current_choice.choice, current_choice.label) == (
            wish.choice,
            wish.label,
        ):
            return Chosen(
                wish.key, lever, UNCHANGED, f"{current_choice.by} chose so at {current_choice.at}"
            )
        self._held[choice_key] = self._choice(wish, lever)
        self.new.append((self._numbers[wish.key], self._held[choice_key]))
        return Chosen(wish.key, lever, SAVED)

    def _only_lever(self) -> str:
        levers = self._stood.policy.levers
        return levers[0].id if len(levers) == 1 else ""

    def _choice(self, wish: Wish, lever: str) -> Choice:
        return Choice(
            key=wish.key,
            lever=lever,
            choice=wish.choice,
            by=self._caller.name,
            at=self._at,
            label=wish.label,
            reason=wish.reason,
            version=wish.version,
            report=wish.report,
        )

    def _check(self, wish: Wish, lever: str) -> None:
        case = self._cases.get(self._numbers.get(wish.key, -1))
        rollout_name = self._stood.rollout.name
        if case is None or not self._caller.may(Act.OPERATE, rollout_name, case.site):
            raise Refusal(f"no case {wish.key} at a site where {self._caller.name} is operator")
        if self._is_open(case):
            raise Refusal(f"{wish.key} is still judged by people; choose when it has closed")
        texts = (wish.version, wish.report, wish.label or "")
        if any("\0" in text for text in texts):
            raise Refusal("a text has a NUL character; leave it out")
        check_choice(self._stood.policy, lever, wish.choice, wish.label, wish.reason)

    def _is_open(self, case: Case) -> bool:
        case_id = self._numbers[case.key]
        received_at = self._pages.received_at(case_id) or self._at
        closes_at = due_at(self._stood.policy, case.occurred_at, received_at)
        return case_id in self._unseen or closes_at > self._at

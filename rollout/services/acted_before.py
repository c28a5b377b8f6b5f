"""Actions that came before their case: judged again when it is known where the case was.

Without its case an action is judged by its permit alone, which names no site. Its row stays as it
is; what is found wrong later is told by an incident.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

from rollout.core.events import UNAUTHORIZED, IncidentOpened
from rollout.core.ledger import event_of
from rollout.core.records import Case
from rollout.services.permission import (
    IN_LEASE,
    NOT_THEN,
    PERMITTED,
    Afterwards,
    Judgement,
    Known,
    known_by_key,
    standing_now,
)
from rollout.services.standing import Standing
from rollout.store.acts import Act, Acts
from rollout.store.ledger import Ledger
from rollout.store.newest import Newest
from rollout.store.records import Kept
from rollout.store.session import Transaction

ALLOWED: Final = (PERMITTED, IN_LEASE)
CAME: Final = f"its case came later: {NOT_THEN}"
MOVED: Final = f"its case was corrected later: {NOT_THEN}"
INSTANT: Final = timedelta(microseconds=1)


def judged_again(
    transaction: Transaction, stood: Standing, kept: Kept, unsure: Collection[str] = ()
) -> Sequence[Judgement]:
    """Return the actions that would have had no permission, had their case come first.

    Each is told once. Most batches are of new cases alone: for them nothing is read.

    Args:
        transaction: the one that kept the batch.
        stood: how the rollout stood.
        kept: what became of the batch.
        unsure: keys of cases in it of which an action was judged before it was certain what holds.
    """
    if not unsure and kept.touched <= kept.new:
        return ()
    described = {number for number, _ in kept.told(Case, "site")}
    doubted = {kept.case_ids[key] for key in unsure if key in kept.case_ids}
    looked = ((described | doubted) - kept.new) | (described & doubted)
    acts = Acts(transaction, stood.rollout).of(looked, ALLOWED) if looked else []
    if not acts:
        return ()
    corrected = _corrected(transaction, stood, kept, {act.case_id for act in acts} & described)
    return _untold(transaction, stood, _wrong(transaction, stood, acts, corrected))


def _corrected(
    transaction: Transaction, stood: Standing, kept: Kept, case_ids: AbstractSet[int]
) -> set[int]:
    """Return those of which another revision was there before this batch."""
    now = set(kept.told(Case, "revision"))
    there = Newest(transaction, stood.rollout).revisions(case_ids)
    return {number for number, revision in there if (number, revision) not in now}


def _wrong(
    transaction: Transaction, stood: Standing, acts: Sequence[Act], corrected: AbstractSet[int]
) -> list[tuple[Act, str]]:
    """Return the actions that have no permission in their case, as it is known now, and why."""
    known = known_by_key(transaction, stood.rollout, {act.action.key for act in acts})
    afterwards = Afterwards(transaction, standing_now(transaction, stood))
    wrong = []
    for act in acts:
        case, why = known.get(act.action.key), CAME
        if case is not None and act.case_id in corrected:
            # how sure the version was had been judged: a correction says nothing of it
            case, why = Known(case.case, {}), MOVED
        if case is not None and not afterwards.stands(act.action, case):
            wrong.append((act, why))
    return wrong


def _untold(
    transaction: Transaction, stood: Standing, wrong: Sequence[tuple[Act, str]]
) -> list[Judgement]:
    """Return those of which no incident has told since they came in, acknowledged or not."""
    if not wrong:
        return []
    told = _told(transaction, stood, min(act.received_at for act, _ in wrong))
    return [
        Judgement(act.action, why)
        for act, why in wrong
        if act.action.key not in told or told[act.action.key] < act.received_at
    ]


def _told(transaction: Transaction, stood: Standing, since: datetime) -> dict[str, datetime]:
    """Return the cases of which an incident has told that this module asked for, and when last."""
    ledger = Ledger(transaction, stood.rollout)
    rows = ledger.rows(after=ledger.revision_at(since - INSTANT), kinds={IncidentOpened.__name__})
    return {
        event.about: event.at
        for event in map(event_of, rows)
        if isinstance(event, IncidentOpened)
        and event.kind == UNAUTHORIZED
        and event.reason.endswith((CAME, MOVED))
    }

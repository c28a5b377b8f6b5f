"""Actions that came before their case: judged again when it is known where the case was.

Without its case an action is judged by its permit alone, which names no site. Its row stays as it
is; what is found wrong later is told by an incident.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

from rollout.core.ledger.ledger import event_of
from rollout.core.records.records import Case
from rollout.core.scope.events import UNAUTHORIZED, IncidentOpened
from rollout.services.engine.rollout_state import Standing
from rollout.services.records.action_authorization import (
    IN_LEASE,
    NOT_THEN,
    PERMITTED,
    Afterwards,
    Judgement,
    Known,
    known_by_key,
    standing_now,
)
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.actions import Act, Acts
from rollout.store.records.recent_units import Newest
from rollout.store.records.records import Kept

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
    described_ids = {number for number, _ in kept.told(Case, "site")}
    uncertain_ids = {kept.case_ids[key] for key in unsure if key in kept.case_ids}
    case_ids = ((described_ids | uncertain_ids) - kept.new) | (described_ids & uncertain_ids)
    actions = Acts(transaction, stood.rollout).of(case_ids, ALLOWED) if case_ids else []
    if not actions:
        return ()
    corrected_ids = _corrected(
        transaction, stood, kept, {act.case_id for act in actions} & described_ids
    )
    return _untold(transaction, stood, _wrong(transaction, stood, actions, corrected_ids))


def _corrected(
    transaction: Transaction, stood: Standing, kept: Kept, case_ids: AbstractSet[int]
) -> set[int]:
    """Return those of which another revision was there before this batch."""
    new_revisions = set(kept.told(Case, "revision"))
    stored_revisions = Newest(transaction, stood.rollout).revisions(case_ids)
    return {
        number for number, revision in stored_revisions if (number, revision) not in new_revisions
    }


def _wrong(
    transaction: Transaction, stood: Standing, acts: Sequence[Act], corrected: AbstractSet[int]
) -> list[tuple[Act, str]]:
    """Return the actions that have no permission in their case, as it is known now, and why."""
    cases_by_key = known_by_key(
        transaction, stood.rollout, {stored_action.action.key for stored_action in acts}
    )
    authorizer = Afterwards(transaction, standing_now(transaction, stood))
    unauthorized = []
    for stored_action in acts:
        case, reason = cases_by_key.get(stored_action.action.key), CAME
        if case is not None and stored_action.case_id in corrected:
            # how sure the version was had been judged: a correction says nothing of it
            case, reason = Known(case.case, {}), MOVED
        if case is not None and not authorizer.stands(stored_action.action, case):
            unauthorized.append((stored_action, reason))
    return unauthorized


def _untold(
    transaction: Transaction, stood: Standing, wrong: Sequence[tuple[Act, str]]
) -> list[Judgement]:
    """Return those of which no incident has told since they came in, acknowledged or not."""
    if not wrong:
        return []
    reported_at = _told(
        transaction, stood, min(stored_action.received_at for stored_action, _ in wrong)
    )
    return [
        Judgement(stored_action.action, reason)
        for stored_action, reason in wrong
        if stored_action.action.key not in reported_at
        or reported_at[stored_action.action.key] < stored_action.received_at
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

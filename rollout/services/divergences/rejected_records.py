"""Rejected records, without the contents of cases that may still be decided blind."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import NotAllowedError
from rollout.core.records.records import RejectedItem
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.rollout_state import (
    load_rollout_state,
)
from rollout.services.reviews.exposure import find_hidden_cases, record_shown_cases
from rollout.store.database.session import Database
from rollout.store.records.rejected_records import RejectedRecords

REJECTED_EXPOSURE_PAGE = "rejected-records"
WITHHELD = "you may still review this case, so its details are withheld"
NON_SECRET_KINDS = frozenset({"case", "heartbeat"})


@dataclass(frozen=True, slots=True)
class RejectedRecordView:
    """A rejected record as API and console show it."""

    number: int
    received_at: datetime
    kind: str
    key: str
    body: str
    reason: str


def load_rejected_records(
    database: Database,
    caller: Caller,
    rollout_name: str,
    at: datetime,
    *,
    after: int = 0,
    limit: int = 100,
) -> Sequence[RejectedRecordView]:
    """Return the rejected records, oldest first.

    Items name no site, so the caller needs the permission for all sites. Items of cases that the
    caller may still decide blind are returned without content and reason.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read all sites.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if not caller.has_permission(Permission.READ, rollout_name):
        raise NotAllowedError(
            f"{caller.name} may read some sites only, and rejected records can come from any: ask"
        )
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        rejected_records = RejectedRecords(transaction, state.rollout).list_after(
            after, limit=limit
        )
        case_keys = {
            record.item.key
            for record in rejected_records
            if record.item.kind not in NON_SECRET_KINDS
        }
        hidden_keys = find_hidden_cases(transaction, state, caller, case_keys, at)
    shown_keys = [
        o.item.key
        for o in rejected_records
        if o.item.kind not in NON_SECRET_KINDS and o.item.key not in hidden_keys
    ]
    record_shown_cases(database, state, caller, shown_keys, at, page=REJECTED_EXPOSURE_PAGE)
    return [
        RejectedRecordView(
            number=record.number,
            received_at=record.received_at,
            kind=record.item.kind,
            key=record.item.key,
            body="" if _is_withheld(record.item, hidden_keys) else record.item.body,
            reason=WITHHELD if _is_withheld(record.item, hidden_keys) else record.item.reason,
        )
        for record in rejected_records
    ]


def _is_withheld(item: RejectedItem, hidden_keys: Collection[str]) -> bool:
    """Return whether an item may quote a hidden case."""
    return item.kind not in NON_SECRET_KINDS and item.key in hidden_keys

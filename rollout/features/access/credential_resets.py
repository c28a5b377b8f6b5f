"""Resets of passwords, second factors, addresses and keys by others than their user.

For a day after a reset the account's approvals don't count, and they never count together with
those of the admin who made it: else one admin could approve twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.data.access.access_ledger import AccessLedger
from rollout.data.access.sessions import CredentialReset, CredentialResets
from rollout.data.access.users import StoredUser, Users
from rollout.data.database.session import Transaction
from rollout.engine.decide.permissions import Caller
from rollout.engine.ledger.access_events import CredentialsReset

PASSWORD, SECOND_FACTOR = "password", "second factor"
EMAIL, KEY = "e-mail address", "key"
APPROVAL_PAUSE: Final = timedelta(hours=24)
"""Time after a reset in which the account's approvals don't count."""


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """What resets mean for an account's approvals; fields as in `Actor`."""

    approvals_resume_at: datetime | None = None
    reset_partners: frozenset[str] = frozenset()

    def is_paused(self, at: datetime) -> bool:
        """Return whether the account's approvals don't count yet."""
        return self.approvals_resume_at is not None and at < self.approvals_resume_at

    def apply(self, caller: Caller) -> Caller:
        """Return the caller with these limits."""
        if self.approvals_resume_at is None and not self.reset_partners:
            return caller
        return replace(
            caller,
            approvals_resume_at=self.approvals_resume_at,
            reset_partners=self.reset_partners,
        )


NO_LIMITS: Final = ApprovalLimits()


def find_approval_limits(
    resets: Iterable[CredentialReset], names: Mapping[int, str]
) -> dict[int, ApprovalLimits]:
    """Return the limits by user number; users without limits are missing.

    `names` are those of all accounts, also of disabled ones.

    >>> at = datetime.fromisoformat("2027-06-01T12:00Z")
    >>> limits = find_approval_limits([CredentialReset(2, 1, "password", at)], {1: "ada", 2: "bo"})
    >>> sorted(limits), sorted(limits[1].reset_partners), sorted(limits[2].reset_partners)
    ([1, 2], ['bo'], ['ada'])
    """
    partners: dict[int, set[str]] = {}
    ends: dict[int, datetime] = {}
    for reset in resets:
        end = reset.reset_at + APPROVAL_PAUSE
        ends[reset.user_id] = max(end, ends.get(reset.user_id, end))
        if reset.reset_by in names and reset.user_id in names and reset.reset_by != reset.user_id:
            partners.setdefault(reset.user_id, set()).add(names[reset.reset_by])
            partners.setdefault(reset.reset_by, set()).add(names[reset.user_id])
    return {
        number: ApprovalLimits(ends.get(number), frozenset(partners.get(number, ())))
        for number in {*ends, *partners}
    }


def load_approval_limits(transaction: Transaction) -> dict[int, ApprovalLimits]:
    """Load the limits of all accounts by user number."""
    resets = CredentialResets(transaction).list_all()
    if not resets:
        return {}
    names = {user.number: user.name for user in Users(transaction).list_all()}
    return find_approval_limits(resets, names)


def record_reset(
    transaction: Transaction,
    access_ledger: AccessLedger,
    user: StoredUser,
    by: str,
    credential: str,
    *,
    at: datetime,
) -> None:
    """Store a reset in its table and in the access ledger."""
    CredentialResets(transaction).add(user, Users(transaction).find(by), credential, at=at)
    event = CredentialsReset(at=at, by=by, user=user.name, credential=credential)
    access_ledger.append([event])

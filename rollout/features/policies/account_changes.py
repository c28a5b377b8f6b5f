"""Changes of accounts, with warnings of what no user can do any more."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.approvals import find_group_memberships
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.words.approver_warnings import list_approver_warnings
from rollout.features.access.users import AccountUpdate, UserAccount, update_account
from rollout.features.proposals.proposals import load_present_approvers
from rollout.live.rollout_state import load_rollout_state

ChangeResult = TypeVar("ChangeResult")


@dataclass(frozen=True, slots=True)
class ChangedAccount:
    """An account after a change.

    `warnings` name each gate and each stop for which users are missing since this change.
    """

    account: UserAccount
    warnings: tuple[str, ...]


def change_account(
    database: Database,
    caller: Caller,
    user_name: str,
    update: AccountUpdate,
    *,
    at: datetime,
    requires_second_factor: bool,
) -> ChangedAccount:
    """Change an account as `update_account` does, and warn; nothing is refused for a warning."""

    def change() -> UserAccount:
        return update_account(database, caller, user_name, update, at=at)

    if not (update.is_disabled or update.roles_to_revoke):
        return ChangedAccount(change(), ())
    require_permission(caller, Permission.ADMINISTER, "")
    account, warnings = make_change_with_warnings(
        database, change, at=at, requires_second_factor=requires_second_factor
    )
    return ChangedAccount(account, warnings)


def make_change_with_warnings(
    database: Database,
    change: Callable[[], ChangeResult],
    *,
    at: datetime,
    requires_second_factor: bool,
) -> tuple[ChangeResult, tuple[str, ...]]:
    """Return the result of a change, and the warnings that are new since it."""

    def list_warnings() -> tuple[str, ...]:
        return list_missing_approvers(
            database, at=at, requires_second_factor=requires_second_factor
        )

    warnings_before = list_warnings()
    result = change()
    return result, tuple(w for w in list_warnings() if w not in warnings_before)


def list_missing_approvers(
    database: Database, *, at: datetime, requires_second_factor: bool
) -> tuple[str, ...]:
    """Return by rollout what its users can't approve now, and which stops they can't end."""
    warnings: list[str] = []
    with database.begin_read() as transaction:
        approvers = load_present_approvers(
            transaction, at=at, requires_second_factor=requires_second_factor
        )
        if approvers is None:
            return ()
        for rollout in Rollouts(transaction).list_all():
            if not Ledger(transaction, rollout).load_head().revision:
                continue  # it has no policy yet
            policy = load_rollout_state(transaction, rollout.name).policy
            members = find_group_memberships(approvers, rollout.name, tuple(policy.sites_by_id))
            warnings += (
                f"{rollout.name}: {warning}" for warning in list_approver_warnings(policy, members)
            )
    return tuple(warnings)

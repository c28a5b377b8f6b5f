"""Warnings about accounts that send decisions and are no source of evidence."""

from collections.abc import Iterable, Iterator

from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.scope.permissions import ROLES_BY_PERMISSION, Permission
from rollout.store.access.users import Users
from rollout.store.database.session import Transaction


def list_sending_accounts(transaction: Transaction, rollout_name: str) -> tuple[str, ...]:
    """Return the enabled service accounts that may send decisions of a rollout, by name."""
    users = Users(transaction)
    roles_by_user = users.list_all_role_assignments()
    decision_roles = ROLES_BY_PERMISSION[Permission.SEND_DECISIONS]
    return tuple(
        sorted(
            user.name
            for user in users.list_all()
            if user.is_service_account
            and user.disabled_at is None
            and any(
                role.role in decision_roles and role.rollout in {"", rollout_name}
                for role in roles_by_user.get(user.number, ())
            )
        )
    )


def list_source_warnings(policy: Policy, senders: Iterable[str]) -> Iterator[PolicyWarning]:
    """Yield a warning for each account whose decisions would be no evidence."""
    for account in senders:
        if not policy.evidence.sources.list_patterns(account):
            text = (
                f"{account} may send decisions, and no source names it: its decisions are stored "
                f"and reported, never evidence; to count them add {{account: {account}, "
                "reviewers: [...]} to `accounts`"
            )
            yield PolicyWarning("evidence.sources", text)

"""Warnings about accounts that send decisions and are no source of evidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.counting_rules import CURRENT_RULES, distinguishes_sources
from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.scope.permissions import ROLES_BY_PERMISSION, Permission
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.access.users import Users
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Transaction


@dataclass(frozen=True, slots=True)
class DecisionSenders:
    """Service accounts that may send decisions of a rollout, and its counting rules."""

    accounts: tuple[str, ...] = ()
    rules: int = CURRENT_RULES


NO_SENDERS: Final = DecisionSenders()
"""Senders of a policy that is planned without a database."""


def load_decision_senders(transaction: Transaction, rollout_name: str) -> DecisionSenders:
    """Return the senders of a rollout, which need not exist yet."""
    exists = Rollouts(transaction).find(rollout_name) is not None
    return DecisionSenders(
        list_sending_accounts(transaction, rollout_name),
        load_rollout_state(transaction, rollout_name).scope.rules if exists else CURRENT_RULES,
    )


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


def list_source_warnings(policy: Policy, senders: DecisionSenders) -> Iterator[PolicyWarning]:
    """Yield a warning for each account whose decisions would be no evidence.

    By older rules all are evidence, which is one warning.
    """
    if not distinguishes_sources(senders.rules):
        text = (
            f"{policy.rollout} is on counting rules {senders.rules}: decisions of every sender are"
            f" evidence, whatever this key says; `rollout rules plan {policy.rollout}` shows what"
            f" rules {CURRENT_RULES} change"
        )
        yield PolicyWarning("evidence.sources", text)
        return
    for account in senders.accounts:
        if not policy.evidence.sources.list_patterns(account):
            text = (
                f"{account} may send decisions, and no source names it: its decisions are stored "
                f"and reported, never evidence; to count them add {{account: {account}, "
                "reviewers: [...]} to `accounts`"
            )
            yield PolicyWarning("evidence.sources", text)

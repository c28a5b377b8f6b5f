"""Warnings about accounts whose decisions are no evidence, or that register what they predict."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.scope.permissions import ROLES_BY_PERMISSION, Permission
from rollout.reports.text.source_text import RegisteredUnits
from rollout.store.access.users import Users
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts


@dataclass(frozen=True, slots=True)
class RecordSenders:
    """Who may send a rollout's decisions, and who registered its newest cases."""

    decisions: tuple[str, ...] = ()
    cases: tuple[RegisteredUnits, ...] = ()


NO_SENDERS: Final = RecordSenders()


def load_record_senders(transaction: Transaction, rollout_name: str) -> RecordSenders:
    """Return the senders of a rollout; it need not exist yet."""
    # it loads what counts, which a replica's other requests don't need
    from rollout.store.counting.vouched_units import load_newest_registering

    rollout = Rollouts(transaction).find(rollout_name)
    counts = () if rollout is None else load_newest_registering(transaction, rollout)
    names = Accounts(transaction).find_names(count.source for count in counts)
    return RecordSenders(
        _list_deciding_accounts(transaction, rollout_name),
        tuple(RegisteredUnits(names.find_name(c.source), c.units, c.own) for c in counts),
    )


def _list_deciding_accounts(transaction: Transaction, rollout_name: str) -> tuple[str, ...]:
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


def list_source_warnings(policy: Policy, senders: RecordSenders) -> Iterator[PolicyWarning]:
    """Yield a warning for each account whose decisions or cases wouldn't count as one expects."""
    yield from _warn_own_cases(policy, senders.cases)
    for account in senders.decisions:
        if not policy.evidence.sources.list_patterns(account):
            text = (
                f"{account} may send decisions, and no source names it: its decisions are stored "
                f"and reported, never evidence; to count them add {{account: {account}, "
                "reviewers: [...]} to `accounts`"
            )
            yield PolicyWarning("evidence.sources", text)


def _warn_own_cases(policy: Policy, counts: tuple[RegisteredUnits, ...]) -> Iterator[PolicyWarning]:
    """Yield a warning for each account that registers cases and predicts them."""
    total = sum(count.units for count in counts)
    others = [count.source for count in counts if not count.own] or ["NAME"]
    for count in counts:
        if count.own and policy.evidence.sources.registers(count.source):
            text = (
                f"{count.source} registered {count.units:,} of the newest {total:,} cases and"
                f" predicted {count.own:,} of them: it can leave out those that its model would get"
                f" wrong; let another account register: `sources: {{cases: [{', '.join(others)}]}}`"
            )
            yield PolicyWarning("evidence.sources.cases", text)

"""Who vouches for the senders that a policy names as vouched."""

from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.evidence_sources import DEFAULT_SOURCES
from rollout.core.scope.events import Approved, PolicyApplied
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts


def load_vouchers(
    transaction: Transaction, rollout: Rollout, *, until: int
) -> dict[str, tuple[str, ...]]:
    """Return by account who approved its newest line of the policy, or applied it alone."""
    from rollout.formats.policy.reader import parse_policy  # slow to import

    kinds = (PolicyApplied.__name__, Approved.__name__)
    rows = Ledger(transaction, rollout).list_rows(until=until, kinds=kinds)
    events = [parse_event(row) for row in rows]
    policies = [event for event in events if isinstance(event, PolicyApplied)]
    texts = PolicyTexts(transaction, rollout).load_texts({event.policy_hash for event in policies})
    approvers: dict[str, list[str]] = {}
    vouchers: dict[str, tuple[str, ...]] = {}
    before = DEFAULT_SOURCES.vouched
    for event in events:
        if isinstance(event, Approved):
            approvers.setdefault(event.proposal, []).append(event.by)
        elif isinstance(event, PolicyApplied):
            vouched = parse_policy(texts[event.policy_hash]).evidence.sources.vouched
            names = tuple(approvers.get(event.proposal, ())) or (event.by,)
            changed = (account for account in vouched if vouched[account] != before.get(account))
            vouchers |= dict.fromkeys(changed, names)
            before = vouched
    return vouchers

"""Who vouches for the senders that a policy names as vouched."""

from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.evidence_sources import DEFAULT_SOURCES
from rollout.core.scope.events import Approved, PolicyApplied, find_applied_policies
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts


def load_vouchers(
    transaction: Transaction, rollout: Rollout, *, until: int
) -> dict[str, tuple[str, ...]]:
    """Return by account who approved its newest line of the policy, or applied it alone."""
    from rollout.formats.policy.reader import parse_checked_policy  # slow to import

    kinds = (PolicyApplied.__name__, Approved.__name__)
    rows = Ledger(transaction, rollout).list_rows(until=until, kinds=kinds)
    events = [parse_event(row) for row in rows]
    texts = PolicyTexts(transaction, rollout).load_texts(find_applied_policies(events))
    approvers: dict[str, list[str]] = {}
    vouchers: dict[str, tuple[str, ...]] = {}
    before = DEFAULT_SOURCES.vouched
    for event in events:
        if event.is_approved:
            approvers.setdefault(event.about_proposal, []).append(event.by)
        else:
            vouched = parse_checked_policy(texts[event.applied_policy]).evidence.sources.vouched
            names = tuple(approvers.get(event.about_proposal, ())) or (event.by,)
            changed = (account for account in vouched if vouched[account] != before.get(account))
            vouchers |= dict.fromkeys(changed, names)
            before = vouched
    return vouchers

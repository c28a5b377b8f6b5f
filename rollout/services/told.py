"""Rows of a ledger in words: some of them, without reading the whole chain for it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rollout.core.events import Approved, Event, ProposalRaised
from rollout.core.ledger import Row, event_of
from rollout.reports.timeline_words import Happening, Telling, happening
from rollout.services.standing import Standing
from rollout.store.ledger import Ledger
from rollout.store.proposals import Proposals
from rollout.store.session import Transaction


def told(
    transaction: Transaction, stood: Standing, rows: Sequence[Row], since: datetime | None = None
) -> tuple[Happening, ...]:
    """Return rows of a rollout's ledger in words, in their order.

    Args:
        transaction: in which they were read.
        stood: the rollout's standing: its policy names the zones.
        rows: some rows of its ledger.
        since: an instant of the reader's year: times of that year are told without it.
    """
    events = [event_of(row) for row in rows]
    raised, yes = _cited(transaction, stood, events)
    telling = Telling(stood.policy, raised, yes, simulated=False, since=since)
    return tuple(
        happening(row.revision, event, telling) for row, event in zip(rows, events, strict=True)
    )


def _cited(
    transaction: Transaction, stood: Standing, events: Iterable[Event]
) -> tuple[Mapping[str, ProposalRaised], Mapping[str, list[str]]]:
    """Return the proposals that events cite, and who approved each."""
    ledger, kept = Ledger(transaction, stood.rollout), Proposals(transaction, stood.rollout)
    raised: dict[str, ProposalRaised] = {}
    yes: dict[str, list[str]] = defaultdict(list)
    for name in {getattr(event, "proposal", "") for event in events} - {""}:
        found = kept.find(name)
        if found is None:
            continue
        kinds = ("ProposalRaised", "Approved")
        rows = ledger.rows(after=found.raised_in - 1, until=found.closed_in, kinds=kinds)
        for event in map(event_of, rows):
            match event:
                case ProposalRaised(proposal=of) if of == name:
                    raised[name] = event
                case Approved(proposal=of) if of == name:
                    yes[name].append(event.by)
    return raised, yes

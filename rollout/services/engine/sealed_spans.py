"""The ledger's seals of evidence, span by span: what each tick counted, and which policies held."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.policy import Policy
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import PolicyApplied, ProposalRaised
from rollout.core.scope.record_events import RecordsCounted
from rollout.services.engine.evidence_seals import find_sealed_slot
from rollout.services.engine.rollout_state import RolloutState, parse_stored_policy
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import ROWS_PER_READ, Ledger
from rollout.store.ledger.policies import PolicyTexts

LAST_SLOT: Final = 2**62
SPANS_PER_PART: Final = 200
SPAN_KINDS: Final = (PolicyApplied.__name__, RecordsCounted.__name__, ProposalRaised.__name__)


@dataclass(frozen=True, slots=True)
class SealedSpan:
    """The units of slots (`after`, `until`] and what the ledger holds of them.

    Attributes:
        event: the tick's event; None after the last one.
        revision: of the event; 0 without one.
        policies: those in force since the event before, newest first.
        proposals: raised since the event and before the next one, each with the policy in force.
    """

    after: int
    until: int
    event: RecordsCounted | None
    revision: int
    policies: tuple[Policy, ...]
    proposals: list[tuple[ProposalRaised, Policy]] = field(default_factory=list)


class SealedSpans:
    """The spans of a rollout up to one revision, read in parts, each in its own transaction."""

    def __init__(self, database: Database, state: RolloutState) -> None:
        self._database, self._state = database, state

    def iterate_parts(self) -> Iterator[list[SealedSpan]]:
        """Yield the spans in the order of the ledger, the open one last."""
        part: list[SealedSpan] = []
        for span in self._iterate_spans():
            if len(part) == SPANS_PER_PART:
                yield part
                part = []
            part.append(span)
        yield part

    def _iterate_spans(self) -> Iterator[SealedSpan]:
        """Yield each span when all its proposals are known."""
        in_force: tuple[Policy, ...] = ()
        span, last_slot = None, -1
        for revision, event in self._iterate_events():
            if isinstance(event, Policy):
                in_force = (event, *(other for other in in_force if other.hash != event.hash))
            elif isinstance(event, RecordsCounted):
                if span is not None:
                    yield span
                slot = find_sealed_slot(event, in_force[0])
                span = SealedSpan(last_slot, slot, event, revision, in_force)
                in_force, last_slot = in_force[:1], slot
            elif isinstance(event, ProposalRaised) and span is not None:
                span.proposals.append((event, in_force[0]))
        if span is not None:
            yield span
        yield SealedSpan(last_slot, LAST_SLOT, None, 0, in_force)

    def _iterate_events(self) -> Iterator[tuple[int, LedgerEvent | Policy]]:
        """Yield the events of spans with their revisions; of an applied policy the policy."""
        revision = 0
        while True:
            with self._database.begin_read() as transaction:
                ledger = Ledger(transaction, self._state.rollout)
                rows = ledger.list_rows(
                    after=revision, until=self._state.scope.revision, kinds=SPAN_KINDS
                )
                events = [(row.revision, parse_event(row)) for row in islice(rows, ROWS_PER_READ)]
                policies = load_policies(transaction, self._state, (event for _, event in events))
            for row_revision, event in events:
                if isinstance(event, PolicyApplied):
                    yield row_revision, policies[event.policy_hash]
                else:
                    yield row_revision, event
            revision = events[-1][0] if events else revision
            if len(events) < ROWS_PER_READ:
                return


def load_policies(
    transaction: Transaction, state: RolloutState, events: Iterable[LedgerEvent]
) -> Mapping[str, Policy]:
    """Return the policies that some events applied, by hash."""
    hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
    texts = PolicyTexts(transaction, state.rollout).load_texts(hashes) if hashes else {}
    return {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}

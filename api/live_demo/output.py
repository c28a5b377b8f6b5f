"""The ledger's events as lines of text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.ledger.ledger import CanonicalRow, parse_event
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_describer import CitedProposals, EventDescriber
from rollout.reports.text.event_kinds import COUNTING_KINDS
from rollout.reports.text.event_text import describe_event
from rollout.reports.text.formatting import format_zoned_time
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

HIDDEN_KINDS = frozenset({"RolloutCreated", *COUNTING_KINDS})


@dataclass(slots=True)
class LedgerNarrator:
    """A reader that describes new ledger events."""

    database: Database
    policy: Policy
    reference_date: datetime
    _revision: int = 0
    _cited: CitedProposals = field(default_factory=CitedProposals)

    def describe_news(self) -> Iterator[str]:
        """Yield a line for each event since the last call."""
        with self.database.begin_read() as transaction:
            rollout = load_rollout_state(transaction, self.policy.rollout).rollout
            rows = tuple(Ledger(transaction, rollout).list_rows(after=self._revision))
        for row in rows:
            yield from self._describe_row(row)

    def _describe_row(self, row: CanonicalRow) -> Iterator[str]:
        event = parse_event(row)
        self._revision = row.revision
        self._cited.add_event(event)
        describer = EventDescriber(self.policy, self._cited, reference_date=self.reference_date)
        description = describe_event(row.revision, event, describer)
        if description.kind not in HIDDEN_KINDS:
            location = f"{description.site} {description.window}: " if description.site else ""
            zone = describer.find_zone(describer.find_cell(event))
            local_time = format_zoned_time(event.at, zone, self.reference_date)
            yield f"{local_time:>21}  {location}{description.brief}"

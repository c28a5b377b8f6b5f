"""Counted outcomes: each unit of a version is stored once for each outcome with a value.

A unit is stored when its deadline passes, with the score that it then has, so that values which
come later change nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Select, select

from rollout.data.counting.counts import SlotPosition, find_position, match_positions
from rollout.data.counting.unit_records import UnitRecords, select_lines
from rollout.data.database.bulk import insert_missing
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceStore
from rollout.data.tables.tables import counted_outcomes, predictions
from rollout.engine.evidence.outcome_buffer import CountedOutcome

LINES_PER_READ: Final = 2_000
ORDER: Final = ("slot", "occurred", "unit", "version", "outcome")


class CountedOutcomes(RolloutRepository):
    """The counted outcomes of one rollout."""

    def store(self, lines: Sequence[CountedOutcome]) -> None:
        """Store units that were not counted before.

        If evidence has already reached a unit's slot, it counts in the next one.
        """
        if not lines:
            return
        first_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True) + 1
        ordered_lines = sorted(lines, key=itemgetter(0, 1, 2))
        open_lines = (line._replace(slot=max(line.slot, first_slot)) for line in ordered_lines)
        rows = [(self._rollout.number, *line) for line in open_lines]
        insert_missing(self._transaction, counted_outcomes, rows)

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        version: str | None = None,
        positions: range | None = None,
    ) -> Iterator[CountedOutcome]:
        """Yield the units of slots (`after`, `until`] in digests' order.

        They are those of a version or all, or a run of all.
        """
        lines = select_lines(counted_outcomes, self._rollout, after, until, positions)
        query = select(*(lines.c[name] for name in CountedOutcome._fields)).order_by(
            *(lines.c[name] for name in ORDER)
        )
        if version is not None:
            query = query.where(lines.c.version == version)
        return self._read(query)

    def find_part_end(self, after: SlotPosition, size: int) -> SlotPosition | None:
        """Return the position of the unit that follows the next `size` ones; None at the end."""
        return find_position(self._transaction, counted_outcomes, self._rollout, after, size)

    def read_part(self, *, after: SlotPosition, until: SlotPosition) -> Iterator[CountedOutcome]:
        """Yield the units of positions (`after`, `until`]."""
        query = select(*(counted_outcomes.c[name] for name in CountedOutcome._fields)).where(
            counted_outcomes.c.rollout == self._rollout.number,
            *match_positions(counted_outcomes, after, until),
        )
        return self._read(query)

    def _read(self, query: Select[Any]) -> Iterator[CountedOutcome]:
        for row in self._transaction.execute(query.execution_options(yield_per=LINES_PER_READ)):
            yield CountedOutcome._make(row)._replace(record_hashes=bytes(row.record_hashes))


def load_drawn(
    transaction: Transaction,
    rollout: Rollout,
    case_ids: Collection[int],
    records: UnitRecords,
) -> dict[tuple[int, str], str]:
    """Return by case and version who was to decide, as stored with the first question.

    Questions that `records` doesn't use play no part: a unit is counted anew without those that
    came later, under whatever name of the version.
    """
    query = (
        select(
            *(predictions.c[name] for name in ("case_id", "version", "decider")),
            *(predictions.c[name] for name in ("exposure", "share", "record_hash")),
        )
        .where(*match_cases(transaction, rollout, predictions, case_ids))
        .where(predictions.c.decider.is_not(None))
        .order_by(predictions.c.received_at.desc(), predictions.c.revision.desc())
    )  # the first one is last, and stays
    names = records.first_names
    return {
        (row.case_id, names.get(row.version, row.version)): (
            f"{row.decider} {row.exposure} {row.share!r}"
        )
        for row in transaction.execute(query)
        if records.is_used(row)
    }

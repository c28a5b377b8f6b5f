"""The records behind counted units: their hashes, who sent them, and which came late.

A unit rests on its cases, on the predictions of its version, on the decisions and on the outcomes,
of which the first may precede all decisions, in every revision that was stored when it was counted.
Of an episode all cases decide, because one is picked.

Actions and outcomes: their hashes are also stored by the tick whose digest covers them, as actions
open incidents, and outcomes feed guards, reports and `counted_outcomes`. The queue has each case
with new ones, in the transaction that stores them.

Senders: who registered the cases, which senders were late, and of each decision who sent it, and
whether it was a review made here.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    Table,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)

from rollout.data.database.bulk import build_insert, fetch_rows
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.ledger.scopes import EvidenceStore
from rollout.data.records.record_rows import RECORD_SCHEMAS, RecordSchema, join_hashes
from rollout.data.tables.record_tables import GATE, RECORD_UNSEALED
from rollout.data.tables.tables import (
    cases,
    count_queue,
    count_series,
    counted_outcomes,
    counted_records,
    counted_units,
    decisions,
    outcomes,
    predictions,
)
from rollout.engine.evidence.picks import find_first_decisions, find_known_time
from rollout.engine.evidence.version_uses import NO_USES
from rollout.engine.records.records import Action, Outcome
from rollout.engine.records.reviews import fold_name
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import (
    ACCOUNT,
    BEFORE_SOURCES,
    UNNAMED,
    CountedOutcomeSource,
    CountedSource,
    FrozenVouching,
    RegisteredUnits,
    name_sender,
)


def is_counted_decision() -> ColumnElement[bool]:
    """Return the condition that a decision is of a unit's reviewer, and of a source."""
    return and_(
        decisions.c.rollout == counted_units.c.rollout,
        decisions.c.case_id == counted_units.c.case_id,
        decisions.c.reviewer == counted_units.c.reviewer,
        or_(decisions.c.source.is_(None), decisions.c.source != UNNAMED),
    )


def is_gate_unit(
    rollout: Rollout, cell: Cell, version: str, first_slot: int, until: int
) -> ColumnElement[bool]:
    """Return the condition that a unit of a series is of a cell's gate track.

    It occurred from a slot on, and counts in slots up to `until`.
    """
    return and_(
        counted_units.c.rollout == rollout.number,
        counted_units.c.version == version,
        counted_units.c.track == GATE,
        counted_units.c.exclusion_reason.is_(None),
        count_series.c.site == cell.site,
        count_series.c.window == cell.window,
        counted_units.c.occurred >= first_slot,
        counted_units.c.slot <= until,
    )


def load_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    *,
    first_slot: int,
    until: int,
) -> tuple[CountedSource, ...]:
    """Return by source the decisions behind a version's gate units, most first.

    They occurred from a slot on and count in slots up to `until`. A unit counts once, with the
    newest decision of its reviewer. Units without a decision, and those whose decision was erased,
    are in no source.
    """
    units_by_source: dict[str, dict[int, str]] = defaultdict(dict)
    newest: dict[int, tuple[str, str]] = {}
    query = (
        select(
            counted_units.c.unit,
            decisions.c.reviewer,
            decisions.c.source,
            decisions.c.sender,
            decisions.c.review,
        )
        .join(count_series, count_series.c.id == counted_units.c.series_id)
        .join(decisions, is_counted_decision())
        .where(is_gate_unit(rollout, cell, version, first_slot, until))
        .order_by(counted_units.c.unit, decisions.c.revision)
    )
    rows: Any = transaction.execute(query)
    for unit, reviewer, source, sender, review in rows:
        name = name_sender(sender, is_review=review is not None)
        name = source if source not in {None, ACCOUNT} else name
        newest[unit] = (name, reviewer)
    for unit, (name, reviewer) in newest.items():
        units_by_source[name][unit] = fold_name(reviewer)
    counts = (
        CountedSource(name, len(reviewers), len(set(reviewers.values())))
        for name, reviewers in units_by_source.items()
    )
    return tuple(sorted(counts, key=lambda count: (-count.decisions, count.source)))


def load_outcome_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    outcomes: Collection[str],
    *,
    first_slot: int,
    until: int,
) -> tuple[CountedOutcomeSource, ...]:
    """Return by source the units whose outcomes are evidence for a version, most first.

    They occurred from a slot on and count in slots up to `until`. A unit with values of two sources
    counts with both.
    """
    rows: Any = transaction.execute(
        select(counted_outcomes.c.sources, counted_outcomes.c.unit).where(
            counted_outcomes.c.rollout == rollout.number,
            counted_outcomes.c.site == cell.site,
            counted_outcomes.c.window == cell.window,
            counted_outcomes.c.version == version,
            counted_outcomes.c.outcome.in_(outcomes),
            counted_outcomes.c.occurred >= first_slot,
            counted_outcomes.c.slot <= until,
            counted_outcomes.c.known_share > 0,
            counted_outcomes.c.source_fault.is_(None),
        )
    )
    units_by_source: dict[str, set[int]] = defaultdict(set)
    for sources, unit in rows:
        for source in (sources or BEFORE_SOURCES).split():
            units_by_source[source].add(unit)
    counts = (CountedOutcomeSource(source, len(units)) for source, units in units_by_source.items())
    return tuple(sorted(counts, key=lambda count: (-count.units, count.source)))


NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class UnitRecords:
    """Hashes of records as they were read, from which units take theirs.

    Attributes:
        cases_beside: by case all cases of its unit; empty if each unit is a case.
        first_names: by later name of a version its first one.
        row_counts: by case the number of its records.
        case_numbers: the numbers of the cases by key.
        uses: since when versions were in use as the records were read.
    """

    def __init__(self, first_names: Mapping[str, str] = NO_ALIASES) -> None:
        self.first_names = first_names
        self._predictions: dict[int, set[tuple[str, str | None, bytes]]] = {}
        self._others: dict[int, set[bytes]] = {}
        self._senders: dict[int, set[str]] = {}
        self.cases_beside: Mapping[int, Collection[int]] = {}
        self.row_counts: Counter[int] = Counter()
        self.case_numbers: Mapping[str, int] = {}
        self.uses = NO_USES

    def is_used(self, _row: Row[Any]) -> bool:
        """Return whether units may rest on a record: on any."""
        return True

    def add_rows(self, table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Add records' rows of a table, and return them: all are used."""
        self.row_counts.update(map(attrgetter("case_id"), rows))
        if table is predictions:
            names = self.first_names
            for row in rows:
                version = names.get(row.version, row.version)
                prediction = (version, row.sender, bytes(row.record_hash))
                self._predictions.setdefault(row.case_id, set()).add(prediction)
        else:  # also outcomes: the first one says when a case was decided
            self._add_others(rows)
            if table is not cases:
                self._add_senders(rows)
        return rows

    def _add_others(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            self._others.setdefault(row.case_id, set()).add(bytes(row.record_hash))

    def _add_senders(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            if row.sender is not None:
                self._senders.setdefault(row.case_id, set()).add(row.sender)

    def join_hashes(self, case_id: int, version: str) -> bytes:
        """Return the hashes of the records behind the unit of a case, sorted and joined.

        A prediction of another version belongs to them if its sender also sent a decision or
        outcome of the unit, which then may be no evidence.
        """
        numbers = self.cases_beside.get(case_id, (case_id,))
        senders = {sender for number in numbers for sender in self._senders.get(number, ())}
        hashes: list[bytes] = []
        for number in numbers:
            hashes += self._others.get(number, ())
            hashes += [
                record_hash
                for own_version, sender, record_hash in self._predictions.get(number, ())
                if own_version == version or sender in senders
            ]
        return join_hashes(hashes)


class SelectedRecords(UnitRecords):
    """Records with certain hashes; others are not used."""

    def __init__(
        self, hashes: Collection[bytes], first_names: Mapping[str, str] = NO_ALIASES
    ) -> None:
        """Select the records with these hashes."""
        super().__init__(first_names)
        self._selected_hashes = hashes

    def is_used(self, row: Row[Any]) -> bool:
        """Return whether the row is one of the selected records."""
        return bytes(row.record_hash) in self._selected_hashes

    def add_rows(self, _table: Table, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Return the rows of selected records."""
        return list(filter(self.is_used, rows))


LINE_TABLES: Final = (counted_units, counted_records, counted_outcomes)


def count_lines(
    transaction: Transaction, rollout: Rollout, *, after: int, until: int
) -> tuple[int, ...]:
    """Return the numbers of units, records and outcomes of slots (`after`, `until`]."""
    lines = (select_lines(table, rollout, after, until) for table in LINE_TABLES)
    queries = (select(func.count()).select_from(table_lines) for table_lines in lines)
    return tuple(int(transaction.execute(query).scalar_one()) for query in queries)


def select_lines(
    table: Table, rollout: Rollout, after: int, until: int, positions: range | None = None
) -> Subquery:
    """Select the rows of slots (`after`, `until`], or those at some positions among them.

    Positions count in the order of slots; rows of one slot have the index's order, which costs no
    sorting.
    """
    query = select(table).where(
        table.c.rollout == rollout.number, table.c.slot > after, table.c.slot <= until
    )
    if positions is not None:
        query = query.order_by(table.c.slot).offset(positions.start).limit(len(positions))
    return query.subquery()


SEALED_SCHEMAS: Final = (RECORD_SCHEMAS[Action], RECORD_SCHEMAS[Outcome])
RECORDS_PER_READ: Final = 2_000


class RecordLine(NamedTuple):
    """A record that a tick counted, as its digest covers it."""

    slot: int
    case_id: int
    kind: str
    record_hash: bytes

    @property
    def unit(self) -> int:
        """Return its case, the least that it belongs to."""
        return self.case_id

    @property
    def record_hashes(self) -> bytes:
        """Return its own hash, for it rests on no other record."""
        return self.record_hash

    @property
    def text(self) -> bytes:
        """Return the line that digests cover."""
        return f"{self.kind} {self.case_id} {self.slot} {self.record_hash.hex()}\n".encode()


@dataclass(frozen=True, slots=True)
class UnsealedRecords:
    """Actions and outcomes in no tick's digest; `newest` is when the last was received."""

    number: int = 0
    newest: datetime | None = None


class CountedRecords(RolloutRepository):
    """The counted actions and outcomes of one rollout."""

    def store(self, case_ids: Collection[int], *, slot: int) -> None:
        """Store the hashes of the actions and outcomes of cases; those stored before stay.

        If evidence has already reached the slot, the hashes belong to the next one.
        """
        if not case_ids:
            return
        last_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True)
        for schema in SEALED_SCHEMAS:
            new_rows = self._select_rows(schema, case_ids, max(slot, last_slot + 1))
            self._transaction.execute(
                build_insert(self._transaction.engine, counted_records)
                .from_select(["rollout", "case_id", "record_hash", "kind", "slot"], new_rows)
                .on_conflict_do_nothing()
            )

    def read_lines(
        self, *, after: int, until: int, positions: range | None = None
    ) -> Iterator[RecordLine]:
        """Yield the records of slots (`after`, `until`], or a run of them, in digests' order."""
        lines = select_lines(counted_records, self._rollout, after, until, positions)
        query = select(*(lines.c[name] for name in RecordLine._fields)).order_by(
            *(lines.c[name] for name in ("slot", "case_id", "record_hash"))
        )
        for row in self._transaction.execute(query.execution_options(yield_per=RECORDS_PER_READ)):
            yield RecordLine(row.slot, row.case_id, row.kind, bytes(row.record_hash))

    def has_any_line(self, *, after: int, until: int) -> bool:
        """Return whether slots (`after`, `until`] have a counted unit, record or outcome."""
        parameters = {"rollout": self._rollout.number, "after": after, "until": until}
        return bool(fetch_rows(self._transaction, ANY_LINE_QUERY, parameters))

    def count_unsealed(self) -> UnsealedRecords:
        """Return the actions and outcomes that no tick counted and none will."""
        queued_cases = select(count_queue.c.case_id).where(
            count_queue.c.rollout == self._rollout.number, count_queue.c.track == RECORD_UNSEALED
        )
        rows = [
            self._transaction.execute(self._select_unsealed(schema, queued_cases)).one()
            for schema in SEALED_SCHEMAS
        ]
        newest = max((row.newest for row in rows if row.newest is not None), default=None)
        return UnsealedRecords(sum(row.number for row in rows), newest)

    def _select_rows(
        self, schema: RecordSchema, case_ids: Collection[int], slot: int
    ) -> Select[Any]:
        table = schema.table
        return select(
            *(table.c.rollout, table.c.case_id, table.c.record_hash),
            *(literal(schema.name), literal(slot)),
        ).where(*match_cases(self._transaction, self._rollout, table, case_ids))

    def _select_unsealed(self, schema: RecordSchema, queued_cases: Select[Any]) -> Select[Any]:
        table = schema.table
        is_sealed = (
            select(counted_records.c.case_id)
            .where(counted_records.c.rollout == table.c.rollout)
            .where(counted_records.c.case_id == table.c.case_id)
            .where(counted_records.c.record_hash == table.c.record_hash)
            .exists()
        )
        newest = type_coerce(func.max(table.c.received_at), table.c.received_at.type)
        return (
            select(func.count().label("number"), newest.label("newest"))
            .select_from(table)
            .where(table.c.rollout == self._rollout.number, ~is_sealed)
            .where(table.c.case_id.not_in(queued_cases))
        )


def _select_any(table: Table) -> Select[Any]:
    is_inside = table.c.slot > bindparam("after"), table.c.slot <= bindparam("until")
    query = select(table.c.slot).where(table.c.rollout == bindparam("rollout"), *is_inside)
    return select(query.limit(1).subquery())


ANY_LINE_QUERY: Final = union_all(
    *map(_select_any, (counted_units, counted_records, counted_outcomes))
)


NEWEST_CASES = 1_000


class SendingTimes(NamedTuple):
    """When a case and its prediction were sent, and when it was first decided.

    Times are in microseconds; `known` is when both were received, or earlier if their sender is
    vouched for.
    """

    occurred: int
    received: int
    known: int
    decided: int | None

    @property
    def is_late(self) -> bool:
        """Return whether the case or its prediction came after the first decision."""
        return self.decided is not None and self.known > self.decided


def load_vouched_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    names: Collection[str],
    *,
    first_slot: int,
    until: int,
) -> tuple[FrozenVouching, ...]:
    """Return by vouched account the gate units that it registered or predicted after a decision.

    `names` are all those of the version. The units occurred from a slot on and count in slots up to
    `until`. A unit whose case and prediction are late and of two accounts counts with both. ()
    where no late record is of a vouched account.
    """
    units = _select_cases(is_gate_unit(rollout, cell, version, first_slot, until))
    records = _load_first_records(transaction, rollout, names, units, is_vouched=True)
    if not records:
        return ()
    case_ids = {record.case_id for record in records}
    first_decisions = _load_first_decisions(transaction, rollout, case_ids)
    units_by_account: dict[str, set[int]] = defaultdict(set)
    longest: dict[str, int] = {}
    for case_id, received, occurred, sender, vouched in records:
        decided = first_decisions.get(case_id)
        if decided is None or not max(decided, occurred) < received <= occurred + vouched:
            continue
        account = sender or BEFORE_SOURCES
        units_by_account[account].add(case_id)
        longest[account] = max(vouched, longest.get(account, 0))
    if not units_by_account:
        return ()
    counted = transaction.execute(select(func.count()).select_from(units.subquery())).scalar_one()
    counts = (
        FrozenVouching(account, len(ids), counted, timedelta(microseconds=longest[account]))
        for account, ids in units_by_account.items()
    )
    return tuple(sorted(counts, key=lambda count: (-count.units, count.account)))


def load_registering_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    names: Collection[str],
    *,
    first_slot: int,
    until: int,
) -> tuple[RegisteredUnits, ...]:
    """Return by who registered their cases the gate units of a version, most first.

    The units are those of `load_vouched_counts`. Cases that only a decision places are of nobody.
    """
    units = _select_cases(is_gate_unit(rollout, cell, version, first_slot, until))
    return count_registering(transaction, rollout, units, predictions.c.version.in_(names))


def load_newest_registering(
    transaction: Transaction, rollout: Rollout
) -> tuple[RegisteredUnits, ...]:
    """Return the same of a rollout's newest cases, with any version."""
    newest = select(cases.c.case_id).where(
        cases.c.rollout == rollout.number, cases.c.revision > 0, cases.c.planted.is_(None)
    )
    newest = newest.distinct().order_by(cases.c.case_id.desc()).limit(NEWEST_CASES)
    return count_registering(transaction, rollout, newest)


def count_registering(
    transaction: Transaction,
    rollout: Rollout,
    case_ids: Select[tuple[int]],
    *is_predicted: ColumnElement[bool],
) -> tuple[RegisteredUnits, ...]:
    """Return by sender of their first registered revision how many cases there are, most first."""
    earlier = cases.alias()
    is_first = ~exists().where(
        earlier.c.rollout == cases.c.rollout,
        earlier.c.case_id == cases.c.case_id,
        earlier.c.revision.between(1, cases.c.revision - 1),
    )
    is_own = exists().where(
        predictions.c.rollout == cases.c.rollout,
        predictions.c.case_id == cases.c.case_id,
        predictions.c.sender == cases.c.sender,
        *is_predicted,
    )
    query = (
        select(cases.c.sender, func.count(), func.sum(case((is_own, 1), else_=0)))
        .where(cases.c.rollout == rollout.number, cases.c.case_id.in_(case_ids))
        .where(cases.c.revision > 0, is_first)
        .group_by(cases.c.sender)
    )
    counts: dict[str, RegisteredUnits] = {}
    for sender, unit_count, own_count in map(tuple, transaction.execute(query)):
        source = name_sender(sender, is_review=False)
        before = counts.get(source, RegisteredUnits(source, 0, 0))
        counts[source] = RegisteredUnits(
            source, before.units + unit_count, before.own + int(own_count)
        )
    return tuple(sorted(counts.values(), key=lambda count: (-count.units, count.source)))


def _select_cases(condition: ColumnElement[bool]) -> Select[tuple[int]]:
    """Return the query for the cases of counted units."""
    of_series = count_series.c.id == counted_units.c.series_id
    return select(counted_units.c.case_id).join(count_series, of_series).where(condition)


def load_sent_cases(
    transaction: Transaction, rollout: Rollout, cell: Cell, version: str, names: Collection[str]
) -> tuple[tuple[SendingTimes, ...], str]:
    """Return a version's newest cases in a cell, and the id of who sent most late records of them.

    Units of any fate are looked at, counted or not. `names` are all those of the version. The id is
    "" if unknown.
    """
    is_of_cell = and_(
        counted_units.c.rollout == rollout.number,
        counted_units.c.version == version,
        counted_units.c.track == GATE,
        count_series.c.site == cell.site,
        count_series.c.window == cell.window,
    )
    units = _select_cases(is_of_cell).order_by(counted_units.c.occurred.desc()).limit(NEWEST_CASES)
    records = _load_first_records(transaction, rollout, names, units, is_vouched=False)
    first_decisions = _load_first_decisions(transaction, rollout, {row.case_id for row in records})
    sent_cases: dict[int, SendingTimes] = {}
    senders: Counter[str] = Counter()
    for case_id, received, occurred, sender, vouched in records:
        known_at = find_known_time(received, occurred, vouched)
        sent = SendingTimes(occurred, received, known_at, first_decisions.get(case_id))
        senders[sender or ""] += sent.is_late
        earlier = sent_cases.get(case_id, sent)
        sent_cases[case_id] = sent._replace(
            received=max(received, earlier.received), known=max(known_at, earlier.known)
        )
    return tuple(sent_cases.values()), max(senders, key=senders.__getitem__, default="")


def _load_first_records(
    transaction: Transaction,
    rollout: Rollout,
    names: Collection[str],
    units: Select[tuple[int]],
    *,
    is_vouched: bool,
) -> Sequence[Any]:
    """Return the first revisions of cases and predictions, or those of vouched senders alone.

    Times are in microseconds.
    """
    queries = []
    for table, conditions in ((cases, ()), (predictions, (predictions.c.version.in_(names),))):
        first = cases.alias()
        is_same_case = and_(first.c.rollout == rollout.number, first.c.case_id == table.c.case_id)
        query = select(
            table.c.case_id,
            type_coerce(table.c.received_at, BigInteger).label("received"),
            type_coerce(first.c.occurred_at, BigInteger).label("occurred"),
            table.c.sender,
            table.c.vouched,
        )
        queries.append(
            query.join(first, is_same_case).where(
                table.c.rollout == rollout.number,
                table.c.revision == 1,
                first.c.revision == 1,
                table.c.case_id.in_(units),
                *((table.c.vouched.is_not(None),) if is_vouched else ()),
                *conditions,
            )
        )
    return transaction.execute(union_all(*queries)).all()


def _load_first_decisions(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> dict[int, int]:
    """Return by case when it was decided first, in microseconds."""
    decision_rows, outcome_rows = (
        transaction.execute(
            select(
                table.c.case_id,
                type_coerce(table.c[stated], BigInteger).label(stated),
                type_coerce(table.c.received_at, BigInteger).label("received_at"),
            ).where(*match_cases(transaction, rollout, table, case_ids))
        ).all()
        for table, stated in ((decisions, "submitted_at"), (outcomes, "at"))
    )
    return find_first_decisions(decision_rows, outcome_rows)


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

"""Who registered the cases of counted units, and which of their senders were late."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    func,
    select,
    type_coerce,
    union_all,
)

from rollout.core.calendar.sites import Cell
from rollout.core.policy.evidence_sources import (
    BEFORE_SOURCES,
    FrozenRegistering,
    FrozenVouching,
    name_sender,
)
from rollout.store.counting.counted_decisions import is_gate_unit
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.tables.counting_tables import GATE
from rollout.store.tables.tables import (
    cases,
    count_series,
    counted_units,
    decisions,
    outcomes,
    predictions,
)
from rollout.tally.picks import find_first_decisions, find_known_time

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
) -> tuple[FrozenRegistering, ...]:
    """Return by who registered their cases the gate units of a version, most first.

    The units are those of `load_vouched_counts`. Cases that only a decision places are of nobody.
    """
    units = _select_cases(is_gate_unit(rollout, cell, version, first_slot, until))
    is_version = predictions.c.version.in_(names)
    return count_registering(transaction, rollout, units, is_version)


def load_newest_registering(
    transaction: Transaction, rollout: Rollout
) -> tuple[FrozenRegistering, ...]:
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
) -> tuple[FrozenRegistering, ...]:
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
    counts: dict[str, FrozenRegistering] = {}
    for sender, unit_count, own_count in map(tuple, transaction.execute(query)):
        source = name_sender(sender, is_review=False)
        before = counts.get(source, FrozenRegistering(source, 0, 0))
        counts[source] = FrozenRegistering(
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

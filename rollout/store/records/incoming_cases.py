"""What is known of the cases that came in: just enough to say when they are to be counted.

Instants are whole microseconds, as they are stored.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import BigInteger, Column, ColumnElement, Table, bindparam, select, type_coerce

from rollout.core.records.records import Case, Decision, Prediction, Record
from rollout.store.database import value_lists
from rollout.store.database.bulk import QUIETLY, insert_columns
from rollout.store.database.driver_statements import fetched
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.record_rows import FORMS, Cells, Form
from rollout.store.tables.tables import cases, count_queue, decisions, exposures, predictions


@dataclass(slots=True)
class Facts:
    """A case: where and when, when it came in, when it was predicted and decided.

    Attributes:
        site, occurred, received: of the case; `site` None while it is not known.
        predicted: by version the time of its prediction, None where that is the case's.
        decided: by reviewer the exposure and the time of the verdict.
    """

    site: str | None = None
    occurred: int = 0
    received: int = 0
    predicted: dict[str, int | None] = field(default_factory=dict)
    decided: dict[str, tuple[str, int]] = field(default_factory=dict)


def _raw(column: Column[Any]) -> ColumnElement[Any]:
    return type_coerce(column, BigInteger)


Asked = tuple[ColumnElement[Any], ...]
OF_CASES: Final[Asked] = (
    *(cases.c.case_id, cases.c.site),
    *(_raw(cases.c.occurred_at), _raw(cases.c.received_at)),
)
OF_PREDICTIONS: Final[Asked] = (
    *(predictions.c.case_id, predictions.c.version),
    _raw(predictions.c.at),
)
OF_DECISIONS: Final[Asked] = (
    *(decisions.c.case_id, decisions.c.reviewer, decisions.c.exposure),
    *(_raw(decisions.c.submitted_at), _raw(decisions.c.received_at)),
)


class Touched:
    """The cases of one rollout of which something came in."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def facts(self, case_ids: Collection[int]) -> dict[int, Facts]:
        """Return what is stored of cases, of each record the newest revision."""
        cases_by_id: dict[int, Facts] = {case_id: Facts() for case_id in case_ids}
        for case_id, site, occurred, received in self._of(cases, OF_CASES, case_ids):
            incoming = cases_by_id[case_id]
            incoming.site, incoming.occurred, incoming.received = site, occurred, received
        for case_id, version, at in self._of(predictions, OF_PREDICTIONS, case_ids):
            cases_by_id[case_id].predicted[version] = at
        for case_id, reviewer, exposure, submitted, received in self._of(
            decisions, OF_DECISIONS, case_ids
        ):
            cases_by_id[case_id].decided[reviewer] = (exposure, submitted or received)
        return cases_by_id

    def sites(self, case_ids: Collection[int]) -> Mapping[int, set[str]]:
        """Return the sites at which each case is said to be, by any of its revisions."""
        sites_by_case: dict[int, set[str]] = defaultdict(set)
        for case_id, site in self._of(cases, [cases.c.case_id, cases.c.site], case_ids):
            sites_by_case[case_id].add(site)
        return sites_by_case

    def anything_shown(self) -> bool:
        """Say whether anything was ever shown to anybody; most sites judge elsewhere."""
        parameters = {"rollout": self._rollout.number}
        return bool(fetched(self._transaction, ANY_SHOWN, parameters))

    def shown(self, case_ids: Collection[int]) -> Mapping[tuple[int, str], set[tuple[str, str]]]:
        """Return by case and person what they were shown, and from which page."""
        found: dict[tuple[int, str], set[tuple[str, str]]] = defaultdict(set)
        columns: list[Column[Any]] = [
            exposures.c.case_id,
            exposures.c.reviewer,
            exposures.c.content,
            exposures.c.page,
        ]
        query = select(*columns).where(*self._own(exposures, case_ids))
        rows: Iterable[Any] = self._transaction.execute(query)
        for case_id, reviewer, content, page in rows:
            found[case_id, reviewer].add((content, page))
        return found

    def queue(self, entries: Sequence[tuple[int, int, str]]) -> None:
        """Write (instant, case, track) into the due queue; what stands there is not doubled."""
        if not entries:
            return
        named_columns = zip(("at", "case_id", "track"), zip(*entries, strict=True), strict=True)
        columns = {"rollout": (self._rollout.number,) * len(entries), **dict(named_columns)}
        insert_columns(self._transaction, count_queue, columns, QUIETLY)

    def _of(
        self, table: Table, columns: Collection[ColumnElement[Any]], case_ids: Collection[int]
    ) -> Iterable[Any]:
        if not case_ids:
            return ()
        query = select(*columns).where(*self._own(table, case_ids))
        return self._transaction.execute(query.order_by(table.c.revision))

    def _own(self, table: Table, case_ids: Collection[int]) -> tuple[ColumnElement[bool], ...]:
        case_id_query = value_lists.numbers(self._transaction, case_ids)
        return (table.c.rollout == self._rollout.number, table.c.case_id.in_(case_id_query))


def facts_of(columns: Mapping[Form, Cells], received: int) -> dict[int, Facts]:
    """Return what records say that were just stored, by case; nothing else is known of these.

    Args:
        columns: of several revisions the highest counts.
        received: when they came in.
    """
    case_rows = _in_order(columns, Case, "site", "occurred_at")
    cases_by_id = defaultdict(
        Facts, {new_id: Facts(site, at, received) for new_id, site, at in case_rows}
    )
    for case_id, version, at in _in_order(columns, Prediction, "version", "at"):
        cases_by_id[case_id].predicted[version] = at
    for case_id, reviewer, *exposure_and_time in _in_order(columns, Decision, *DECIDED):
        exposure, submitted = exposure_and_time
        cases_by_id[case_id].decided[reviewer] = (
            exposure,
            received if submitted is None else submitted,
        )
    return cases_by_id


def _in_order(
    columns: Mapping[Form, Cells], kind: type[Record], *names: str
) -> Iterable[tuple[Any, ...]]:
    """Return of records of a kind the case's number and some cells, the newest revision last."""
    columns_by_name = columns.get(FORMS[kind])
    if columns_by_name is None:
        return ()
    revisions, *value_columns = (columns_by_name[name] for name in ("revision", "case_id", *names))
    rows = zip(*value_columns, strict=True)
    if revisions.count(1) == len(revisions):
        return rows
    return (row for _, row in sorted(zip(revisions, rows, strict=True), key=itemgetter(0)))


DECIDED: Final = ("reviewer", "exposure", "submitted_at")
ANY_SHOWN: Final = (
    select(exposures.c.case_id).where(exposures.c.rollout == bindparam("rollout")).limit(1)
)

"""Rows of cases by the cases' numbers, without SQLAlchemy's share of the time."""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, select

from rollout.data.database.bulk import RowValues, encode_driver_values, fetch_rows, select_integers
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction


def fetch_case_rows(
    transaction: Transaction,
    rollout: Rollout,
    table: Table,
    columns: tuple[ColumnElement[Any], ...],
    case_ids: Collection[int],
) -> list[RowValues]:
    """Return columns of the cases' rows; the oldest revision of a record first.

    The columns are integers, texts or bytes, and belong to a table with the rollout and the case at
    the start of its primary key.
    """
    if not case_ids:
        return []
    engine = transaction.engine
    encoded = encode_driver_values(engine, case_ids)
    query = _build_query(engine, table, columns)
    return fetch_rows(transaction, query, {"rollout": rollout.number, "case_ids": encoded})


@cache
def _build_query(engine: str, table: Table, columns: tuple[ColumnElement[Any], ...]) -> Select[Any]:
    """Return the query for the rows of cases.

    On PostgreSQL a lateral subquery looks up each case: a plan made of `in` reads all cases of the
    rollout for each case as long as the table has no statistics. The order in it makes PostgreSQL
    use the primary key.
    """
    case_ids = select_integers(engine, "case_ids")
    query = select(*columns).where(table.c.rollout == bindparam("rollout"))
    query = query.order_by(*table.primary_key)
    if engine == "sqlite":
        return query.where(table.c.case_id.in_(case_ids))
    listed_ids = case_ids.subquery("listed_ids")
    rows = query.where(table.c.case_id == listed_ids.c.value).lateral("case_rows")
    return select(rows).select_from(listed_ids, rows)

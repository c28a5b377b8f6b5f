"""Statements of ours given to the driver as they are.

SQLAlchemy takes longer around a small statement than SQLite in it, and a batch of records needs
ten: theirs go this way. Statements are written with SQLAlchemy all the same, for both engines, and
compiled once; rows come back as the driver has them, so whole numbers and texts only. What the
driver raises is named as SQLAlchemy names it, so that callers see no difference.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError

from rollout.store.database.session import Transaction

if TYPE_CHECKING:
    from sqlalchemy.engine import Compiled

Cells = tuple[Any, ...]
AT_ONCE: Final = 25
"""Rows of one statement: a longer one gains nothing, and what is left over goes one by one."""

_compiled: dict[tuple[str, Executable], tuple[str, Mapping[str, Any], tuple[str, ...]]] = {}
"""By engine and statement its text, the values that it has itself, and their order on SQLite."""


def fetched(
    transaction: Transaction, statement: Executable, given: Mapping[str, Any]
) -> list[Cells]:
    """Return the rows of a statement that is made once, at the top of a module or cached.

    Args:
        transaction: where.
        statement: a select, or an insert that returns something.
        given: the values of its parameters, in a form that the driver knows.
    """
    text, own_values, order = _known(transaction, statement)
    values: Any = {**own_values, **given}
    if order:
        values = [values[name] for name in order]
    driver = _driver(transaction)
    try:
        return driver.execute(text, values).fetchall()  # type: ignore[no-any-return]
    except _raised(transaction) as error:
        raise _named(transaction, text, error) from error


def inserted(transaction: Transaction, into: str, rows: Sequence[Cells], then: str = "") -> None:
    """Run an insert of SQLite: several rows a statement, and the rest one by one.

    Args:
        transaction: where.
        into: its beginning, up to the columns.
        rows: at least one.
        then: its end, after the values.
    """
    placeholders = f"({', '.join('?' * len(rows[0]))})"
    single_statement, batch_statement = (
        f"{into} values {', '.join([placeholders] * n)} {then}" for n in (1, AT_ONCE)
    )
    batched_count = len(rows) - len(rows) % AT_ONCE
    flat = tuple(chain.from_iterable(rows[:batched_count]))
    step = AT_ONCE * len(rows[0])
    driver = _driver(transaction)
    try:
        driver.executemany(batch_statement, (flat[n : n + step] for n in range(0, len(flat), step)))
        driver.executemany(single_statement, rows[batched_count:])
    except _raised(transaction) as error:
        raise _named(transaction, single_statement, error) from error


def given(transaction: Transaction, text: str, values: Sequence[Any]) -> None:
    """Run a statement in the driver's own words; what it returns is not asked for."""
    try:
        _driver(transaction).execute(text, values)
    except _raised(transaction) as error:
        raise _named(transaction, text, error) from error


def _known(
    transaction: Transaction, statement: Executable
) -> tuple[str, Mapping[str, Any], tuple[str, ...]]:
    key = (transaction.engine, statement)
    compiled = _compiled.get(key)
    if compiled is None:
        compilation: Compiled = statement.compile(dialect=transaction.connection.dialect)  # type: ignore[attr-defined]
        order = tuple(getattr(compilation, "positiontup", None) or ())
        compiled = _compiled[key] = (str(compilation), compilation.params, order)
    return compiled


def _driver(transaction: Transaction) -> Any:
    return transaction.connection.connection.driver_connection


def _raised(transaction: Transaction) -> type[Exception]:
    error_type: type[Exception] = transaction.connection.dialect.loaded_dbapi.Error
    return error_type


def _named(transaction: Transaction, text: str, error: Any) -> BaseException:
    wrapped: BaseException = DBAPIError.instance(text, None, error, _raised(transaction))
    return wrapped

"""Query plans: what a query reads, and by which index; most tests read SQLite's."""

from collections.abc import Callable

from sqlalchemy import ClauseElement, event

from rollout.data.database.session import Transaction


def steps(transaction: Transaction, ask: Callable[[], object]) -> list[str]:
    """Ask, and return the steps of the plan by which the last statement of it was answered."""
    statements = []

    @event.listens_for(transaction.connection, "before_cursor_execute")
    def _listen(_connection, _cursor, statement, parameters, *_more):
        statements.append((statement, parameters))

    ask()
    return _explained(transaction, *statements[-1])


def steps_of(transaction: Transaction, statement: ClauseElement) -> list[str]:
    """Return the steps of the plan by which a statement would be answered, whatever is given."""
    compiled = statement.compile(dialect=transaction.connection.dialect)
    return _explained(transaction, str(compiled), (1,) * len(compiled.params))


def _explained(transaction: Transaction, query: str, parameters: object) -> list[str]:
    explain = "explain query plan" if transaction.engine == "sqlite" else "explain"
    plan = transaction.connection.exec_driver_sql(f"{explain} {query}", parameters)
    return [row[-1] for row in plan]

"""How SQLite answers a question: what it reads, and by which index."""

from collections.abc import Callable

from sqlalchemy import event

from rollout.store.session import Transaction


def steps(transaction: Transaction, ask: Callable[[], object]) -> list[str]:
    """Ask, and return the steps of the plan by which the last statement of it was answered."""
    asked = []

    @event.listens_for(transaction.connection, "before_cursor_execute")
    def _listen(_connection, _cursor, statement, parameters, *_more):
        asked.append((statement, parameters))

    ask()
    query, given = asked[-1]
    plan = transaction.connection.exec_driver_sql(f"explain query plan {query}", given)
    return [row.detail for row in plan]

"""Exporting what is stored about one user or reviewer."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.erasure.user_data import UserData
from rollout.engine.decide.permissions import Caller
from rollout.features.access.access_state import require_self_or_admin
from rollout.features.erasure.erasure import UnknownSubjectError


def iterate_user_data(database: Database, caller: Caller, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield every row that names a user or reviewer; `table` says what it is.

    Raises:
        NotAllowedError: the caller is another user and no admin of all rollouts.
        UnknownSubjectError: neither an account nor a record has the name.
    """
    require_self_or_admin(caller, name, "export the data")
    rows = _iterate_rows(database, name)
    first_row = next(rows, None)
    if first_row is None:
        raise UnknownSubjectError(
            f"no account and no reviewer is called {name}; check the name, upper and lower case"
            " differ"
        )
    return chain([first_row], rows)


def _iterate_rows(database: Database, name: str) -> Iterator[Mapping[str, Any]]:
    with database.begin_read() as transaction:
        data = UserData(transaction, name)
        parts = [data.iterate_account(), data.iterate_ledger()]
        parts += [data.iterate_rollout(rollout) for rollout in Rollouts(transaction).list_all()]
        for row in chain.from_iterable(parts):
            yield {
                column: value.isoformat() if isinstance(value, datetime) else value
                for column, value in row.items()
            }

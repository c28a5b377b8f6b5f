"""All rows that name one user or reviewer, as plain values."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Table, select

from rollout.store.access.users import Users
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.tables.tables import (
    ACCESS_LEDGER,
    api_keys,
    baselines,
    calendar_feeds,
    cleanings,
    credential_resets,
    decisions,
    exposures,
    identities,
    ledger,
    ledger_texts,
    notification_channels,
    notification_settings,
    notifications,
    policies,
    reviews,
    second_factors,
    sessions,
    sign_in_addresses,
)

DataRow = Mapping[str, Any]
ROWS_PER_READ: Final = 500
NAMED_COLUMNS: Final[Mapping[Table, tuple[str, tuple[str, ...]]]] = {
    decisions: (
        "reviewer",
        ("revision", "answers", "unsure", "exposure", "started_at", "submitted_at", "note"),
    ),
    exposures: ("reviewer", ("at", "content", "page")),
    reviews: ("reviewer", ("site", "opened_at", "state", "closed_at")),
    cleanings: ("by", ("lever", "choice", "label", "reason", "at")),
    baselines: ("imported_by", ("site", "window", "lever", "action", "n", "since", "until")),
    policies: ("received_by", ("hash", "received_at")),
}
"""By table the column with the name and the columns to return.

What would reveal a gold case is left out: the kind of a review task and its known answers.
"""
GOLD_FIELDS: Final = ("revision", "answers", "unsure", "started_at", "submitted_at", "note")
ACCOUNT_COLUMNS: Final[Mapping[Table, tuple[str, ...]]] = {
    identities: ("issuer", "subject", "linked_at"),
    sessions: ("created_at", "expires_at", "ended_at", "last_used_at"),
    second_factors: ("created_at", "confirmed_at"),
    credential_resets: ("credential", "reset_at"),
    sign_in_addresses: ("used_at",),
    api_keys: ("prefix", "created_at", "expires_at", "revoked_at", "last_used_at"),
    calendar_feeds: ("created_at",),
    notification_settings: ("timezone", "quiet_from", "quiet_until"),
    notification_channels: ("channel", "address", "kinds", "confirmed_at"),
    notifications: ("channel", "rollout", "kind", "about", "state", "queued_at", "sent_at"),
}


class UserData:
    """What is stored about one name."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    def iterate_account(self) -> Iterator[DataRow]:
        """Yield the account, its roles, identities, sessions and keys, without secrets."""
        users = Users(self._transaction)
        user = users.find(self._name)
        if user is None:
            return
        account = {"name": user.name, "email": user.email, "has_password": user.has_password}
        times = {"created_at": user.added_at, "disabled_at": user.disabled_at}
        yield {"table": "users", **account, **times}
        for assignment in users.list_role_assignments(user):
            yield {"table": "role_assignments", "role": str(assignment)}
        for table, names in ACCOUNT_COLUMNS.items():
            query = select(*(table.c[name] for name in names)).where(table.c.user_id == user.number)
            for row in self._transaction.execute(query).mappings():
                yield {"table": table.name, **row}

    def iterate_rollout(self, rollout: Rollout) -> Iterator[DataRow]:
        """Yield the rows of one rollout, in parts, with the keys of their cases."""
        for table, (name_column, names) in NAMED_COLUMNS.items():
            columns = [table.c[name] for name in names]
            has_case = "case_id" in table.c
            query = select(*columns, *([table.c.case_id] if has_case else [])).where(
                table.c.rollout == rollout.number, table.c[name_column] == self._name
            )
            for row in self._read_with_keys(rollout, query):
                yield {"table": table.name, "rollout": rollout.name, **row}
        yield from self._iterate_gold_decisions(rollout)
        yield from self.iterate_ledger(rollout.number, rollout.name)

    def iterate_ledger(self, number: int = ACCESS_LEDGER, rollout: str = "") -> Iterator[DataRow]:
        """Yield the ledger's entries of which the name is the actor, with their texts."""
        account = Accounts(self._transaction).find_ids([self._name]).get(self._name)
        same_entry = (ledger_texts.c.rollout == ledger.c.rollout) & (
            ledger_texts.c.revision == ledger.c.revision
        )
        query = (
            select(ledger.c.revision, ledger.c.at, ledger.c.kind, ledger_texts.c.text)
            .select_from(ledger.join(ledger_texts, same_entry, isouter=True))
            .where(ledger.c.rollout == number, ledger.c.actor.in_({self._name, account or ""}))
            .order_by(ledger.c.revision)
        )
        for row in self._read(query):
            yield {"table": "ledger", "rollout": rollout, **row}

    def _iterate_gold_decisions(self, rollout: Rollout) -> Iterator[DataRow]:
        """Yield decisions on gold cases, which look like those on others."""
        query = select(reviews.c.case_id, reviews.c.gold_decision).where(
            reviews.c.rollout == rollout.number,
            reviews.c.reviewer == self._name,
            reviews.c.gold_decision.is_not(None),
        )
        for row in self._read_with_keys(rollout, query):
            answer = {name: row["gold_decision"].get(name) for name in GOLD_FIELDS}
            yield {"table": "decisions", "rollout": rollout.name, "case": row["case"], **answer}

    def _read_with_keys(self, rollout: Rollout, query: Any) -> Iterator[DataRow]:
        keys = ExternalKeys(self._transaction, rollout)
        rows = self._transaction.execute(query.execution_options(yield_per=ROWS_PER_READ))
        for part in rows.mappings().partitions():
            found_keys = keys.find_keys([row["case_id"] for row in part if "case_id" in row])
            for row in part:
                values = dict(row)
                case_id = values.pop("case_id", None)
                yield {**values, **({} if case_id is None else {"case": found_keys.get(case_id)})}

    def _read(self, query: Any) -> Iterator[DataRow]:
        rows = self._transaction.execute(query.execution_options(yield_per=ROWS_PER_READ))
        yield from map(dict, rows.mappings())

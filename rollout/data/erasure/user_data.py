"""All rows that name one user or reviewer, as plain values."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Table, or_, select
from sqlalchemy.engine import RowMapping

from rollout.data.access.users import StoredUser, Users
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_rows import RECORD_SCHEMAS, TABLES, RecordSchema
from rollout.data.tables.tables import (
    ACCESS_LEDGER,
    account_names,
    api_keys,
    baselines,
    cleanings,
    credential_resets,
    decisions,
    exposures,
    idempotency_keys,
    identities,
    incidents,
    ledger,
    ledger_texts,
    notification_channels,
    notification_settings,
    notifications,
    one_time_links,
    pending_stops,
    policies,
    proposals,
    recovery_codes,
    report_requests,
    reviews,
    second_factors,
    sessions,
    sign_in_addresses,
    users,
)
from rollout.engine.ledger.access_events import is_account_id
from rollout.engine.ledger.ledger import TEXT_FIELDS, read_body
from rollout.engine.records.records import Decision, Personal, RecordField

ROWS_PER_READ: Final = 500


def _read_fields(row: RowMapping) -> Mapping[str, Any]:
    """Return an entry's fields, without the texts beside it."""
    fields = read_body(row["kind"], json.loads(row["body"]))
    texts = TEXT_FIELDS[row["kind"]]
    return {key: value for key, value in fields.items() if value or key not in texts}


def _has_text(value: Any, text: str) -> bool:
    """Return whether a text is a value somewhere inside."""
    if isinstance(value, dict):
        return any(_has_text(item, text) for item in value.values())
    if isinstance(value, list):
        return any(_has_text(item, text) for item in value)
    return isinstance(value, str) and value == text


DataRow = Mapping[str, Any]


def _list_exported(schema: RecordSchema) -> list[RecordField]:
    """Return the fields that who is named by a record gets: no names, which may be of others."""
    return [
        field
        for field in schema.fields
        if field.rule.is_exported and field.rule.personal is not Personal.NAME
    ]


NAMED_COLUMNS: Final[Sequence[tuple[Column[Any], tuple[str, ...]]]] = (
    *(
        (schema.table.c[name], tuple(field.column for field in _list_exported(schema)))
        for schema in RECORD_SCHEMAS.values()
        for name in schema.list_personal(Personal.NAME)
    ),
    (exposures.c.reviewer, ("at", "content", "page")),
    (reviews.c.reviewer, ("site", "opened_at", "state", "closed_at")),
    (cleanings.c.by, ("lever", "choice", "label", "reason", "at")),
    (baselines.c.imported_by, ("site", "window", "lever", "action", "n", "since", "until")),
    (policies.c.received_by, ("hash", "received_at")),
    (proposals.c.raised_by, ("proposal", "kind", "state", "raised_at", "site", "window")),
    (incidents.c.acknowledged_by, ("incident", "kind", "acknowledged_at", "site", "window")),
)
"""Each column with a name, and the columns to return of its rows.

What would reveal a gold case is left out: the kind of a review task and its known answers, and
which decisions were counted.
"""
GOLD_FIELDS: Final = tuple(
    field.name for field in _list_exported(RECORD_SCHEMAS[Decision]) if field.rule.is_sent
)
ACCOUNT_COLUMNS: Final[Mapping[Table, tuple[str, ...]]] = {
    identities: ("issuer", "subject", "linked_at"),
    sessions: ("created_at", "expires_at", "ended_at", "last_used_at"),
    second_factors: ("created_at", "confirmed_at"),
    recovery_codes: ("used_at",),
    sign_in_addresses: ("used_at",),
    api_keys: ("prefix", "created_at", "expires_at", "revoked_at", "last_used_at"),
    notification_settings: ("timezone", "quiet_from", "quiet_until"),
    notification_channels: ("channel", "address", "kinds", "confirmed_at"),
    notifications: ("channel", "rollout", "kind", "about", "state", "queued_at", "sent_at"),
}

MADE_BY_COLUMNS: Final[Mapping[Table, tuple[str, tuple[str, ...]]]] = {
    credential_resets: ("reset_by", ("credential", "reset_at")),
    one_time_links: ("created_by", ("created_at", "expires_at", "used_at")),
}
"""By table of what one user makes for another, the column of who made it and those to return."""
PRINCIPAL_COLUMNS: Final[Mapping[Table, tuple[str, ...]]] = {
    idempotency_keys: ("key", "response_status", "expires_at"),
    report_requests: ("started_at",),
}


class UserData:
    """What is stored about one name; a reviewer's records have it in any of some spellings."""

    def __init__(self, transaction: Transaction, name: str, spellings: Collection[str]) -> None:
        self._transaction = transaction
        self._name = name
        self._spellings = spellings
        self._account = Accounts(transaction).find_ids([name]).get(name, "")

    def iterate_account(self) -> Iterator[DataRow]:
        """Yield the account, its roles, identities, sessions and keys, without secrets."""
        if self._account:
            yield {"table": "account_names", "account": self._account}
        yield from self._iterate_pending_stops()
        stored_users = Users(self._transaction)
        user = stored_users.find(self._name)
        if user is None:
            return
        yield {
            "table": "users",
            "name": user.name,
            "email": user.email,
            "has_password": user.has_password,
            "created_at": user.added_at,
            "disabled_at": user.disabled_at,
        }
        for assignment in stored_users.list_role_assignments(user):
            yield {"table": "role_assignments", "role": str(assignment)}
        for table, names in ACCOUNT_COLUMNS.items():
            for row in self._read(
                select(*(table.c[name] for name in names)).where(table.c.user_id == user.number)
            ):
                yield {"table": table.name, **row}
        yield from self._iterate_access_rows(user)
        for table, names in PRINCIPAL_COLUMNS.items():
            columns = [table.c[name] for name in names]
            for row in self._read(select(*columns).where(table.c.principal == self._name)):
                yield {"table": table.name, **row}

    def iterate_rollout(self, rollout: Rollout) -> Iterator[DataRow]:
        """Yield the rows of one rollout, in parts, with the keys of their cases."""
        for name_column, names in NAMED_COLUMNS:
            table = name_column.table
            numbers = (column for column in table.c if column.name == "case_id")
            query = select(*(table.c[name] for name in names), *numbers).where(
                table.c.rollout == rollout.number, name_column.in_(self._spellings)
            )
            for row in self._read_with_keys(rollout, query):
                yield {"table": table.name, "rollout": rollout.name, **row}
        yield from self._iterate_gold_decisions(rollout)
        yield from self._iterate_sent_records(rollout)
        yield from self.iterate_ledger(rollout.number, rollout.name)

    def iterate_ledger(self, number: int = ACCESS_LEDGER, rollout: str = "") -> Iterator[DataRow]:
        """Yield the ledger's entries by or about the user, one for each of their texts.

        Others stand as ids. What another user typed is left out: it may name others.
        """
        same_entry = (ledger_texts.c.rollout == ledger.c.rollout) & (
            ledger_texts.c.revision == ledger.c.revision
        )
        if not self._account:
            return
        is_mentioned = ledger.c.body.contains(json.dumps(self._account), autoescape=True)
        query = (
            select(ledger, ledger_texts.c.text)
            .select_from(ledger.join(ledger_texts, same_entry, isouter=True))
            .where(
                ledger.c.rollout == number,
                or_(ledger.c.actor == self._account, is_mentioned),
            )
            .order_by(ledger.c.revision)
            .execution_options(yield_per=ROWS_PER_READ)
        )
        for row in self._transaction.execute(query).mappings():
            fields = _read_fields(row)
            is_own = row["actor"] == self._account
            if is_own or _has_text(fields, self._account):
                yield {
                    "table": "ledger",
                    "rollout": rollout,
                    "revision": row["revision"],
                    "at": row["at"],
                    "kind": row["kind"],
                    "by": row["actor"],
                    "fields": fields,
                    "text": row["text"] if is_own or not is_account_id(row["actor"]) else None,
                }

    def _iterate_access_rows(self, user: StoredUser) -> Iterator[DataRow]:
        """Yield links and resets of or by the user; others stand as ids."""
        for table, (by_column, names) in MADE_BY_COLUMNS.items():
            columns = [table.c[name] for name in ("user_id", by_column, *names)]
            is_named = or_(table.c.user_id == user.number, table.c[by_column] == user.number)
            for row in self._read(select(*columns).where(is_named)):
                numbers = {"user": row.pop("user_id"), "by": row.pop(by_column)}
                accounts = {key: self._find_account(each) for key, each in numbers.items()}
                yield {"table": table.name, **accounts, **row}

    def _find_account(self, number: int | None) -> str:
        """Return the id of the user with a number; "" if unknown."""
        query = (
            select(account_names.c.account)
            .join(users, users.c.name == account_names.c.name)
            .where(users.c.id == number)
        )
        return self._transaction.execute(query).scalar() or ""

    def _iterate_sent_records(self, rollout: Rollout) -> Iterator[DataRow]:
        """Yield the records that the user sent, without those of their own decisions."""
        if not self._account:
            return
        for table in TABLES.values():
            query = select(table.c.case_id, table.c.revision, table.c.received_at).where(
                table.c.rollout == rollout.number, table.c.sender == self._account
            )
            if table is decisions:
                query = query.where(decisions.c.reviewer.not_in(self._spellings))
            for row in self._read_with_keys(rollout, query):
                yield {"table": table.name, "rollout": rollout.name, "sent": True, **row}

    def _iterate_pending_stops(self) -> Iterator[DataRow]:
        for row in self._read(select(pending_stops)):
            if row["actor"]["name"] == self._name:
                yield {"table": "pending_stops", **row}

    def _iterate_gold_decisions(self, rollout: Rollout) -> Iterator[DataRow]:
        """Yield decisions on gold cases, which look like those on others."""
        query = select(reviews.c.case_id, reviews.c.gold_decision).where(
            reviews.c.rollout == rollout.number,
            reviews.c.reviewer.in_(self._spellings),
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

    def _read(self, query: Any) -> Iterator[dict[str, Any]]:
        rows = self._transaction.execute(query.execution_options(yield_per=ROWS_PER_READ))
        yield from map(dict, rows.mappings())

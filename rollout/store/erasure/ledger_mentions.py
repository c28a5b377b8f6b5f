"""The ledger entries that name a user: as their actor, or as the user they are about."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.engine import RowMapping

from rollout.core.access.accounts import is_account_id, is_account_name
from rollout.core.ledger.form1 import KINDS_OF_FORM_1
from rollout.core.ledger.ledger import ACCOUNT_FIELDS, TEXT_FIELDS, read_body
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.tables.tables import ledger, ledger_texts

ROWS_PER_READ: Final = 500


class LedgerMentions:
    """The entries that name one user, with ids in the place of all names."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._accounts = Accounts(transaction)
        self.account = self._accounts.find_ids([name]).get(name, "")
        self._own_names = frozenset({name, self.account} - {""})

    def iterate_entries(self, number: int) -> Iterator[Mapping[str, Any]]:
        """Yield the entries of the ledger with this number, one for each of their texts.

        What another user typed is left out: it may name others.
        """
        same_entry = (ledger_texts.c.rollout == ledger.c.rollout) & (
            ledger_texts.c.revision == ledger.c.revision
        )
        mentions = (  # an id in form 2, a name in form 1
            ledger.c.body.contains(json.dumps(name, ensure_ascii=False), autoescape=True)
            for name in sorted(self._own_names)
        )
        query = (
            select(ledger, ledger_texts.c.text)
            .select_from(ledger.join(ledger_texts, same_entry, isouter=True))
            .where(
                ledger.c.rollout == number,
                or_(ledger.c.actor.in_(self._own_names), *mentions),
            )
            .order_by(ledger.c.revision)
            .execution_options(yield_per=ROWS_PER_READ)
        )
        for row in self._transaction.execute(query).mappings():
            fields = self._read_fields(row)
            is_own = row["actor"] in self._own_names
            if is_own or _has_text(fields, self._own_names):
                yield {
                    "revision": row["revision"],
                    "at": row["at"],
                    "kind": KINDS_OF_FORM_1[row["kind"]] if row["form"] == 1 else row["kind"],
                    "by": self._find_id(row["actor"]),
                    "fields": fields,
                    "text": row["text"] if is_own or not _is_account(row["actor"]) else None,
                }

    def _read_fields(self, row: RowMapping) -> Mapping[str, Any]:
        """Return the entry's fields in today's keys, without the texts beside it."""
        body = json.loads(row["body"])
        fields = read_body(row["kind"], row["form"], body)
        if row["form"] != 1:
            texts = TEXT_FIELDS[row["kind"]]
            return {key: value for key, value in fields.items() if value or key not in texts}
        for name in ACCOUNT_FIELDS[KINDS_OF_FORM_1[row["kind"]]]:
            if fields.get(name):
                fields[name] = self._find_id(fields[name])
        return fields

    def _find_id(self, name: str) -> str:
        """Return the id of an actor; "" for another user's name that has none."""
        if is_account_id(name) or not _is_account(name):
            return name
        account = self._accounts.find_ids([name]).get(name, "")
        return account or (name if name in self._own_names else "")


def _is_account(actor: str) -> bool:
    """Return whether an actor, by id or name, is an account."""
    return is_account_id(actor) or is_account_name(actor)


def _has_text(value: Any, texts: frozenset[str]) -> bool:
    """Return whether one of the texts is a value somewhere inside."""
    if isinstance(value, dict):
        return any(_has_text(item, texts) for item in value.values())
    if isinstance(value, list):
        return any(_has_text(item, texts) for item in value)
    return value in texts if isinstance(value, str) else False

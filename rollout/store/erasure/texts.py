"""Free text that names a case or a reviewer: found by word, deleted or replaced."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Final

from sqlalchemy import Column, Table, delete, or_, select, tuple_, update
from sqlalchemy.engine import RowMapping

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.scopes import StoredScopes
from rollout.store.tables.tables import (
    decisions,
    deliveries,
    idempotency_keys,
    ledger,
    ledger_texts,
    rejected_records,
)

ERASED_INTRO: Final = "(erased)"


def contains_word(text: str, word: str) -> bool:
    """Return whether a text has a word that no letter, digit, _ or - continues.

    >>> contains_word("v1 acted on ramp-7: late", "ramp-7"), contains_word("ramp-71", "ramp-7")
    (True, False)
    """
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def list_spellings(word: str) -> tuple[str, ...]:
    r"""Return a word as it stands in plain text, in JSON and in JSON of ASCII only.

    >>> list_spellings("bär")
    ('bär', 'b\\u00e4r')
    """
    encoded = (json.dumps(word, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True))
    return tuple(dict.fromkeys((word, *encoded)))


def delete_ledger_texts(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Delete the ledger's free texts that have one of the words; their hashes stay."""
    count = 0
    for word in words:
        keys = [
            (row["revision"], row["field"])
            for row in _find_rows(transaction, rollout, ledger_texts, ledger_texts.c.text, word)
        ]
        key_columns = tuple_(ledger_texts.c.revision, ledger_texts.c.field)
        for key in keys:
            count += transaction.execute(
                delete(ledger_texts).where(
                    ledger_texts.c.rollout == rollout.number, key_columns == key
                )
            ).rowcount
    if count:
        StoredScopes(transaction, rollout).delete_all()  # they quote texts; they are made again
    return count


def delete_texts_by(transaction: Transaction, rollout: Rollout, account: str) -> int:
    """Delete the free texts that an account typed into a ledger."""
    own_revisions = select(ledger.c.revision).where(
        ledger.c.rollout == rollout.number, ledger.c.actor == account
    )
    count = transaction.execute(
        delete(ledger_texts).where(
            ledger_texts.c.rollout == rollout.number, ledger_texts.c.revision.in_(own_revisions)
        )
    ).rowcount
    StoredScopes(transaction, rollout).delete_all()  # they hold names and texts
    return count


def delete_rejected(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Delete the rejected records that have one of the words."""
    count = 0
    for word in words:
        rows = _find_rows(transaction, rollout, rejected_records, rejected_records.c.body, word)
        ids = {row["id"] for row in rows}
        ids |= set(
            transaction.execute(
                select(rejected_records.c.id).where(
                    rejected_records.c.rollout == rollout.number,
                    rejected_records.c.key.in_(list_spellings(word)),
                )
            ).scalars()
        )
        count += len(ids)
        for number in ids:
            transaction.execute(delete(rejected_records).where(rejected_records.c.id == number))
    return count


def find_notes(
    transaction: Transaction, rollout: Rollout, words: Collection[str]
) -> list[RowMapping]:
    """Return the decisions whose note has one of the words."""
    return [
        row
        for word in words
        for row in _find_rows(transaction, rollout, decisions, decisions.c.note, word)
    ]


def clear_deliveries(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Replace the introductions of deliveries that have one of the words."""
    ids = {
        row["id"]
        for word in words
        for column in (deliveries.c.intro, deliveries.c.subject)
        for row in _find_rows(transaction, rollout, deliveries, column, word)
    }
    for number in ids:
        statement = update(deliveries).where(deliveries.c.id == number)
        transaction.execute(statement.values(intro=ERASED_INTRO, subject=ERASED_INTRO))
    return len(ids)


def delete_responses(transaction: Transaction, words: Collection[str]) -> None:
    """Delete stored responses that have one of the words; a retry is executed again."""
    body = idempotency_keys.c.response_body
    for word in words:
        conditions = (body.contains(text, autoescape=True) for text in list_spellings(word))
        query = select(idempotency_keys).where(or_(*conditions))
        for row in transaction.execute(query).mappings().all():
            same_row = (column == row[column.name] for column in idempotency_keys.primary_key)
            transaction.execute(delete(idempotency_keys).where(*same_row))


def _find_rows(
    transaction: Transaction, rollout: Rollout, table: Table, column: Column[str], word: str
) -> Iterator[RowMapping]:
    spellings = list_spellings(word)
    conditions = (column.contains(spelling, autoescape=True) for spelling in spellings)
    query = select(table).where(table.c.rollout == rollout.number, or_(*conditions))
    for row in transaction.execute(query).mappings().all():
        if any(contains_word(row[column.name], spelling) for spelling in spellings):
            yield row

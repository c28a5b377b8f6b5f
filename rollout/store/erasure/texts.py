"""Free text that names a case or a reviewer: found by word, deleted or replaced."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Column, ColumnElement, Table, delete, false, or_, select, tuple_, update
from sqlalchemy.engine import RowMapping

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.scopes import StoredScopes
from rollout.store.tables.tables import (
    deliveries,
    idempotency_keys,
    ledger,
    ledger_texts,
    rejected_records,
)

ERASED_INTRO: Final = "(erased)"
UNSPACED: Final = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
    r"\U00020000-\U0003ffff"
)
"""Letters that begin and end no word: Thai to Khmer, Japanese, Chinese; Korean has endings."""
CONTINUES: Final = rf"[^\W{UNSPACED}]|-"


def contains_word(text: str, word: str) -> bool:
    """Return whether a text has a word that no letter, digit, _ or - continues.

    >>> contains_word("v1 acted on ramp-7: late", "ramp-7"), contains_word("ramp-71", "ramp-7")
    (True, False)
    """
    pattern = rf"(?<!{CONTINUES}){re.escape(word)}(?!{CONTINUES})"
    return re.search(pattern, text) is not None


def list_name_spellings(name: str) -> tuple[str, ...]:
    """Return a name as it stands, and as prose and headings write it.

    >>> list_name_spellings("ana.roe")
    ('ana.roe', 'Ana.Roe', 'Ana.roe', 'ANA.ROE')
    """
    spellings = (name, name.lower(), name.title(), name.capitalize(), name.upper())
    return tuple(dict.fromkeys(spellings))


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
    rows = find_rows(transaction, rollout, ledger_texts, [ledger_texts.c.text], words)
    key_columns = tuple_(ledger_texts.c.revision, ledger_texts.c.field)
    for row in rows:
        key = (row["revision"], row["field"])
        count += transaction.execute(
            delete(ledger_texts).where(ledger_texts.c.rollout == rollout.number, key_columns == key)
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
    rows = find_rows(transaction, rollout, rejected_records, [rejected_records.c.body], words)
    ids = {row["id"] for row in rows}
    spellings = [spelling for word in words for spelling in list_spellings(word)]
    query = select(rejected_records.c.id).where(
        rejected_records.c.rollout == rollout.number, rejected_records.c.key.in_(spellings)
    )
    ids |= set(transaction.execute(query).scalars())
    for number in ids:
        transaction.execute(delete(rejected_records).where(rejected_records.c.id == number))
    return len(ids)


def clear_deliveries(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Replace the introductions of deliveries that have one of the words."""
    columns = (deliveries.c.intro, deliveries.c.subject)
    ids = {row["id"] for row in find_rows(transaction, rollout, deliveries, columns, words)}
    for number in ids:
        statement = update(deliveries).where(deliveries.c.id == number)
        transaction.execute(statement.values(intro=ERASED_INTRO, subject=ERASED_INTRO))
    return len(ids)


def delete_responses(transaction: Transaction, words: Collection[str]) -> None:
    """Delete stored responses that have one of the words; a retry is executed again."""
    body = idempotency_keys.c.response_body
    query = select(idempotency_keys).where(_match_any(body, words))
    for row in transaction.execute(query).mappings().all():
        same_row = (column == row[column.name] for column in idempotency_keys.primary_key)
        transaction.execute(delete(idempotency_keys).where(*same_row))


def find_rows(
    transaction: Transaction,
    rollout: Rollout,
    table: Table,
    columns: Sequence[Column[str]],
    words: Collection[str],
) -> list[RowMapping]:
    """Return the rows that have one of the words, each once; the table is read once."""
    if not columns:
        return []
    spellings = [spelling for word in words for spelling in list_spellings(word)]
    is_near = or_(*(_match_any(column, words) for column in columns))
    query = select(table).where(table.c.rollout == rollout.number, is_near)
    return [
        row
        for row in transaction.execute(query).mappings().all()
        if any(
            contains_word(row[column.name] or "", spelling)
            for column in columns
            for spelling in spellings
        )
    ]


def _match_any(column: Column[str], words: Collection[str]) -> ColumnElement[bool]:
    spellings = (spelling for word in words for spelling in list_spellings(word))
    return or_(false(), *(column.contains(spelling, autoescape=True) for spelling in spellings))

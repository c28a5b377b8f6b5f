"""Stored rows of a ledger, joined with their texts and account names."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from rollout.core.access.accounts import AccountNames
from rollout.core.calendar.instants import to_micros
from rollout.core.ledger.ledger import (
    NO_TEXTS,
    TEXT_FIELDS,
    CanonicalRow,
    accounts_in,
    texts_of,
    to_canonical_json,
)
from rollout.core.ledger.ledger_texts import LedgerText
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.tables.tables import ledger_texts

Texts = Mapping[int, Mapping[str, LedgerText]]


def read_rows(
    transaction: Transaction, rollout: Rollout, stored_rows: Sequence[Row[Any]]
) -> Iterator[CanonicalRow]:
    """Yield canonical rows; `stored_rows` has the table's columns and `micros`."""
    texts = _read_texts(transaction, rollout, stored_rows)
    bodies = [json.loads(row.body) for row in stored_rows]
    names = _read_names(transaction, stored_rows, bodies)
    for row, body in zip(stored_rows, bodies, strict=True):
        yield CanonicalRow(
            rollout=rollout.name,
            revision=row.revision,
            at=row.micros,
            kind=row.kind,
            actor=row.actor,
            body=body,
            access_head=row.access_head,
            previous=row.previous,
            slot=None if row.slot is None else to_micros(row.slot),
            form=row.form,
            texts=texts.get(row.revision, NO_TEXTS),
            names=names,
        )


def read_lines(
    transaction: Transaction, rollout: Rollout, stored_rows: Sequence[Row[Any]]
) -> Iterator[str]:
    """Yield rows as lines, with body and hash as stored for verification."""
    texts = _read_texts(transaction, rollout, stored_rows)
    for row in stored_rows:
        yield _format_line(rollout.name, row, texts.get(row.revision, NO_TEXTS))


def list_stored_actors(transaction: Transaction, name: str) -> frozenset[str]:
    """Return an actor's stored forms: name (form 1) and id (form 2)."""
    return frozenset({name, *Accounts(transaction).find_ids([name]).values()})


def load_actor_names(transaction: Transaction, stored_actors: Iterable[str]) -> list[str]:
    """Return the names of actors stored as name (form 1) or id (form 2), sorted."""
    actors = set(stored_actors)
    names = Accounts(transaction).find_names(actors)
    return sorted({names.find_name(actor) for actor in actors})


def _read_texts(
    transaction: Transaction, rollout: Rollout, stored_rows: Sequence[Row[Any]]
) -> Texts:
    texts: dict[int, dict[str, LedgerText]] = defaultdict(dict)
    revisions = [row.revision for row in stored_rows if row.form != 1 and TEXT_FIELDS.get(row.kind)]
    if not revisions:
        return texts
    query = select(ledger_texts).where(
        ledger_texts.c.rollout == rollout.number,
        ledger_texts.c.revision.between(min(revisions), max(revisions)),
    )
    for row in transaction.execute(query):
        texts[row.revision][row.field] = LedgerText(row.salt, row.text)
    return texts


def _read_names(
    transaction: Transaction, stored_rows: Sequence[Row[Any]], bodies: Sequence[dict[str, Any]]
) -> AccountNames:
    accounts = {row.actor for row in stored_rows}
    for row, body in zip(stored_rows, bodies, strict=True):
        accounts.update(accounts_in(row.kind, row.form, body))
    return Accounts(transaction).find_names(accounts)


def _format_line(rollout: str, row: Row[Any], texts: Mapping[str, LedgerText]) -> str:
    leading_fields: dict[str, Any] = {"actor": row.actor, "at": row.micros}
    trailing_fields: dict[str, Any] = {
        "hash": row.hash,
        "kind": row.kind,
        "previous": row.previous,
        "revision": row.revision,
        "rollout": rollout,
    }
    if row.form == 1:
        trailing_fields["house"] = row.access_head
    else:
        leading_fields["access_head"] = row.access_head
        trailing_fields |= {
            "slot": None if row.slot is None else to_micros(row.slot),
            **texts_of(texts),
        }
    head, tail = to_canonical_json(leading_fields), to_canonical_json(trailing_fields)
    return f'{head[:-1]},"body":{row.body},{tail[1:]}'

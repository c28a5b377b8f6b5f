"""Stored rows of a ledger, with the texts and account names that stand beside them."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row as Found
from sqlalchemy import select

from rollout.core.accounts import AccountNames
from rollout.core.ledger import (
    NO_TEXTS,
    TEXT_FIELDS,
    Row,
    accounts_in,
    canonical,
    micros,
    texts_of,
)
from rollout.core.ledger_texts import LedgerText
from rollout.store.accounts import Accounts
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import ledger_texts

Texts = Mapping[int, Mapping[str, LedgerText]]


def read_rows(
    transaction: Transaction, rollout: Rollout, found: Sequence[Found[Any]]
) -> Iterator[Row]:
    """Yield rows as they were written; `found` has the table's columns and `micros`."""
    texts = _read_texts(transaction, rollout, found)
    bodies = [json.loads(row.body) for row in found]
    names = _read_names(transaction, found, bodies)
    for row, body in zip(found, bodies, strict=True):
        yield Row(
            rollout=rollout.name,
            revision=row.revision,
            at=row.micros,
            kind=row.kind,
            actor=row.actor,
            body=body,
            access_head=row.access_head,
            previous=row.previous,
            slot=None if row.slot is None else micros(row.slot),
            form=row.form,
            texts=texts.get(row.revision, NO_TEXTS),
            names=names,
        )


def read_lines(
    transaction: Transaction, rollout: Rollout, found: Sequence[Found[Any]]
) -> Iterator[str]:
    """Yield rows as lines with body and hash as stored, so that these are what is verified."""
    texts = _read_texts(transaction, rollout, found)
    for row in found:
        yield _line(rollout.name, row, texts.get(row.revision, NO_TEXTS))


def stored_actors(transaction: Transaction, name: str) -> frozenset[str]:
    """Return what stands in rows for an actor: the name in form 1, its id in form 2."""
    return frozenset({name, *Accounts(transaction).find_ids([name]).values()})


def _read_texts(transaction: Transaction, rollout: Rollout, found: Sequence[Found[Any]]) -> Texts:
    texts: dict[int, dict[str, LedgerText]] = defaultdict(dict)
    written = [row.revision for row in found if row.form != 1 and TEXT_FIELDS.get(row.kind)]
    if not written:
        return texts
    query = select(ledger_texts).where(
        ledger_texts.c.rollout == rollout.number,
        ledger_texts.c.revision.between(min(written), max(written)),
    )
    for row in transaction.execute(query):
        texts[row.revision][row.field] = LedgerText(row.salt, row.text)
    return texts


def _read_names(
    transaction: Transaction, found: Sequence[Found[Any]], bodies: Sequence[dict[str, Any]]
) -> AccountNames:
    accounts = {row.actor for row in found}
    for row, body in zip(found, bodies, strict=True):
        accounts.update(accounts_in(row.kind, row.form, body))
    return Accounts(transaction).find_names(accounts)


def _line(rollout: str, row: Found[Any], texts: Mapping[str, LedgerText]) -> str:
    first: dict[str, Any] = {"actor": row.actor, "at": row.micros}
    rest: dict[str, Any] = {
        "hash": row.hash,
        "kind": row.kind,
        "previous": row.previous,
        "revision": row.revision,
        "rollout": rollout,
    }
    if row.form == 1:
        rest["house"] = row.access_head
    else:
        first["access_head"] = row.access_head
        rest |= {"slot": None if row.slot is None else micros(row.slot), **texts_of(texts)}
    return f'{canonical(first)[:-1]},"body":{row.body},{canonical(rest)[1:]}'

"""The names in rows: once written they stand for ever, so a change of one is seen here."""

from dataclasses import fields

from rollout.engine.events import ACCOUNT, FREE_TEXT, OMITTED_WHEN_EMPTY
from rollout.engine.ledger.ledger import ALL_EVENT_TYPES, COLUMNS, DOMAIN, ROW_FIELDS


def _keys(kind):
    """Yield the keys of a kind's body, as they are hashed."""
    for field in fields(kind):
        if field.name in ROW_FIELDS:
            continue
        names = ("site", "window") if field.name == "cell" else (field.name,)
        for name in names:
            hashed = f"{name}_hash" if FREE_TEXT in field.metadata else name
            marks = [
                mark for mark in (OMITTED_WHEN_EMPTY, FREE_TEXT, ACCOUNT) if mark in field.metadata
            ]
            yield " ".join([hashed, *(f"({mark})" for mark in marks)])


def test_the_kinds_and_keys_of_rows(snapshot):
    assert {name: sorted(_keys(kind)) for name, kind in sorted(ALL_EVENT_TYPES.items())} == snapshot


def test_the_columns_and_the_domain_of_rows(snapshot):
    assert snapshot == (DOMAIN, COLUMNS)

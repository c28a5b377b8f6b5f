"""The names of form 2: once written they stand for ever, so a change of one is seen here."""

from dataclasses import fields

from rollout.core.events import ACCOUNT, CAME_LATER, FREE_TEXT
from rollout.core.ledger import ALL_KINDS, COLUMNS, DOMAINS, FORM, OF_EVENT


def _keys(kind):
    """Yield the keys of a kind's body, as they are hashed."""
    for field in fields(kind):
        if field.name in OF_EVENT:
            continue
        names = ("site", "window") if field.name == "cell" else (field.name,)
        for name in names:
            hashed = f"{name}_hash" if FREE_TEXT in field.metadata else name
            marks = [mark for mark in (CAME_LATER, FREE_TEXT, ACCOUNT) if mark in field.metadata]
            yield " ".join([hashed, *(f"({mark})" for mark in marks)])


def test_the_kinds_and_keys_of_rows(snapshot):
    assert {name: sorted(_keys(kind)) for name, kind in sorted(ALL_KINDS.items())} == snapshot


def test_the_columns_and_domains_of_rows(snapshot):
    assert FORM == 2
    assert {form: (DOMAINS[form], COLUMNS[form]) for form in DOMAINS} == snapshot

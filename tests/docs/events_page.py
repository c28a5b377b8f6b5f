"""The page of the ledger's event kinds, from the classes of the events."""

import inspect
from dataclasses import fields

from rollout.core.access.access_events import ACCESS_KINDS
from rollout.core.scope.events import ADDED_LATER, EVENT_TYPES, FREE_TEXT, LedgerEvent

HEAD = """\
# Ledger events

Generated from the classes of the events. [Ledger format](ledger.md) explains the keys around them.
`kind` names the event, `body` has the fields below. Instants are microseconds since 1970, UTC.
`reason_hash` and `note_hash` are salted hashes of text that a user typed. Fields in parentheses are
left out while they are empty.
"""
COMMON = frozenset(field.name for field in fields(LedgerEvent))


def write_events():
    lines = [HEAD]
    for title, kinds in (("A rollout's ledger", EVENT_TYPES), ("The access ledger", ACCESS_KINDS)):
        lines += [f"## {title}\n", "| kind | meaning | fields of `body` |", "|---|---|---|"]
        lines += [_write_row(name, kind) for name, kind in kinds.items()]
        lines += [""]
    return "\n".join(lines)


def _write_row(name, kind):
    text = (inspect.getdoc(kind) or "").partition("Attributes:")[0]
    text = " ".join(text.split())
    names = [name for field in fields(kind) for name in _name_fields(field)]
    return f"| `{name}` | {text} | {', '.join(names) or '–'} |"


def _name_fields(field):
    """Return the keys of a field in the body; none for what the entry itself holds."""
    if field.name in COMMON:
        return []
    if field.name == "cell":
        return ["`site`", "`window`"]
    name = f"`{field.name}_hash`" if FREE_TEXT in field.metadata else f"`{field.name}`"
    return [f"({name})" if ADDED_LATER in field.metadata else name]

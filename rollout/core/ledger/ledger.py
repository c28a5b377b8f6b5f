"""The ledger's form: each event in one canonical form, each row hashed with the row before it.

Canonical form is RFC 8785 by restriction: text, booleans, null, lists, objects with ASCII keys
and whole numbers below 2**53. There are no floats; times are microseconds since 1970, UTC.
A ledger shows edits, deletions and swaps. By itself it can't show that its end was cut off or
that every hash was made anew: compare its head with one kept elsewhere.

Rows are written in form 2. Rows of form 1 keep their form, hash and names for ever and are read
in today's names (`rollout.core.ledger.form1`). A ledger that began in form 1 goes on in form 2
after one `FormChanged`. Account names and free text stand beside the hashed row, not in it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from hashlib import sha256
from sys import intern
from types import MappingProxyType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from rollout.core.access.access_events import ACCESS_KINDS
from rollout.core.access.accounts import NO_NAMES, AccountNames
from rollout.core.calendar.instants import EPOCH, MICROSECOND, micros
from rollout.core.calendar.sites import Cell
from rollout.core.ledger.form1 import KINDS_OF_FORM_1, STORED_KINDS, translate_body
from rollout.core.ledger.ledger_texts import LedgerText, Salts
from rollout.core.scope.events import ACCOUNT, CAME_LATER, FREE_TEXT, KINDS, Event, FormChanged

FORM: Final = 2
"""The form in which rows are written."""
DOMAINS: Final = MappingProxyType({1: b"rollout-ledger-1\n", 2: b"rollout-ledger-2\n"})
MOST = 2**53
ALL_KINDS = KINDS | ACCESS_KINDS  # a rollout's ledger and the access ledger have one form
HINTS = {name: get_type_hints(kind) for name, kind in ALL_KINDS.items()}  # slow to ask for
COLUMNS: Final = MappingProxyType(
    {
        1: ("rollout", "revision", "at", "kind", "actor", "body", "house", "previous"),
        2: (
            "rollout",
            "revision",
            "at",
            "slot",
            "kind",
            "actor",
            "body",
            "access_head",
            "previous",
        ),
    }
)
"""The keys of a row in each form, without its hash."""
OF_EVENT: Final = frozenset({"at", "by", "slot"})
"""Fields of an event that stand in the row itself, not in its body."""
NO_TEXTS: Final[Mapping[str, LedgerText]] = MappingProxyType({})


def _marked(mark: str) -> Mapping[str, Mapping[str, Any]]:
    """Return by kind the fields with a mark, and what it says of each."""
    return {
        name: {f.name: f.metadata[mark] for f in fields(kind) if mark in f.metadata}
        for name, kind in ALL_KINDS.items()
    }


TEXT_FIELDS: Final = _marked(FREE_TEXT)
"""The fields of each kind that hold free text."""
ACCOUNT_FIELDS: Final = _marked(ACCOUNT)
"""The fields of each kind that hold an account; what stands there narrows it to one `kind`."""


class BrokenChainError(ValueError):
    """A row of the chain is not what its hash, place or form says; `line` counts from 1."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a ledger in its own form; `texts` and `names` stand beside it, unhashed.

    Attributes:
        rollout: whose ledger.
        revision: counts rows from 1.
        at: when it was written, in microseconds.
        kind, actor, body: what happened, as it is hashed.
        access_head: the revision of the access ledger by whose roles it was judged.
        previous: the hash of the row before, "" for the first.
        slot: the slot whose evidence a tick judged, in microseconds; None for all else.
        form: 1 or 2.
        texts: free text by field; a field whose hash stands in the body and not here is erased.
        names: of the accounts in it.
    """

    rollout: str
    revision: int
    at: int
    kind: str
    actor: str
    body: dict[str, Any]
    access_head: int | None
    previous: str
    slot: int | None = None
    form: int = FORM
    texts: Mapping[str, LedgerText] = field(default_factory=lambda: NO_TEXTS, compare=False)
    names: AccountNames = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def hash(self) -> str:
        """Return SHA-256 over the canonical form of everything that is hashed."""
        return sha256(DOMAINS[self.form] + canonical(self._content()).encode()).hexdigest()

    def text(self) -> str:
        """Return the row as one line of JSON in canonical form, hash and texts included."""
        return canonical({**self._content(), "hash": self.hash, **texts_of(self.texts)})

    def _content(self) -> dict[str, Any]:
        content = {name: getattr(self, name) for name in COLUMNS[self.form] if name != "house"}
        return {**content, "house": self.access_head} if self.form == 1 else content

    @property
    def event_kind(self) -> str:
        """Return the kind in today's words."""
        return KINDS_OF_FORM_1[self.kind] if self.form == 1 else self.kind

    @property
    def by(self) -> str:
        """Return the actor's name, or its id where the name is erased."""
        return self.names.find_name(self.actor)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the body in today's keys, with names and texts; "" for an erased text."""
        values = read_body(self.kind, self.form, self.body, self.texts)
        for name in () if self.form == 1 else _accounts_in(self.kind, values):
            values[name] = self.names.find_name(values[name])
        return values

    @property
    def erased(self) -> tuple[str, ...]:
        """Return the fields whose text was erased."""
        if self.form == 1:
            return ()
        own = TEXT_FIELDS[self.kind]
        return tuple(n for n in own if f"{n}_hash" in self.body and n not in self.texts)


def read_body(
    kind: str, form: int, body: Mapping[str, Any], texts: Mapping[str, LedgerText] = NO_TEXTS
) -> dict[str, Any]:
    """Return a body in today's keys with its texts, "" for an erased one; accounts stay ids."""
    if form == 1:
        return translate_body(kind, body)
    hashed = {f"{name}_hash": name for name in TEXT_FIELDS[kind]}
    values = {key: value for key, value in body.items() if key not in hashed}
    return values | {n: texts[n].text if n in texts else "" for n in hashed.values()}


def texts_of(texts: Mapping[str, LedgerText]) -> dict[str, Any]:
    """Return texts as a written row carries them, outside its hash; nothing without any."""
    if not texts:
        return {}
    return {"texts": {n: {"salt": t.salt.hex(), "text": t.text} for n, t in texts.items()}}


def _accounts_in(kind: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields that hold an account."""
    for name, only in ACCOUNT_FIELDS[kind].items():
        if values.get(name) and only in (True, values.get("kind")):
            yield name


def accounts_of(event: Event) -> frozenset[str]:
    """Return the names of the accounts in an event: of its actor, and in its fields."""
    kind, values = type(event).__name__, {f.name: getattr(event, f.name) for f in fields(event)}
    return frozenset({event.by, *(values[name] for name in _accounts_in(kind, values))})


def accounts_in(row_kind: str, form: int, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what stands in a row's body in the place of accounts; of form 1 nothing."""
    return () if form == 1 else tuple(body[name] for name in _accounts_in(row_kind, body))


def stored_kinds(kinds: Iterable[str]) -> frozenset[str]:
    """Return the kinds that rows of any form have which are read as `kinds`."""
    wanted = frozenset(kinds)
    return wanted | {STORED_KINDS[kind] for kind in wanted if kind in STORED_KINDS}


def canonical(value: Any) -> str:
    """Return the one text that stands for `value`.

    Raises:
        ValueError: a float, a number from 2**53 on, or a key that is not ASCII text.

    >>> canonical({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    _check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _check(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004 - the form is wrong, as for the other refusals here
            f"{value!r} is a float; write it as whole units or decimal text"
        )
    if isinstance(value, int) and abs(value) >= MOST:
        raise ValueError(f"{value} is too large for JSON; write it as text")
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key.isascii() for key in value):
            raise ValueError("keys are ASCII text")
        for item in value.values():
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)


def chain(rollout: str, events: Iterable[Event], salts: Salts) -> Iterator[Row]:
    """Yield the rows of a rollout's whole ledger, the first one with revision 1."""
    previous = ""
    for revision, event in enumerate(events, start=1):
        row = row_of(rollout, revision, event, previous, salts=salts)
        previous = row.hash
        yield row


def row_of(
    rollout: str,
    revision: int,
    event: Event,
    previous: str,
    *,
    salts: Salts,
    names: AccountNames = NO_NAMES,
    access_head: int | None = None,
) -> Row:
    """Return the row of one event in form 2.

    Args:
        rollout: whose ledger.
        revision: the row's place, from 1.
        event: what happened.
        previous: the hash of the row before, "" for the first.
        salts: give the salt of each free text.
        names: of the accounts that the event names; what is not in it stays as it is.
        access_head: the revision of the access ledger by whose roles it was judged.
    """
    kind, body = type(event).__name__, fields_of(event)
    texts = {}
    for name in TEXT_FIELDS[kind]:
        text = body.pop(name, "")
        if text:
            texts[name] = LedgerText(salts(revision, name), text)
            body[f"{name}_hash"] = texts[name].hash
    for name in _accounts_in(kind, body):
        body[name] = names.find_id(body[name])
    return Row(
        rollout=rollout,
        revision=revision,
        at=micros(event.at),
        kind=kind,
        actor=names.find_id(event.by),
        body=body,
        access_head=access_head,
        previous=previous,
        slot=None if event.slot is None else micros(event.slot),
        texts=texts,
        names=names,
    )


def form_changed_row(rollout: str, head: tuple[int, str], at: datetime, by: str) -> Row:
    """Return the last row of form 1 of a ledger whose head is `head`: its revision and hash."""
    revision, previous = head
    event = FormChanged(at=at, by=by, form=FORM, revision=revision, head=previous)
    return Row(
        rollout=rollout,
        revision=revision + 1,
        at=micros(at),
        kind=FormChanged.__name__,
        actor=by,
        body=fields_of(event),
        access_head=None,
        previous=previous,
        form=1,
    )


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event's own fields as plain values; `cell` stands as site and window."""
    own = (f.name for f in fields(event) if f.name not in OF_EVENT and not _unsaid(f, event))
    values = {name: _plain(getattr(event, name)) for name in own}
    cell = values.pop("cell", None)
    return {**values, **(cell or {})}


def _unsaid(field: Field[Any], event: Event) -> bool:
    return CAME_LATER in field.metadata and not getattr(event, field.name)


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return micros(value)
        case Cell():
            return {"site": value.site, "window": value.window}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def event_of(row: Row) -> Event:
    """Return the event that a row of any form holds, with the names and texts beside it."""
    kind = ALL_KINDS[row.event_kind]
    hints = HINTS[row.event_kind]
    body = row.fields
    if "cell" in hints:
        body["cell"] = {k: body.pop(k) for k in ("site", "window") if k in body} or None
    values = {name: _typed(hints[name], value) for name, value in body.items()}
    if row.slot is not None:
        values["slot"] = EPOCH + row.slot * MICROSECOND
    return kind(at=EPOCH + row.at * MICROSECOND, by=row.by, **values)


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) in {Union, UnionType}:
        return None if value is None else _typed(get_args(hint)[0], value)
    if get_origin(hint) is tuple:
        return tuple(_typed(get_args(hint)[0], item) for item in value)
    if hint is datetime:
        return EPOCH + value * MICROSECOND
    if hint is Cell:
        return Cell(intern(value["site"]), intern(value["window"]))
    return intern(value) if type(value) is str else value  # ten thousand grants, one "v1"


def verified(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of a written ledger, recomputing every link.

    Raises:
        BrokenChainError: at the first line that is not canonical, has another hash than its
            content, does not follow the line before it, is of an unknown kind, carries a text
            that is not the hashed one, or changes the form without a `FormChanged` before it.
    """
    last: Row | None = None
    for number, line in enumerate(lines, start=1):
        row = _read(number, line)
        if row.previous != ("" if last is None else last.hash):
            raise BrokenChainError(number, "does not follow the line before it")
        if row.revision != number or (last is not None and row.rollout != last.rollout):
            raise BrokenChainError(
                number, f"revision {row.revision} of {row.rollout} is out of place"
            )
        _check_form(row, last)
        last = row
        yield row


def _check_form(row: Row, last: Row | None) -> None:
    """Raise an error unless the row's form follows from the row before it."""
    changed = last is not None and last.form == 1 and last.kind == FormChanged.__name__
    if row.form != (FORM if changed else row.form if last is None else last.form):
        raise BrokenChainError(row.revision, f"is of form {row.form}, unlike the line before it")
    if row.kind != FormChanged.__name__:
        return
    head = {"form": FORM, "revision": row.revision - 1, "head": row.previous}
    if row.form != 1 or last is None or row.body != head:
        raise BrokenChainError(row.revision, "changes the form at another head than its own")


def _read(number: int, line: str) -> Row:
    try:
        content = json.loads(line, object_pairs_hook=_no_doubles)
        row = _row(content)
        kinds = KINDS_OF_FORM_1 if row.form == 1 else ALL_KINDS
        is_known_kind = row.kind in kinds
        is_canonical = row.text() == line.rstrip("\n")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenChainError(number, f"is not a row of a ledger: {error}") from error
    if content.get("hash") != row.hash:
        raise BrokenChainError(number, "its hash is not that of its content")
    if not is_canonical:
        raise BrokenChainError(number, "is not written in canonical form")
    if not is_known_kind:
        raise BrokenChainError(number, f"has the unknown kind {row.kind}")
    for name, text in row.texts.items():
        if name not in TEXT_FIELDS[row.kind] or row.body.get(f"{name}_hash") != text.hash:
            raise BrokenChainError(number, f"its text `{name}` is not the one that was hashed")
    return row


def _row(content: dict[str, Any]) -> Row:
    """Return a row as it was written; the form follows from the keys."""
    form = 1 if "house" in content else FORM
    values = {name: content[name] for name in COLUMNS[form]}
    if form == 1:
        values["access_head"] = values.pop("house")
        return Row(**values, form=1)
    texts = {
        name: LedgerText(bytes.fromhex(text["salt"]), text["text"])
        for name, text in content.get("texts", {}).items()
    }
    return Row(**values, texts=texts)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values

"""Ledger rows: canonical form, hashes and shape, texts beside them, and checkpoints of ledgers.

The canonical form is RFC 8785, restricted: text, booleans, null, lists, objects with ASCII keys and
whole numbers below 2**53. There are no floats; times are microseconds since 1970, UTC. Each row is
hashed with the row before. The hashes reveal edits, deletions and swaps. To detect a cut end or a
complete rewrite, compare the head with one stored elsewhere.

Account names and free text are stored beside the hashed row, which holds only a text's salted hash.
Reasons and notes may name people. An erasure deletes text and salt; the row's hash stays valid, and
without the salt the text can't be found by guessing.

The shape of a row is the fields of its kind, and their types. Hashes don't show a wrong shape: the
author of a file can hash anything.

Checkpoints are signed heads of ledgers, stored where the ledger's database can't be reached. A user
who can write the database can rewrite a whole ledger, and every hash is right again. A checkpoint
kept elsewhere shows it: the ledger no longer has the row that was signed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache, partial
from hashlib import sha256
from math import isfinite
from sys import intern
from types import MappingProxyType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from rollout.engine.events import (
    ACCOUNT,
    EVENT_TYPES,
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    EventT,
    LedgerEvent,
)
from rollout.engine.ledger.access_events import ACCESS_KINDS, NO_NAMES, AccountNames
from rollout.kernel.calendar.instants import Cell, from_micros, to_micros
from rollout.kernel.errors import RefusalError, RolloutError
from rollout.kernel.facts import (
    TURNED,
    LooserRule,
    StoredReading,
    Trigger,
    parse_facts,
    to_facts,
)
from rollout.kernel.words import VOID_CAUSES, say_cause, say_looser

TEXT_DOMAIN: Final = b"rollout-text-1\n"
SALT_DOMAIN: Final = b"rollout-text-salt-1\n"
SALT_BYTES: Final = 16
Salts = Callable[[int, str], bytes]
"""Returns a text's salt for the row's revision and the field's name."""


@dataclass(frozen=True, slots=True)
class LedgerText:
    """The text of one field of one row, with its salt."""

    salt: bytes
    text: str

    @property
    def hash(self) -> str:
        """Return SHA-256 over domain, salt and text, in hexadecimal digits."""
        return sha256(TEXT_DOMAIN + self.salt + self.text.encode()).hexdigest()


def derive_salts(secret: bytes) -> Salts:
    """Return salts derived from a secret, so that a replay is reproducible.

    >>> derive_salts(b"one")(7, "reason") == derive_salts(b"one")(7, "reason")
    True
    """

    def derive_salt(revision: int, field: str) -> bytes:
        content = SALT_DOMAIN + revision.to_bytes(8, "big") + field.encode() + b"\n" + secret
        return sha256(content).digest()[:SALT_BYTES]

    return derive_salt


DOMAIN: Final = b"rollout-ledger-1\n"
MAX_WHOLE_NUMBER = 2**53
ALL_EVENT_TYPES = (
    EVENT_TYPES | ACCESS_KINDS
)  # a rollout's ledger and the access ledger have one form
EVENT_HINTS = {
    name: get_type_hints(kind) for name, kind in ALL_EVENT_TYPES.items()
}  # slow to ask for
COLUMNS: Final = (
    "rollout",
    "revision",
    "at",
    "slot",
    "kind",
    "actor",
    "body",
    "access_head",
    "previous",
)
"""The hashed keys of a row."""
ROW_FIELDS: Final = frozenset({"at", "by", "slot"})
"""Fields of an event that are columns of the row, not part of its body."""
NO_TEXTS: Final[Mapping[str, LedgerText]] = MappingProxyType({})


def _list_marked_fields(mark: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the fields of each kind with a mark, and the mark's values."""
    return {
        name: {f.name: f.metadata[mark] for f in fields(kind) if mark in f.metadata}
        for name, kind in ALL_EVENT_TYPES.items()
    }


TEXT_FIELDS: Final = _list_marked_fields(FREE_TEXT)
"""The fields of each kind that hold free text."""
ACCOUNT_FIELDS: Final = _list_marked_fields(ACCOUNT)
"""The fields of each kind that hold an account: True, or the incident `kind`s that have one."""


class BrokenLedgerError(RolloutError, ValueError):
    """A row with a wrong hash or place, or written otherwise; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


@dataclass(frozen=True, slots=True)
class CanonicalRow:
    """One row of a ledger; `texts` and `names` are not hashed.

    Attributes:
        revision: counts rows from 1.
        at: microseconds since 1970, UTC.
        kind, actor, body: as hashed.
        access_head: revision of the access ledger whose roles were checked.
        previous: hash of the row before, "" for the first.
        slot: slot of the evidence of a tick, in microseconds; else None.
        texts: free text by field; a missing text whose hash is in the body was erased.
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
    texts: Mapping[str, LedgerText] = field(default_factory=lambda: NO_TEXTS, compare=False)
    names: AccountNames = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def hash(self) -> str:
        """Return SHA-256 over the canonical form of the hashed content."""
        return sha256(DOMAIN + to_canonical_json(self._content()).encode()).hexdigest()

    def format(self) -> str:
        """Return the row as one canonical line of JSON with hash and texts."""
        return to_canonical_json({**self._content(), "hash": self.hash, **texts_of(self.texts)})

    def _content(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def by(self) -> str:
        """Return the actor's name, or its id if the name is erased."""
        return self.names.find_name(self.actor)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the body with names and texts; "" if erased."""
        values = read_body(self.kind, self.body, self.texts)
        for name in _list_account_fields(self.kind, values):
            values[name] = self.names.find_name(values[name])
        return values

    @property
    def erased(self) -> tuple[str, ...]:
        """Return the fields whose text was erased."""
        return tuple(
            n for n in TEXT_FIELDS[self.kind] if f"{n}_hash" in self.body and n not in self.texts
        )


def read_body(
    kind: str, body: Mapping[str, Any], texts: Mapping[str, LedgerText] = NO_TEXTS
) -> dict[str, Any]:
    """Return a body with its texts, "" if erased; accounts stay ids."""
    hashed = {f"{name}_hash": name for name in TEXT_FIELDS[kind]}
    values = {key: value for key, value in body.items() if key not in hashed}
    return values | {
        name: texts[name].text if name in texts else ""
        for key, name in hashed.items()
        if key in body or name not in values
    }


def texts_of(texts: Mapping[str, LedgerText]) -> dict[str, Any]:
    """Return texts as exported rows carry them, {} without any."""
    if not texts:
        return {}
    return {"texts": {n: {"salt": t.salt.hex(), "text": t.text} for n, t in texts.items()}}


def _list_account_fields(kind: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields that hold an account."""
    for name, kinds in ACCOUNT_FIELDS[kind].items():
        if values.get(name) and (kinds is True or values.get("kind") in kinds):
            yield name


def accounts_of(event: LedgerEvent) -> frozenset[str]:
    """Return the names of the actor and of the accounts in an event."""
    kind, values = type(event).__name__, {f.name: getattr(event, f.name) for f in fields(event)}
    return frozenset({event.by, *(values[name] for name in _list_account_fields(kind, values))})


def accounts_in(row_kind: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the account ids in a row's body."""
    return tuple(body[name] for name in _list_account_fields(row_kind, body))


def to_canonical_json(value: Any) -> str:
    """Return the canonical text of `value`.

    >>> to_canonical_json({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    _check_json_value(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _check_json_value(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004 - the form is wrong, as for the other refusals here
            f"{value!r} is a float; write it as whole units or decimal text"
        )
    if isinstance(value, int) and abs(value) >= MAX_WHOLE_NUMBER:
        raise ValueError(f"{value} is too large for JSON; write it as text")
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key.isascii() for key in value):
            raise ValueError("keys are ASCII text")
        for item in value.values():
            _check_json_value(item)
    elif isinstance(value, list):
        for item in value:
            _check_json_value(item)


def build_ledger(
    rollout: str, events: Iterable[LedgerEvent], salts: Salts
) -> Iterator[CanonicalRow]:
    """Yield the rows of a rollout's whole ledger, from revision 1."""
    previous = ""
    for revision, event in enumerate(events, start=1):
        row = build_row(rollout, revision, event, previous, salts=salts)
        previous = row.hash
        yield row


def build_row(
    rollout: str,
    revision: int,
    event: LedgerEvent,
    previous: str,
    *,
    salts: Salts,
    names: AccountNames = NO_NAMES,
    access_head: int | None = None,
) -> CanonicalRow:
    """Return the row of one event.

    Args:
        previous: hash of the row before, "" for the first.
        salts: returns the salt of each free text.
        names: account names by id; an unknown name is stored as it is.
        access_head: revision of the access ledger whose roles were checked.
    """
    kind, body = type(event).__name__, list_fields(event)
    texts = {
        name: LedgerText(salts(revision, name), text)
        for name, only in TEXT_FIELDS[kind].items()
        if (only is True or body.get("kind") in only) and (text := body.pop(name, ""))
    }
    body |= {f"{name}_hash": text.hash for name, text in texts.items()}
    for name in _list_account_fields(kind, body):
        body[name] = names.find_id(body[name])
    return CanonicalRow(
        rollout=rollout,
        revision=revision,
        at=to_micros(event.at),
        kind=kind,
        actor=names.find_id(event.by),
        body=body,
        access_head=access_head,
        previous=previous,
        slot=None if event.slot is None else to_micros(event.slot),
        texts=texts,
        names=names,
    )


def list_fields(event: LedgerEvent) -> dict[str, Any]:
    """Return an event's fields as plain values; `cell` becomes site and window."""
    values = {
        f.name: _to_plain(getattr(event, f.name))
        for f in fields(event)
        if f.name not in ROW_FIELDS
        and (OMITTED_WHEN_EMPTY not in f.metadata or getattr(event, f.name))
    }
    cell = values.pop("cell", None)
    return {**values, **(cell or {})}


def _to_plain(value: Any) -> Any:
    match value:
        case datetime():
            return to_micros(value)
        case Cell():
            return {"site": value.site, "window": value.window}
        case tuple():
            return [_to_plain(item) for item in value]
        case _:
            return to_facts(value) if is_dataclass(value) else value


def parse_event(row: CanonicalRow) -> LedgerEvent:
    """Return the event of a row, with names and texts."""
    return parse_as(row, ALL_EVENT_TYPES[row.kind])


def parse_as(row: CanonicalRow, kind: type[EventT]) -> EventT:
    """Return the event of a row that is of a kind."""
    hints = EVENT_HINTS[kind.__name__]
    body = row.fields
    if "cell" in hints:
        body["cell"] = {k: body.pop(k) for k in ("site", "window") if k in body} or None
    values = {name: _build_parser(hints[name])(value) for name, value in body.items()}
    if row.slot is not None:
        values["slot"] = from_micros(row.slot)
    return kind(at=from_micros(row.at), by=row.by, **values)


@cache
def _build_parser(hint: Any) -> Callable[[Any], Any]:
    """Return the function that parses a value of a type, looked at once for thousands of values."""
    if get_origin(hint) in {Union, UnionType}:
        parse_one = _build_parser(get_args(hint)[0])
        return lambda value: None if value is None else parse_one(value)
    if get_origin(hint) is tuple:
        parse_item = _build_parser(get_args(hint)[0])
        return lambda value: tuple(map(parse_item, value))
    if hint is datetime:
        return from_micros
    if hint is StoredReading:
        return _parse_reading
    if hint is Cell:
        return lambda value: Cell(intern(value["site"]), intern(value["window"]))
    is_value = isinstance(hint, type) and is_dataclass(hint)
    return partial(parse_facts, hint) if is_value else _intern_text


def _parse_reading(value: Mapping[str, Any]) -> StoredReading:
    return StoredReading(**{**value, "counts": tuple(value["counts"])})


def _intern_text(value: Any) -> Any:
    """Return a value; of equal texts one object, as for thousands of grants."""
    return intern(value) if type(value) is str else value


def verify_lines(lines: Iterable[str]) -> Iterator[CanonicalRow]:
    """Yield the rows of an exported ledger and check every link.

    Raises:
        BrokenLedgerError: at the first line that is not canonical, has a wrong hash, does not
            follow the line before, has an unknown kind, or carries another text than the hashed
            one.
    """
    last: CanonicalRow | None = None
    for number, line in enumerate(lines, start=1):
        row = _read_line(number, line)
        if row.previous != ("" if last is None else last.hash):
            raise BrokenLedgerError(number, "does not follow the line before it")
        if row.revision != number or (last is not None and row.rollout != last.rollout):
            raise BrokenLedgerError(
                number, f"revision {row.revision} of {row.rollout} is out of place"
            )
        last = row
        yield row


def _read_line(number: int, line: str) -> CanonicalRow:
    try:
        content = json.loads(line, object_pairs_hook=_reject_duplicate_keys)
        row = _parse_row(content)
        is_known_kind = row.kind in ALL_EVENT_TYPES
        is_canonical = row.format() == line.rstrip("\n")
        wrong_texts = [
            name
            for name, text in row.texts.items()
            if is_known_kind
            and (name not in TEXT_FIELDS[row.kind] or row.body.get(f"{name}_hash") != text.hash)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenLedgerError(number, f"is not an entry of a ledger: {error}") from error
    if content.get("hash") != row.hash:
        raise BrokenLedgerError(number, "its hash is not that of its content")
    if not is_canonical:
        raise BrokenLedgerError(number, "is not written in canonical form")
    if not is_known_kind:
        raise BrokenLedgerError(number, f"has the unknown kind {row.kind}")
    for name in wrong_texts:
        raise BrokenLedgerError(number, f"its text `{name}` is not the one that was hashed")
    return row


def _parse_row(content: dict[str, Any]) -> CanonicalRow:
    """Return an exported row."""
    values = {name: content[name] for name in COLUMNS}
    texts = {
        name: LedgerText(bytes.fromhex(text["salt"]), text["text"])
        for name, text in content.get("texts", {}).items()
    }
    return CanonicalRow(**values, texts=texts)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


COLUMN_HINTS: Final[Mapping[str, Any]] = {
    "rollout": str,
    "revision": int,
    "at": int,
    "slot": int | None,
    "actor": str,
    "body": dict,
    "access_head": int | None,
}
CELL_KEYS: Final = ("site", "window")


def check_shape(row: CanonicalRow) -> None:
    """Raise `BrokenLedgerError` unless a verified row has the shape of its kind."""
    if fault := find_shape_fault(row):
        raise BrokenLedgerError(row.revision, fault)


def find_shape_fault(row: CanonicalRow) -> str:
    """Return what is wrong with the shape of a verified row, or ""."""
    for name, hint in COLUMN_HINTS.items():
        if not _has_type(getattr(row, name), hint):
            return f"its `{name}` has a wrong type"
    values = read_body(row.kind, row.body, row.texts)
    hints = {name: hint for name, hint in EVENT_HINTS[row.kind].items() if name not in ROW_FIELDS}
    if "cell" in hints:
        values["cell"] = {key: values.pop(key) for key in CELL_KEYS if key in values} or None
    for name in values:
        if name not in hints:
            return f"an entry {row.kind} has no `{name}`"
        if not _has_type(values[name], hints[name]):
            return f"its `{name}` has a wrong type"
    if missing := sorted(
        {
            each.name
            for each in fields(ALL_EVENT_TYPES[row.kind])
            if each.name not in ROW_FIELDS and each.default is MISSING
        }
        - values.keys()
    ):
        return f"it lacks `{missing[0]}`"
    if values.get("cause", TURNED) not in VOID_CAUSES:
        return f"its `cause` has no words: {values['cause']}"
    return ""


def _is_reading(value: Any) -> bool:
    """Return whether a value has all that a reading has, so that its words can be said."""
    try:
        reading = StoredReading(**value)
        condition, numbers = reading.parse_condition(), (reading.log_e, reading.risk)
        extras = filter(None, (reading.estimate, reading.bound, reading.draw_log_e))
        return (
            to_facts(condition) == value["condition"]
            and _has_type(value["counts"], tuple[int, ...])
            and all(isfinite(float(number)) for number in (*numbers, *extras))
            and float(reading.risk) > 0
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _is_value(value: Any, hint: Any) -> bool:
    """Return whether a value has all that its class has, and each as it is written."""
    try:
        parsed = parse_facts(hint, value)
        if isinstance(parsed, LooserRule):
            say_looser(parsed)
        if isinstance(parsed, Trigger):
            say_cause("", parsed)
        return bool(to_facts(parsed) == value)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value of a body can be read as the type of its field."""
    arguments = get_args(hint)
    if get_origin(hint) in {Union, UnionType}:
        return any(_has_type(value, argument) for argument in arguments)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_has_type(item, arguments[0]) for item in value)
    if hint is Cell:
        return (
            isinstance(value, dict)
            and all(isinstance(value.get(key), str) for key in CELL_KEYS)
            and len(value) == len(CELL_KEYS)
        )
    if hint is StoredReading:
        return _is_reading(value)
    if is_dataclass(hint):
        return _is_value(value, hint)
    # not isinstance: a boolean is no number here
    return type(value) is (int if hint is datetime else hint)


CHECKPOINT_DOMAIN: Final = b"rollout-checkpoint-1\n"
TYPES: Final = {
    "ledger": str, "revision": int, "hash": str, "at": int, "key": str, "signature": str,
}  # fmt: skip
SIGNED: Final = ("ledger", "revision", "hash", "at")


class CheckpointError(RefusalError):
    """A file of checkpoints that can't be read, or with a signature that isn't the key's."""

    code = "checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a ledger at one time, signed with Ed25519.

    Attributes:
        ledger: the rollout, or `:access` for the access ledger, as its rows name it.
        revision, hash: of the last row then.
        at: when it was signed.
        key: the public key, in hex.
        signature: of `content`, in hex.
    """

    ledger: str
    revision: int
    hash: str
    at: datetime
    key: str = ""
    signature: str = ""

    @property
    def content(self) -> bytes:
        """Return the signed bytes."""
        values = {name: getattr(self, name) for name in SIGNED} | {"at": to_micros(self.at)}
        return CHECKPOINT_DOMAIN + to_canonical_json(values).encode()

    def format(self) -> str:
        """Return the checkpoint as one line of JSON."""
        values = {name: getattr(self, name) for name in TYPES} | {"at": to_micros(self.at)}
        return to_canonical_json(values)


def parse_checkpoints(text: str, name: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a file's text, one a line; blank lines are skipped.

    Raises:
        CheckpointError: a line is no checkpoint, or there is none; `name` is the file's.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise CheckpointError(f"{name} has no checkpoint; `rollout ledger checkpoint` writes one")
    for number, line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict) or {k: type(v) for k, v in values.items()} != TYPES:
            raise CheckpointError(
                f"{name}, line {number}: is no checkpoint; `rollout ledger checkpoint` writes them"
            )
        yield Checkpoint(**values | {"at": from_micros(values["at"])})


def find_contradictions(
    checkpoints: Iterable[Checkpoint], find_hash: Callable[[str, int], str | None]
) -> Iterator[str]:
    """Describe each checkpoint whose row a ledger lacks or has otherwise.

    Args:
        find_hash: returns the hash of a ledger's revision, None if there is no such row.
    """
    for checkpoint in checkpoints:
        stored_hash = find_hash(checkpoint.ledger, checkpoint.revision)
        if stored_hash == checkpoint.hash:
            continue
        signed_at = checkpoint.at.isoformat(timespec="seconds")
        state_text = "is missing" if stored_hash is None else f"has the hash {stored_hash}"
        yield (
            f"{checkpoint.ledger}: row {checkpoint.revision} {state_text}; the checkpoint of"
            f" {signed_at} signed {checkpoint.hash}. The ledger was rewritten or set back since"
        )

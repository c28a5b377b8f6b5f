"""Stored snapshots of what guards observed: a process begins with one and reads what arrived since.

They are derived from the records alone. A case whose record moved it is not in it: the process that
restores reads it anew, as one that reads all records.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollout.services.engine.evidence_snapshots import UNREADABLE
from rollout.services.engine.guard_memory import (
    CaseInstants,
    GuardMemory,
    GuardObservations,
    LiveSiteSigns,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.counting.arrivals import ArrivalSum
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence_snapshots import EvidenceSnapshots
from rollout.store.ledger.tick_slots import TickSlots
from rollout.store.tables.tables import guard_snapshots
from rollout.tally.column_codes import (
    decode_flags,
    decode_integers,
    decode_raw,
    encode_flags,
    encode_integers,
    encode_raw,
    join_parts,
    split_column,
    split_parts,
)
from rollout.tally.slots import to_instant

OBSERVATION_FORM: Final = 3
"""Raise it if the arrays of the same records change: their fields are noticed below."""
FORM: Final = sha256(
    repr(
        (OBSERVATION_FORM, [[f.name for f in fields(t)] for t in (GuardObservations, CaseInstants)])
    ).encode()
).digest()[:8]
"""Begins a snapshot, so that no program with other arrays reads it."""


@dataclass(frozen=True)
class GuardSnapshot:
    """What guards had observed at a slot.

    Attributes:
        memory: observations and signs, without those of moved cases.
        moved_cases: to be read anew.
        arrivals: times in microseconds and cases of the last arrivals that were read.
        arrival_sums: number and sum of cases of those of half a day, by span.
    """

    memory: GuardMemory
    moved_cases: frozenset[int]
    arrivals: frozenset[tuple[int, int]]
    arrival_sums: dict[int, ArrivalSum]


def can_be_stored(state: RolloutState, read_back: timedelta) -> bool:
    """Return whether a snapshot would restore what a process reads from all records.

    A retention shorter than what guards read takes cases from the records alone.
    """
    retention = state.policy.retention.cases
    return retention is None or retention > read_back


def encode_snapshot(snapshot: GuardSnapshot, state: RolloutState) -> bytes:
    """Return a snapshot as bytes that only the same policy and versions restore."""
    memory, columns = snapshot.memory, _ColumnWriter()
    guards = [
        [
            guard_id,
            [[*key, len(part)] for key, part in parts.items()],
            columns.add_all(parts.values()),
        ]
        for guard_id, parts in memory.observations.items()
        if parts
    ]
    sites = memory.signs.cases
    arrivals = np.array(sorted(snapshot.arrivals), dtype=np.int64).reshape(-1, 2)
    header = {
        "bound": _describe_binding(state),
        "guards": guards,
        "sites": [[site, len(part.at)] for site, part in sites.items()],
        "signs": columns.add_all(sites.values()) if sites else [],
        "moved": sorted(snapshot.moved_cases),
        "arrivals": [columns.add(arrivals[:, 0]), columns.add(arrivals[:, 1])],
        "arrival_sums": [[span, *sums] for span, sums in snapshot.arrival_sums.items()],
    }
    return FORM + join_parts([zlib.compress(json.dumps(header).encode(), 1), *columns.parts])


def decode_snapshot(body: bytes, state: RolloutState) -> GuardSnapshot | None:
    """Return a snapshot; None for another form, policy or naming of versions.

    Raises:
        ValueError: the contents contradict each other.
    """
    if not body.startswith(FORM):
        return None
    header_part, *parts = split_parts(memoryview(body)[len(FORM) :])
    header = json.loads(zlib.decompress(header_part))
    if header["bound"] != _describe_binding(state):
        return None
    columns = [_decode(part) for part in parts]
    memory = GuardMemory({}, LiveSiteSigns())
    for guard_id, keys, numbers in header["guards"]:
        lengths = [key[-1] for key in keys]
        rows = _split_rows([columns[number] for number in numbers], lengths)
        memory.observations[guard_id] = {
            (site, window, version): GuardObservations(*row)
            for (site, window, version, _), row in zip(keys, rows, strict=True)
        }
    lengths = [length for _, length in header["sites"]]
    rows = _split_rows([columns[number] for number in header["signs"]], lengths)
    for (site, _), row in zip(header["sites"], rows, strict=bool(lengths)):
        memory.signs.cases[site] = CaseInstants(*row)
    arrivals = zip(*(columns[number].tolist() for number in header["arrivals"]), strict=True)
    sums = {int(span): (int(count), int(total)) for span, count, total in header["arrival_sums"]}
    return GuardSnapshot(memory, frozenset(header["moved"]), frozenset(arrivals), sums)


def restore_snapshot(
    transaction: Transaction, state: RolloutState, at: datetime, max_age: timedelta
) -> tuple[GuardSnapshot, datetime] | None:
    """Return the stored snapshot and its slot's instant; None if it can't be relied on.

    Ticks delete arrivals. So a tick that ended more than `max_age` after the snapshot may have
    deleted some that it lacks; a standstill deletes none.
    """
    stored = EvidenceSnapshots(transaction, state.rollout, guard_snapshots)
    newest = stored.load(until=state.scope.revision)
    if newest is None:
        return None
    read_at = to_instant(newest.slot, state.policy.tick)
    last_done_at = TickSlots(transaction, state.rollout).load_last_done_at()
    if read_at > at or (last_done_at is not None and last_done_at - read_at > max_age):
        return None
    try:
        snapshot = decode_snapshot(newest.body, state)
    except UNREADABLE:
        return None
    return None if snapshot is None else (snapshot, read_at)


def _describe_binding(state: RolloutState) -> list[Any]:
    """Return what else than the records decides what guards observe."""
    return [state.policy.hash, sorted(map(list, state.first_names.items()))]


class _ColumnWriter:
    """Encoded columns; equal ones, as of guards on the same predictions, are stored once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._columns: list[NDArray[Any]] = []

    def add(self, column: NDArray[Any]) -> int:
        """Return the number of a column."""
        for number, other in enumerate(self._columns):
            if other.dtype == column.dtype and np.array_equal(other, column):
                return number
        self._columns.append(column)
        self.parts.append(_encode(column))
        return len(self.parts) - 1

    def add_all(self, rows: Any) -> list[int]:
        """Return the number of each field's column, joined over objects of one class."""
        parts = list(rows)
        names = [f.name for f in fields(parts[0])]
        return [self.add(np.concatenate([getattr(part, name) for part in parts])) for name in names]


def _encode(column: NDArray[Any]) -> bytes:
    if column.dtype == np.float64:
        return b"f" + encode_raw(column)
    if column.dtype == np.bool_:
        return b"b" + encode_flags(column)
    return b"i" + encode_integers(column)


def _decode(part: memoryview) -> NDArray[Any]:
    kind, content = bytes(part[:1]), part[1:]
    if kind == b"f":
        return decode_raw(content)
    return decode_flags(content) if kind == b"b" else decode_integers(content)


def _split_rows(columns: list[NDArray[Any]], lengths: list[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of each part; a column without values is empty in all."""
    split = (
        split_column(column, lengths if len(column) else [0] * len(lengths)) for column in columns
    )
    return zip(*split, strict=True)

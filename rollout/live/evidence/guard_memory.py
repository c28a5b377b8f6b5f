"""What guards observed of cases, in memory, and the snapshots of it that are stored.

Observed are answers and harms by cell, and the signs of sites. Cases have their numbers here, and
units too: no text of a case is held, nor a hash of one that a stranger could compute.

A process begins with a stored snapshot and reads what arrived since. Snapshots are derived from the
records alone. A case whose record moved it is not in one: the process that restores reads it anew,
as one that reads all records.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.data.counting.count_queue import ArrivalSum
from rollout.data.database.session import Transaction
from rollout.data.ledger.scopes import EvidenceSnapshots, TickSlots
from rollout.data.tables.tables import guard_snapshots
from rollout.engine.evidence.site_series import NO_SIGNS, AnswerRecords, SiteSigns, build_case_signs
from rollout.engine.evidence.unit_arrays import (
    decode_flags,
    decode_integers,
    decode_raw,
    encode_flags,
    encode_integers,
    encode_raw,
    find_run_starts,
    join_parts,
    split_column,
    split_parts,
)
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import OTHER_WINDOW, to_instant
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.live.evidence.evidence_reader import UNREADABLE
from rollout.live.rollout_state import RolloutState

UNIT: Final = "guard-unit"  # purpose of the sampling values that stand for units
UNIT_NUMBERS: Final = 2**53
EMPTY_NUMBERS: Ints = np.empty(0, dtype=np.int64)
KEY_COLUMNS: Final = ("site", "window", "version")
ObservationKey = tuple[str, str, str]
"""Site, window and version; the version of a harm is ""."""


def number_cases(
    cases: pl.DataFrame, numbers: Mapping[str, int], policy: Policy, salt: bytes
) -> pl.DataFrame:
    """Return placed cases with `case_id`, `unit_id` and `window_id`.

    Args:
        cases: of `HistoryFeeds.list_cases`.
        numbers: of the cases, by key.
        policy: for the unit of evidence.
        salt: of the rollout.
    """
    case_ids = pl.DataFrame(
        {"case_key": list(numbers), "case_id": list(numbers.values())},
        schema={"case_key": pl.String, "case_id": pl.Int64},
    )
    windows = [*(window.id for window in policy.windows), OTHER_WINDOW]
    window_ids = pl.col("window").replace_strict(windows, range(len(windows)))
    numbered = cases.join(case_ids, on="case_key", how="left", maintain_order="left")
    numbered = numbered.with_columns(window_id=window_ids.cast(pl.Int64))
    if policy.evidence.unit == "case":
        return numbered.with_columns(unit_id="case_id")
    values = compute_sampling_values(salt, UNIT, numbered["unit"])
    return numbered.with_columns(unit_id=pl.Series((values * UNIT_NUMBERS).astype(np.int64)))


def _build_empty() -> Ints:
    return EMPTY_NUMBERS


@dataclass(frozen=True, slots=True)
class GuardObservations:
    """A guard's observations in one cell, ascending by slot.

    Attributes:
        slots: slot in which each became known.
        occurred_slots: slot in which its case occurred.
        case_ids: numbers of the cases.
        is_bad: whether it is outside the guard's limit.
        minutes, units, draws: of `AnswerRecords`, for guards of a site; else empty.
    """

    slots: Ints = field(default_factory=_build_empty)
    occurred_slots: Ints = field(default_factory=_build_empty)
    case_ids: Ints = field(default_factory=_build_empty)
    is_bad: Bools = field(default_factory=lambda: np.empty(0, dtype=bool))
    minutes: Ints = field(default_factory=_build_empty)
    units: Ints = field(default_factory=_build_empty)
    draws: Floats = field(default_factory=lambda: np.empty(0))

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Self:
        """Return rows of `HistoryFeeds.list_answers` with the numbers of `number_cases`."""
        columns = {
            "slots": frame["slot"].to_numpy().astype(np.int64),
            "occurred_slots": frame["occurred"].to_numpy().astype(np.int64),
            "case_ids": frame["case_id"].to_numpy(),
            "is_bad": frame["bad"].to_numpy().astype(bool),
        }
        if "draw" not in frame.columns:
            return cls(**columns)
        return cls(
            **columns,
            minutes=frame["minute"].to_numpy().astype(np.int64),
            units=frame["unit_id"].to_numpy(),
            draws=frame["draw"].to_numpy(),
        )

    def __len__(self) -> int:
        """Return the number of observations."""
        return len(self.slots)

    def join(self, other: Self) -> Self:
        """Return the observations of both."""
        if not len(self):
            return other
        joined = type(self)(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in OBSERVATION_COLUMNS
            )
        )
        if not len(other) or self.slots[-1] <= other.slots[0]:
            return joined  # as most that arrive
        return joined.take(np.argsort(joined.slots, kind="stable"))

    def take(self, positions: Ints | Bools) -> Self:
        """Return some observations."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{name: column[positions] for name, column in columns.items() if len(column)}
        )

    def select_since(self, slot: int) -> Self:
        """Return the observations that became known from a slot on."""
        start = int(np.searchsorted(self.slots, slot))
        return self.copy_slice(start, len(self)) if start else self

    def copy_slice(self, start: int, end: int) -> Self:
        """Return observations that follow each other; the others needn't stay in memory."""
        columns = (getattr(self, name) for name in OBSERVATION_COLUMNS)
        return type(self)(*(column[start:end].copy() for column in columns))

    def drop_cases(self, case_ids: Ints) -> Self:
        """Return the observations of other cases."""
        if not len(self) or not len(case_ids) or self.case_ids.max() < case_ids.min():
            return self  # as of most that arrive: numbers of cases rise
        return self.take(~np.isin(self.case_ids, case_ids))

    def to_answers(self) -> AnswerRecords:
        """Return the observations of a site's guard as answers."""
        units = self.units.view(np.uint64)
        return AnswerRecords(self.slots, self.minutes, units, self.draws, self.is_bad)


OBSERVATION_COLUMNS: Final = tuple(f.name for f in fields(GuardObservations))


def split_observations(
    answers: pl.DataFrame,
) -> Iterator[tuple[ObservationKey, GuardObservations]]:
    """Yield the observations of each cell and version in a frame of `from_frame`.

    A frame of each would take longer than all else that reads them.
    """
    if answers.is_empty():
        return
    ordered = answers.sort(*KEY_COLUMNS, maintain_order=True)
    keys = ordered.select(pl.struct(KEY_COLUMNS).rle_id().alias("run"), *KEY_COLUMNS)
    starts = [*find_run_starts(keys["run"].to_numpy()).tolist(), len(ordered)]
    observations, names = GuardObservations.from_frame(ordered), keys.select(KEY_COLUMNS)
    for start, end in pairwise(starts):
        site, window, version = names.row(start)
        yield (site, window, version), observations.copy_slice(start, end)


@dataclass(frozen=True, slots=True)
class CaseInstants:
    """Cases of a site, ascending by time; one that a record moved has several rows.

    Attributes:
        at: instants in microseconds.
        case_ids, units, windows: their numbers.
    """

    at: Ints = field(default_factory=_build_empty)
    case_ids: Ints = field(default_factory=_build_empty)
    units: Ints = field(default_factory=_build_empty)
    windows: Ints = field(default_factory=_build_empty)

    def add(self, other: Self) -> Self:
        """Return the cases of both, each row once, ascending by time."""
        rows = [
            np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)
        ]
        order = np.lexsort(rows[::-1])
        ordered = [column[order] for column in rows]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = np.any([column[1:] != column[:-1] for column in ordered], axis=0)
        return type(self)(*(column[is_new] for column in ordered))

    def take(self, positions: Ints | Bools) -> Self:
        """Return some cases."""
        return type(self)(*(getattr(self, f.name)[positions] for f in fields(self)))


class LiveSiteSigns:
    """The signs of a rollout's sites."""

    def __init__(self) -> None:
        self.cases: dict[str, CaseInstants] = {}
        self.first_cases: dict[str, int] = {}
        self._pings: dict[str, Ints] = {}
        self._signs: dict[str, SiteSigns] = {}

    def read(self, site: str) -> SiteSigns:
        """Return what is known of a site."""
        if site not in self._signs:
            self._signs[site] = self._build(site)
        return self._signs[site]

    @property
    def case_count(self) -> int:
        """Return the number of cases of all sites."""
        return sum(len(cases.at) for cases in self.cases.values())

    def _build(self, site: str) -> SiteSigns:
        cases, pings = self.cases.get(site), self._pings.get(site, NO_SIGNS.pings)
        if cases is None:
            return SiteSigns(NO_SIGNS.cases, NO_SIGNS.units, pings, self.first_cases.get(site))
        units = cases.units.view(np.uint64)
        return replace(build_case_signs(cases.at, units, self.first_cases.get(site)), pings=pings)

    def add_cases(self, cases: pl.DataFrame) -> None:
        """Add rows of `number_cases`; known ones change nothing."""
        for (site,), part in cases.partition_by("site", as_dict=True, include_key=False).items():
            names = ("occurred_us", "case_id", "unit_id", "window_id")
            new_cases = CaseInstants(*(part[name].to_numpy() for name in names))
            self.cases[str(site)] = self.cases.get(str(site), CaseInstants()).add(new_cases)
            self._signs.pop(str(site), None)

    def add_pings(self, site: str, instants: Ints) -> bool:
        """Add signs of life of a site; return whether any is new."""
        pings = self._pings.get(site, NO_SIGNS.pings)
        self._pings[site] = np.union1d(pings, instants)
        self._signs.pop(site, None)
        return len(self._pings[site]) > len(pings)


@dataclass
class GuardMemory:
    """All that guards observed of the cases of a rollout.

    Attributes:
        observations: by guard, then by cell and version.
        signs: of sites.
    """

    observations: dict[str, dict[ObservationKey, GuardObservations]]
    signs: LiveSiteSigns

    def find_moved_cases(self) -> Ints:
        """Return the cases that records moved: to another site, window, time or unit."""
        if not self.signs.cases:
            return EMPTY_NUMBERS
        ids = np.sort(np.concatenate([part.case_ids for part in self.signs.cases.values()]))
        return np.unique(ids[1:][ids[1:] == ids[:-1]])

    def select(
        self,
        dropped_cases: Ints,
        *,
        since: int,
        tick: int,
        silence_span: int | None,
        kept_since: int | None = None,
    ) -> "GuardMemory":
        """Return what guards may still use, without some cases; all in microseconds.

        Args:
            dropped_cases: cases that are left out.
            since: from when on records are used.
            tick: length of a slot.
            silence_span: before a site's last case records are used from so long ago on.
            kept_since: earlier ones may be deleted; None without a retention.
        """
        selected = GuardMemory({}, LiveSiteSigns())
        starts: dict[str, int] = {}
        if silence_span is not None:
            starts = {
                site: min(since, int(cases.at[-1]) - silence_span)
                for site, cases in self.signs.cases.items()
                if len(cases.at)
            }
            if kept_since is not None and kept_since < since:
                starts = {site: max(start, kept_since) for site, start in starts.items()}
        for guard_id, parts in self.observations.items():
            selected.observations[guard_id] = {  # a slot begins one tick before its instant
                key: part.select_since(-(-starts.get(key[0], since) // tick) + 1).drop_cases(
                    dropped_cases
                )
                for key, part in parts.items()
            }
        observed_cases = selected.list_observed_cases()
        for site, cases in self.signs.cases.items():
            is_used = cases.at >= starts.get(site, since)
            if not is_used.all():  # else nobody would notice that a record moves such a case later
                is_used[~is_used] = np.isin(cases.case_ids[~is_used], observed_cases)
            is_used &= ~np.isin(cases.case_ids, dropped_cases)
            selected.signs.cases[site] = cases if is_used.all() else cases.take(is_used)
        return selected

    def list_observed_cases(self) -> Ints:
        """Return the cases of all observations, in any order."""
        parts = (part for parts in self.observations.values() for part in parts.values())
        return np.concatenate([EMPTY_NUMBERS, *(part.case_ids for part in parts)])

    def equals(self, other: "GuardMemory") -> bool:
        """Return whether both hold the same rows, in whatever order within a slot or instant."""
        return self.list_rows() == other.list_rows()

    def list_rows(self) -> dict[tuple[str, ...], bytes]:
        """Return the sorted rows of each part as bytes."""
        rows: dict[tuple[str, ...], bytes] = {
            (guard_id, *key): _sort_rows(part)
            for guard_id, parts in self.observations.items()
            for key, part in parts.items()
            if len(part)
        }
        signs = self.signs.cases.items()
        return rows | {(site,): _sort_rows(cases) for site, cases in signs if len(cases.at)}


def _sort_rows(part: GuardObservations | CaseInstants) -> bytes:
    columns = [getattr(part, f.name) for f in fields(part)]
    filled = [column for column in columns if len(column)]
    order = np.lexsort(filled)
    return b"".join(column[order].tobytes() for column in filled)


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

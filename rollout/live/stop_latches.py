"""Stops, narrowings and damage that this replica obeys from memory, before anything is written.

A stop or narrowing is latched until the ledger has it. If the database can't take it, a small file
keeps it for the next start; so does a command, for the replicas of its machine. Damage is latched
until an admin clears it; a file keeps it, too.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from rollout.data.ledger.scopes import (
    ALL_ROLLOUTS,
    Damage,
    PendingStop,
    SafetyRows,
    UnwrittenOrder,
    format_actor,
    format_cells,
    parse_actor,
    parse_cells,
)
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.stops import StopOrder, StopTarget
from rollout.kernel.atomic_files import write_files_atomically
from rollout.kernel.calendar.instants import Cell

log = logging.getLogger("rollout.stops")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingNarrowing(UnwrittenOrder):
    """A narrowing on its way to the ledger."""

    to: str


PendingOrder = PendingStop | PendingNarrowing
KeptRow = PendingOrder | Damage


@dataclass(frozen=True, slots=True)
class KeptRows:
    """What files keep."""

    stops: tuple[PendingStop, ...] = ()
    narrowings: tuple[PendingNarrowing, ...] = ()
    damages: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class LatchFolder:
    """A folder with one small file for each latched stop, narrowing and damage.

    Without a path nothing is kept, and a restart forgets what only memory has.
    """

    path: Path | None = None

    def save(self, row: KeptRow) -> bool:
        """Write a file; return whether it is on the disk."""
        if self.path is None:
            return False
        content = json.dumps(_to_json(row), indent=1).encode()
        try:
            write_files_atomically(self.path, {_name_file(row): content})
        except (OSError, ValueError) as error:
            log.warning("%s could not be kept in %s: %s", _name_file(row), self.path, error)
            return False
        return True

    def delete(self, row: KeptRow) -> None:
        """Delete a file, if there is one."""
        if self.path is None:
            return
        try:
            (self.path / _name_file(row)).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s in %s is over: delete it: %s", _name_file(row), self.path, error)

    def load(self) -> KeptRows:
        """Return what the files keep; nothing before there is a folder.

        Raises:
            ValueError: the folder or a file can't be read; the message names it.
        """
        rows = [_load_row(path) for path in _list_files(self.path)] if self.path else []
        return KeptRows(
            tuple(row for row in rows if isinstance(row, PendingStop)),
            tuple(row for row in rows if isinstance(row, PendingNarrowing)),
            tuple(row for row in rows if isinstance(row, Damage)),
        )


def _list_files(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted; `Path.glob` takes one that can't be read for empty."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(
            f"{folder} keeps stops and can't be read ({error}); correct the folder or"
            " ROLLOUT_LATCH_FOLDER"
        ) from error


def _load_row(path: Path) -> KeptRow | None:
    """Return what a file keeps; None if it was deleted meanwhile."""
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} keeps a stop or damage and can't be read ({error}); stop what it"
            " names by hand, then delete it"
        ) from error


NO_FOLDER: Final = LatchFolder()


def _name_file(row: KeptRow) -> str:
    if isinstance(row, PendingStop):
        return f"stop-{row.id}.json"
    if isinstance(row, PendingNarrowing):
        return f"narrowing-{row.id}.json"
    return f"damage-{sha256(row.rollout.encode()).hexdigest()[:16]}.json"


def _to_json(row: KeptRow) -> dict[str, Any]:
    if isinstance(row, Damage):
        found_at = row.found_at.isoformat()
        return {"damaged_rollout": row.rollout, "reason": row.reason, "found_at": found_at}
    own = {"drill": row.drill} if isinstance(row, PendingStop) else {"narrow_to": row.to}
    return own | {
        "id": row.id,
        "rollout": row.rollout,
        "cells": format_cells(row.cells),
        "by": format_actor(row.by),
        "reason": row.reason,
        "at": row.at.isoformat(),
        "access_head": row.access_head,
        "order": None if row.order is None else asdict(row.order),
    }


def _from_json(values: Mapping[str, Any]) -> KeptRow:
    if "damaged_rollout" in values:
        found_at = datetime.fromisoformat(values["found_at"])
        return Damage(values["damaged_rollout"], values["reason"], found_at)
    shared: dict[str, Any] = {
        "id": values["id"],
        "rollout": values["rollout"],
        "cells": parse_cells(values["cells"]),
        "by": parse_actor(values["by"]),
        "reason": values["reason"],
        "at": datetime.fromisoformat(values["at"]),
        "access_head": values["access_head"],
        "order": _parse_order(values.get("order")),
    }
    if "narrow_to" in values:
        return PendingNarrowing(to=values["narrow_to"], **shared)
    return PendingStop(drill=values["drill"], **shared)


def _parse_order(values: Mapping[str, Any] | None) -> StopOrder | None:
    """Return what was asked; None with cells."""
    if values is None:
        return None
    target = values["target"]
    return StopOrder(
        StopTarget(
            cells=tuple(Cell(**cell) for cell in target["cells"]),
            sites=tuple(target["sites"]),
            windows=tuple(target["windows"]),
            is_everything=target["is_everything"],
        ),
        tuple(AssignedRole(**role) for role in values["role_assignments"]),
    )


MAX_UNRESOLVED: Final = 100
"""Orders of one user that a replica latches without knowing their cells."""


@dataclass(slots=True)
class StopLatches:
    """Stops, narrowings and damage in one replica's memory.

    An order whose cells the same user's latched orders hold is not latched again, so that memory
    is bounded by cells and users.

    Attributes:
        folder: files that a restart finds.
        version: changes with what is latched, so that no state without it is used any longer.
        changed: set when there is something to write.
        file_fault: which file of the folder can't be read, or "".
    """

    folder: LatchFolder = NO_FOLDER
    version: int = 0
    changed: Event = field(default_factory=Event)
    file_fault: str = ""
    _orders: Mapping[str, PendingOrder] = field(default_factory=dict)
    _in_progress: frozenset[str] = frozenset()
    _damages: Mapping[str, Damage] = field(default_factory=dict)
    _saved: frozenset[KeptRow] = frozenset()
    _left: frozenset[str] = frozenset()
    _lock: Lock = field(default_factory=Lock)
    # files and memory change together under this lock; latching never waits for a disk
    _file_lock: Lock = field(default_factory=Lock)

    def open_folder(self, folder: LatchFolder) -> None:
        """Latch what files keep from before a restart, and keep new ones there.

        Raises:
            ValueError: a file can't be read; the message names it.
        """
        rows = folder.load()
        with self._lock:
            self.folder = folder
            self._orders = {**self._orders, **{stop.id: stop for stop in rows.stops}}
            self._damages = {**self._damages, **{row.rollout: row for row in rows.damages}}
            self.version += 1

    def latch(self, order: PendingOrder) -> bool:
        """Obey an order from now on, which its request is writing; return whether it is obeyed."""
        with self._lock:
            if order.id in self._orders or _is_covered(order, self._orders):
                return True
            if (
                not order.cells
                and sum(
                    not other.cells and other.by.name == order.by.name
                    for other in self._orders.values()
                )
                >= MAX_UNRESOLVED
            ):
                return False
            self._in_progress |= {order.id}
            self._orders = {**self._orders, order.id: order}
            self.version += 1
        return True

    def name_cells(self, order: PendingOrder) -> None:
        """Obey an order in its cells alone, now that they are known."""
        with self._lock:
            if order.id in self._orders:
                self._orders = {**self._orders, order.id: order}
                self.version += 1

    def _obey(self, order: PendingOrder) -> None:
        with self._lock:
            self._orders = {**self._orders, order.id: order}
            self.version += 1

    def release(self, order: PendingOrder) -> None:
        """Leave an order that is still latched to the thread that retries."""
        with self._lock:
            self._in_progress -= {order.id}
            if order.id in self._orders:
                self.changed.set()

    def remove(self, order: PendingOrder) -> None:
        """Forget an order that the ledger has, or that was refused."""
        with self._file_lock:
            with self._lock:
                self._orders = {key: row for key, row in self._orders.items() if key != order.id}
                self._in_progress -= {order.id}
                self.version += 1
            self.folder.delete(order)

    def leave(self, order: PendingOrder) -> None:
        """Forget an order of another database; its file stays, and is not obeyed again here."""
        with self._lock:
            self._orders = {key: row for key, row in self._orders.items() if key != order.id}
            self._in_progress -= {order.id}
            self._left |= {order.id}
            self.version += 1

    def add_damage(self, damage: Damage) -> None:
        """Hand a rollout to humans, or all; an earlier finding stays."""
        with self._lock:
            self._damages = {damage.rollout: damage, **self._damages}
            self.version += 1
        self.changed.set()

    def remove_damage(self, damage: Damage) -> None:
        """Forget damage that was cleared."""
        with self._file_lock:
            with self._lock:
                self._damages = {
                    key: row for key, row in self._damages.items() if key != damage.rollout
                }
                self.version += 1
            self.folder.delete(damage)

    def obey_files(self) -> tuple[PendingNarrowing, ...]:
        """Obey what commands on this machine left in files; return the narrowings among it.

        Raises:
            ValueError: a file can't be read; until it can, humans decide.
        """
        with self._file_lock:
            try:
                rows = self.folder.load()
            except ValueError as error:
                self.file_fault = str(error)  # it may be a stop of anything
                raise
            self.file_fault = ""
            known_ids = self._orders.keys() | self._left
            narrowings = tuple(row for row in rows.narrowings if row.id not in known_ids)
            for stop in rows.stops:
                if stop.id not in known_ids:
                    self._obey(stop)
            for narrowing in narrowings:
                self._obey(narrowing)
        return narrowings

    def save(self, row: KeptRow) -> bool:
        """Keep in a file what is latched; return whether it is on the disk."""
        with self._file_lock:  # what ends meanwhile deletes its file after this
            return self._is_latched(row) and self.folder.save(row)

    def save_all(self) -> None:
        """Keep in files what the database may lack when this process ends."""
        rows: frozenset[KeptRow] = frozenset((*self.stops, *self.damages))
        self._saved &= rows
        self._saved |= {row for row in rows - self._saved if self.save(row)}

    def _is_latched(self, row: KeptRow) -> bool:
        if isinstance(row, Damage):
            return self._damages.get(row.rollout) == row
        return self._orders.get(row.id) == row

    def is_in_progress(self, order: PendingOrder) -> bool:
        """Return whether a request is writing the order."""
        return order.id in self._in_progress

    @property
    def stops(self) -> tuple[PendingStop, ...]:
        """Return the latched stops."""
        return tuple(row for row in self._orders.values() if isinstance(row, PendingStop))

    @property
    def narrowings(self) -> tuple[PendingNarrowing, ...]:
        """Return the latched narrowings that no request is writing, oldest first."""
        if not self._orders:
            return ()
        return tuple(
            row
            for row in self._orders.values()
            if isinstance(row, PendingNarrowing) and not self.is_in_progress(row)
        )

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Return the latched damage."""
        return tuple(self._damages.values())

    def add_to_rows(self, rows: SafetyRows, rollout_name: str) -> SafetyRows:
        """Return stored rows of a rollout with those in memory, narrowings as stops."""
        if not self._orders and not self._damages:
            return rows
        orders = tuple(map(_as_stop, self._orders.values()))
        latched = SafetyRows(orders, self.damages).select_rollout(rollout_name)
        stops = {stop.id: stop for stop in (*rows.stops, *latched.stops)}
        damages = {damage.rollout: damage for damage in (*rows.damages, *latched.damages)}
        return SafetyRows(tuple(stops.values()), tuple(damages.values()))

    def is_damaged(self, rollout_name: str) -> bool:
        """Return whether a rollout's rows, or any, were found damaged."""
        damages = self._damages
        return rollout_name in damages or ALL_ROLLOUTS in damages if damages else False


def _as_stop(order: PendingOrder) -> PendingStop:
    """Return an order as a stop: humans decide the cells of a narrowing until it is written."""
    if isinstance(order, PendingStop):
        return order
    return PendingStop(
        order.id, order.rollout, order.cells, order.by, order.reason, drill=False, at=order.at
    )


def _is_covered(order: PendingOrder, latched: Mapping[str, PendingOrder]) -> bool:
    """Return whether latched orders of the same user and kind do all that `order` asks."""
    others = [other for other in latched.values() if _read_kind(other) == _read_kind(order)]
    if not order.cells:  # what it will name is known only if the same was asked
        return any(not other.cells and other.order == order.order for other in others)
    return {cell for other in others for cell in other.cells}.issuperset(order.cells)


def _read_kind(order: PendingOrder) -> tuple[object, ...]:
    effect = order.drill if isinstance(order, PendingStop) else order.to
    return type(order), order.rollout, order.by.name, effect

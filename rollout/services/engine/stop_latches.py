"""Stops and damage that this replica obeys from memory, before anything is written.

A stop is latched until the ledger has it. If the database can't take it, a small file keeps it for
the next start; so does a command, for the replicas of its machine. Damage is latched until an admin
clears it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.commands import Actor
from rollout.services.support.atomic_files import write_files_atomically
from rollout.store.ledger.pending_stops import (
    ALL_ROLLOUTS,
    Damage,
    PendingStop,
    SafetyRows,
    format_actor,
    format_cells,
    parse_actor,
    parse_cells,
)

log = logging.getLogger("rollout.stops")


@dataclass(frozen=True, slots=True)
class PendingNarrowing:
    """A narrowing on its way to the ledger, as a file keeps it."""

    id: str
    rollout: str
    cells: tuple[Cell, ...]
    to: str
    by: Actor
    reason: str
    at: datetime
    access_head: int | None = None


KeptRow = PendingStop | PendingNarrowing | Damage


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
        """Return what the files keep.

        Raises:
            ValueError: a file can't be read; the message names it.
        """
        paths = sorted(self.path.glob("*.json")) if self.path else ()
        rows = [_load_row(path) for path in paths]
        return KeptRows(
            tuple(row for row in rows if isinstance(row, PendingStop)),
            tuple(row for row in rows if isinstance(row, PendingNarrowing)),
            tuple(row for row in rows if isinstance(row, Damage)),
        )


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


@dataclass(frozen=True, slots=True, eq=False)
class FailedNarrowing:
    """A narrowing that the database could not take; `run` repeats it, `row` is in a file."""

    rollout: str
    run: Callable[[], object]
    row: PendingNarrowing | None = None


NO_FOLDER: Final = LatchFolder()


@dataclass(slots=True)
class StopLatches:
    """Stops, damage and failed narrowings in one replica's memory.

    Attributes:
        folder: files that a restart finds.
        version: changes with stops and damage, so that no state without them is used any longer.
        changed: set when there is something to write.
        file_fault: which file of the folder can't be read, or "".
    """

    folder: LatchFolder = NO_FOLDER
    version: int = 0
    changed: Event = field(default_factory=Event)
    file_fault: str = ""
    _narrowings: tuple[FailedNarrowing, ...] = ()
    _in_progress: frozenset[str] = frozenset()
    _stops: Mapping[str, PendingStop] = field(default_factory=dict)
    _damages: Mapping[str, Damage] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def open_folder(self, folder: LatchFolder) -> None:
        """Latch what files keep from before a restart, and keep new ones there.

        Raises:
            ValueError: a file can't be read; the message names it.
        """
        rows = folder.load()
        with self._lock:
            self.folder = folder
            self._stops = {**self._stops, **{stop.id: stop for stop in rows.stops}}
            self._damages = {**self._damages, **{row.rollout: row for row in rows.damages}}
            self.version += 1

    def add_stop(self, stop: PendingStop) -> None:
        """Obey a stop from now on; its request is writing it."""
        with self._lock:
            self._in_progress |= {stop.id}
        self.obey_stop(stop)

    def obey_stop(self, stop: PendingStop) -> None:
        """Obey a stop that no request is writing."""
        with self._lock:
            self._stops = {**self._stops, stop.id: stop}
            self.version += 1

    def release_stop(self, stop: PendingStop) -> None:
        """Leave a stop to the thread that retries, as its request has failed."""
        with self._lock:
            self._in_progress -= {stop.id}
        self.changed.set()

    def remove_stop(self, stop: PendingStop) -> None:
        """Forget a stop that the ledger has, or that was refused."""
        with self._lock:
            self._stops = {key: row for key, row in self._stops.items() if key != stop.id}
            self._in_progress -= {stop.id}
            self.version += 1
        self.folder.delete(stop)

    def add_damage(self, damage: Damage) -> None:
        """Hand a rollout to humans, or all; an earlier finding stays."""
        with self._lock:
            self._damages = {damage.rollout: damage, **self._damages}
            self.version += 1
        self.changed.set()

    def remove_damage(self, damage: Damage) -> None:
        """Forget damage that was cleared."""
        with self._lock:
            self._damages = {
                key: row for key, row in self._damages.items() if key != damage.rollout
            }
            self.version += 1
        self.folder.delete(damage)

    def add_narrowing(self, narrowing: FailedNarrowing) -> None:
        """Keep a failed narrowing, to run it again."""
        with self._lock:
            self._narrowings = (*self._narrowings, narrowing)
        self.changed.set()

    def remove_narrowing(self, narrowing: FailedNarrowing) -> None:
        """Forget a narrowing that was done or refused."""
        with self._lock:
            self._narrowings = tuple(n for n in self._narrowings if n is not narrowing)
        if narrowing.row is not None:
            self.folder.delete(narrowing.row)

    @property
    def narrowings(self) -> tuple[FailedNarrowing, ...]:
        """Return the failed narrowings, oldest first."""
        return self._narrowings

    def is_in_progress(self, stop: PendingStop) -> bool:
        """Return whether a request is writing the stop."""
        return stop.id in self._in_progress

    @property
    def stops(self) -> tuple[PendingStop, ...]:
        """Return the latched stops."""
        return tuple(self._stops.values())

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Return the latched damage."""
        return tuple(self._damages.values())

    def add_to_rows(self, rows: SafetyRows, rollout_name: str) -> SafetyRows:
        """Return stored rows of a rollout with those in memory."""
        if not self._stops and not self._damages:
            return rows
        latched = SafetyRows(self.stops, self.damages).select_rollout(rollout_name)
        stops = {stop.id: stop for stop in (*rows.stops, *latched.stops)}
        damages = {damage.rollout: damage for damage in (*rows.damages, *latched.damages)}
        return SafetyRows(tuple(stops.values()), tuple(damages.values()))

    def is_damaged(self, rollout_name: str) -> bool:
        """Return whether a rollout's rows, or any, were found damaged."""
        damages = self._damages
        return rollout_name in damages or ALL_ROLLOUTS in damages if damages else False


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
    }
    if "narrow_to" in values:
        return PendingNarrowing(to=values["narrow_to"], **shared)
    return PendingStop(drill=values["drill"], **shared)

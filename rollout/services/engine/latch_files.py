"""Files of stops, narrowings and damage, for the next start and for a machine's replicas."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.permissions import AssignedRole
from rollout.core.scope.stop_targets import StopOrder, StopTarget
from rollout.services.support.atomic_files import write_files_atomically
from rollout.store.ledger.pending_stops import (
    Damage,
    PendingStop,
    UnwrittenOrder,
    format_actor,
    format_cells,
    parse_actor,
    parse_cells,
)

log = logging.getLogger("rollout.stops")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingNarrowing(UnwrittenOrder):
    """A narrowing on its way to the ledger."""

    to: str


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

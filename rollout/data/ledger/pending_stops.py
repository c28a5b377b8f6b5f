"""Stops that every replica obeys although the ledger lacks them, and damaged rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, insert, select

from rollout.data.database.session import Transaction
from rollout.data.tables.tables import damages, pending_stops
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.stop_targets import StopOrder
from rollout.kernel.calendar.sites import Cell

ALL_ROLLOUTS = ""
"""The rollout of damage that can't be told apart."""


@dataclass(frozen=True, slots=True)
class UnwrittenOrder:
    """A stop or narrowing on its way to the ledger.

    Attributes:
        cells: (), which holds all, until `order` can be resolved.
        order: what was asked; in memory and files only.
    """

    id: str
    rollout: str
    cells: tuple[Cell, ...]
    by: Actor
    reason: str
    at: datetime
    access_head: int | None = None
    order: StopOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStop(UnwrittenOrder):
    """A stop on its way to the ledger."""

    drill: bool


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows of a rollout, or of all, that can't be read."""

    rollout: str
    reason: str
    found_at: datetime


@dataclass(frozen=True, slots=True)
class SafetyRows:
    """Pending stops, and damage by rollout."""

    stops: tuple[PendingStop, ...] = ()
    damages: tuple[Damage, ...] = ()

    def select_rollout(self, rollout_name: str) -> "SafetyRows":
        """Return the rows that concern a rollout."""
        if not self.stops and not self.damages:
            return self
        return SafetyRows(
            tuple(stop for stop in self.stops if stop.rollout == rollout_name),
            tuple(row for row in self.damages if row.rollout in {ALL_ROLLOUTS, rollout_name}),
        )


NO_SAFETY_ROWS: Final = SafetyRows()


def load_safety_rows(transaction: Transaction) -> SafetyRows:
    """Return all pending stops and all damage."""
    stop_rows = transaction.execute(select(pending_stops).order_by(pending_stops.c.id))
    damage_rows = transaction.execute(select(damages).order_by(damages.c.rollout))
    return SafetyRows(
        tuple(
            PendingStop(
                row.id,
                row.rollout,
                parse_cells(row.cells),
                parse_actor(row.actor),
                row.reason,
                row.at,
                row.access_head,
                drill=bool(row.drill),
            )
            for row in stop_rows
        ),
        tuple(Damage(row.rollout, row.reason, row.found_at) for row in damage_rows),
    )


def store_pending_stop(transaction: Transaction, stop: PendingStop) -> None:
    """Store a stop, which every replica then obeys; repeating it is safe."""
    delete_pending_stop(transaction, stop.id)
    transaction.execute(
        insert(pending_stops).values(
            id=stop.id,
            rollout=stop.rollout,
            cells=format_cells(stop.cells),
            actor=format_actor(stop.by),
            reason=stop.reason,
            drill=int(stop.drill),
            at=stop.at,
            access_head=stop.access_head,
        )
    )


def delete_pending_stop(transaction: Transaction, stop_id: str) -> bool:
    """Delete a stop that the ledger has; return whether it was there."""
    query = delete(pending_stops).where(pending_stops.c.id == stop_id)
    return bool(transaction.execute(query).rowcount)


def store_damage(transaction: Transaction, damage: Damage) -> None:
    """Store that a rollout's rows can't be read; an earlier finding stays."""
    query = select(damages.c.rollout).where(damages.c.rollout == damage.rollout)
    if transaction.execute(query).first() is None:
        values = {"rollout": damage.rollout, "reason": damage.reason, "found_at": damage.found_at}
        transaction.execute(insert(damages).values(values))


def delete_damages(transaction: Transaction) -> None:
    """Delete all damage, once it was checked."""
    transaction.execute(delete(damages))


def format_cells(cells: tuple[Cell, ...]) -> list[list[str]]:
    """Return cells as JSON values."""
    return [[cell.site, cell.window] for cell in cells]


def parse_cells(values: list[list[str]]) -> tuple[Cell, ...]:
    """Return cells from JSON values."""
    return tuple(Cell(site, window) for site, window in values)


def format_actor(actor: Actor) -> dict[str, object]:
    """Return an actor as JSON values."""
    return {
        "name": actor.name,
        "groups": list(actor.groups),
        "is_service_account": actor.is_service_account,
    }


def parse_actor(values: Mapping[str, object]) -> Actor:
    """Return an actor from JSON values."""
    groups = values["groups"]
    assert isinstance(groups, list)  # noqa: S101 - as written
    return Actor(str(values["name"]), tuple(map(str, groups)), bool(values["is_service_account"]))

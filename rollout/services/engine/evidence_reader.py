"""What was counted of some cells, read from the store for whoever looks: people and commands.

It is kept from one look to the next, so that a look costs what is new since the last one.
"""

from collections.abc import Iterable, Mapping
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import event_of
from rollout.core.policy.cell_evidence import Known
from rollout.core.policy.policy import Guard
from rollout.core.scope.events import Event, PolicyApplied
from rollout.services.engine.rollout_state import Standing, kept_policy
from rollout.services.engine.stage_history import Past
from rollout.store.counting.counted_units import Counted
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.evidence import Evidence
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.tally.evidence_view import Sight
from rollout.tally.unit_arrays import Bools, Ints
from rollout.tally.unit_buffer import KeptUnits

Key = tuple[Cell, str]
_NONE: Ints = np.empty(0, dtype=np.int64)


class Looking:
    """One rollout as it was looked at last."""

    def __init__(self) -> None:
        """Nobody has looked yet."""
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self._past = Past()
        self._events: list[Event] = []
        self._units: KeptUnits | None = None
        self._revision, self._hash, self.through = 0, "", -1

    def sights(
        self, database: Database, stood: Standing, cells: Iterable[Cell]
    ) -> dict[Key, Sight]:
        """Return what the engine was shown of every version in some cells."""
        with self._lock:
            try:
                with database.reading() as transaction:
                    self._read(transaction, stood)
            except BaseException:
                self._forget()  # it may have been read in part
                raise
            versions = stood.scope.versions
            return {
                (cell, version): self._sight(stood, cell, version)
                for cell in cells
                for version in versions
            }

    def told(self, database: Database, stood: Standing) -> tuple[Event, ...]:
        """Return the ledger's events up to a standing."""
        with self._lock:
            try:
                with database.reading() as transaction:
                    self._hear(transaction, stood)
            except BaseException:
                self._forget()  # it may have been read in part
                raise
            return tuple(self._events)

    def _read(self, transaction: Transaction, stood: Standing) -> None:
        self._hear(transaction, stood)
        if self._units is None:
            self._units, self.through = KeptUnits(stood.policy, self._past.meanings), -1
        self._count(transaction, stood, self._units)

    def _hear(self, transaction: Transaction, stood: Standing) -> None:
        """Read what happened since; under another policy units are counted anew."""
        ledger = Ledger(transaction, stood.rollout)
        if self._revision > stood.scope.revision:
            self._forget()  # somebody else has looked at a newer one already
        if self._revision:
            known_row = next(ledger.rows(after=self._revision - 1, until=self._revision), None)
            if known_row is None or known_row.hash != self._hash:
                self._forget()  # a backup was restored
        rows = list(ledger.rows(after=self._revision, until=stood.scope.revision))
        events = [event_of(row) for row in rows]
        applied_hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
        texts = Policies(transaction, stood.rollout).texts(applied_hashes)
        policies = {policy_hash: kept_policy(text) for policy_hash, text in texts.items()}
        self._past.take(events, policies.__getitem__)
        self._events += events
        if rows:
            self._revision, self._hash = rows[-1].revision, rows[-1].hash
        if applied_hashes:
            self._units = None

    def _count(self, transaction: Transaction, stood: Standing, units: KeptUnits) -> None:
        last_slot = Evidence(transaction, stood.rollout).through()
        for frame in Counted(transaction, stood.rollout).frames(
            after=self.through, until=last_slot
        ):
            units.add(frame)
        self.through = last_slot
        self._past.mark(last_slot - 1)

    def _sight(self, stood: Standing, cell: Cell, version: str) -> Sight:
        assert self._units is not None  # noqa: S101 - read just before
        return Sight(
            cell=cell,
            version=version,
            rows=self._units.rows((cell, version)),
            kinds=self._units.kinds,
            policy=stood.policy,
            state=stood.scope.state(cell, version),
            first_seen=stood.scope.versions[version].first_seen,
            timeline=self._past.of(cell),
            shares=self._past.shares,
            band_of=lambda rows: rows.unit,  # kept units carry their bands
            feeds=NO_FEEDS,
        )


_looking: WeakKeyDictionary[Database, dict[str, Looking]] = WeakKeyDictionary()
_lock = Lock()


def _of(database: Database, stood: Standing) -> Looking:
    with _lock:
        return _looking.setdefault(database, {}).setdefault(stood.rollout.name, Looking())


def sights_of(database: Database, stood: Standing, cells: Iterable[Cell]) -> Mapping[Key, Sight]:
    """Return what the engine was shown of every version in some cells, without guards' readings.

    Args:
        database: where units were counted.
        stood: how the rollout stands.
        cells: those asked about; a version that was never counted there shows nothing.
    """
    return _of(database, stood).sights(database, stood, cells)


def events_of(database: Database, stood: Standing) -> tuple[Event, ...]:
    """Return everything that happened up to a standing, in order; kept from look to look."""
    return _of(database, stood).told(database, stood)


def known_of(database: Database, stood: Standing, cell: Cell, version: str) -> Known:
    """Return the evidence of one version in one cell; a version that was never seen has none."""
    evidence_reader = _of(database, stood)
    evidence_view = evidence_reader.sights(database, stood, (cell,)).get((cell, version))
    if evidence_view is None:
        return Known()
    last_slot = evidence_reader.through
    return Known(
        attempt=evidence_view.attempt.at(last_slot),
        entered=evidence_view.entered.at(last_slot),
        spans={stage: span.at(last_slot) for stage, span in evidence_view.spans.items()},
    )


class NoFeeds:
    """Nothing beside verdicts: who reads sights here looks at gates alone."""

    until = 0

    def answers(self, cell: Cell, version: str, guard: Guard) -> tuple[Ints, Ints, Bools]:  # noqa: ARG002 - the form of feeds
        """Return no answers."""
        return _NONE, _NONE, np.empty(0, dtype=bool)

    def heard(self, site: str) -> Ints:  # noqa: ARG002 - the form of feeds
        """Return no slots."""
        return _NONE


NO_FEEDS = NoFeeds()

"""A run of the service replayed: its records, the commands of its people, the slots it ticked."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np

from rollout.data.ledger.ledger import Ledger
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import SiteSignStore
from rollout.data.records.versions import VersionStore
from rollout.data.tables.record_tables import decode_instant
from rollout.engine.decide.commands import AddVersion, Tick
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import PolicyApplied, RecordsCounted, RolloutCreated
from rollout.engine.slots.engine import Replay, SlotReadings
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.kernel.calendar.instants import to_instant, to_micros
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import prepared
from tests.promises.live_world import POLICIES, SITES, Ticked


def micros_of(instants):
    return np.array([to_micros(at) for at in instants], dtype=np.int64)


class Again(Replay):
    """Replay's engine, with people who do what they did, and ticks where there were some."""

    def _start(self, first_seen):
        self._events, self._seen, self._seals = [], first_seen, {}

    def _queue_approvals(self, proposal_id, since):
        """Nobody is simulated."""

    def through(self, created, log, seals):
        """Go through what was done, in its order; return the events.

        `seals` are the live rows about counted records: a replay has none, and ids count rows.
        """
        self._scope, self._seals = apply_events(()), {seal.slot: seal for seal in seals}
        self._append_events(created)
        for done in log:
            if isinstance(done, Ticked):
                self._see(to_instant(done.slot, self._policy.tick))
                self._now = done.now
                self._run_tick(done.slot)
            else:
                self._append_events(decide(done, self._scope, self._policy))
        return tuple(self._events)

    def _see(self, until):
        for at, version in sorted((at, version) for version, at in self._seen.items()):
            if at <= until and version not in self._scope.versions:
                self._append_events(
                    decide(AddVersion(at=at, version=version), self._scope, self._policy)
                )

    def _decide_cells(self, slot, cells):
        """As replay decides, at the time of the live pass."""
        sights = {key: self._get_view(key) for key in self._list_known_keys(cells)}
        judged = to_instant(slot, self._policy.tick)
        evidence = SlotReadings(sights, lambda key: sights[key].read_evidence(slot))
        fresh = SlotReadings(sights, lambda key: self._read_fresh(sights[key], slot))
        tick = Tick(at=self._now, evidence=evidence, fresh=fresh, slot=judged)
        seal = [self._seals[judged]] if judged in self._seals else []
        return (*seal, *decide(tick, self._scope, self._policy))


class Feeds(HistoryFeeds):
    """A history's feeds, and signs of life; what is not heard of is silent up to the end."""

    def __init__(self, records, history, policy, beats, until):
        super().__init__(records, history, policy)
        self._heartbeats, self.last_slot = beats, until

    def read_signs(self, site):
        return replace(super().read_signs(site), pings=micros_of(self._heartbeats[site]))


def replayed(world):
    """Return the events of a run, and those of its replay."""
    policy = next(iter(p for p in POLICIES.values() if p.hash == world.rows[1][4]["policy_hash"]))
    with world.databases[0].begin_read() as transaction:
        live = tuple(Ledger(transaction, world.rollout).list_events())
        versions = VersionStore(transaction, world.rollout).list_all()
        stored = StoredHistory(transaction, world.rollout, levers=["alarm"])
        signs = SiteSignStore(transaction, world.rollout)
        history, beats = (
            stored.load_records(),
            {site: [decode_instant(at) for at in signs.load_heartbeats(site)] for site in SITES},
        )
    made = prepared(history, policy, salt=bytes(32))
    first_uses = {name: version.first_seen_at for name, version in versions.items()}
    course = ReplayOptions(approval_delay=None, skip_idle_slots=False)
    until = max(done.slot for done in world.log if isinstance(done, Ticked))
    feeds = Feeds(history, made.placed, policy, beats, until)
    again = Again(made.units, policy, feeds, first_uses, course)
    created = [e for e in live[:2] if isinstance(e, RolloutCreated | PolicyApplied)]
    seals = [event for event in live if isinstance(event, RecordsCounted)]
    return live, again.through(tuple(created), world.log, seals)


def unlike(facts, expected):
    """Return where live and replay part, "" where they don't: the events on both sides there."""
    live_lines, other = list_unsealed_events(facts), list_unsealed_events(expected)
    for number, pair in enumerate(zip_longest(live_lines, other)):
        if pair[0] != pair[1]:
            return f"event {number + 1}:\n live   {pair[0]}\n replay {pair[1]}"
    return ""

"""Everything that people, machines and time do to a rollout, as the steps of a state machine."""

import sys

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from rollout.live.evidence.live_evidence import EvidenceCheck
from tests.promises import live_scenes as scenes
from tests.promises.live_boxes import Boxes
from tests.promises.live_checks import Checks
from tests.promises.live_deeds import Deeds
from tests.promises.live_lots import GOOD, VERSIONS, replicas, spans
from tests.promises.live_replayed import replayed, unlike
from tests.promises.live_world import (
    SITES,
    LiveWorld,
)

BEGUN = (0, 1, 2, 2, scenes.stopped, scenes.raised_by_oneself, scenes.wrong, scenes.unwatched)


class Life(Boxes, Deeds):
    """One rollout's life; `engine` is set by the runner."""

    engine = "sqlite"
    totals = None  # a Counter that outlives a run, where somebody wants to know

    def __init__(self):
        super().__init__()
        self.world = LiveWorld(self.engine)
        self.checks = Checks(self.world)
        self.answers = []  # that a model decides: (question, answer)
        self.held = {}

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:  # what broke is told before what follows from it
                self.checks.follow()
                self.checks.whole()
                self._replay()
                self._tell()
        finally:
            self.world.close()

    def _tell(self):
        if currently_in_test_context():
            for what in self.checks.seen:
                event(what)
        if self.totals is not None:
            self.totals.update(self.checks.seen)

    def _replay(self):
        """Promise 10: the same records, commands and ticks, replayed, give the same events.

        Counted anew, the records also give the same units, digests and readings.
        """
        if self.world.plain:
            live_events, expected = replayed(self.world)
            parted = unlike(live_events, expected)
            assert not parted, parted
            database, name = self.world.databases[0], self.world.rollout.name
            assert EvidenceCheck(database, name).check_all().faults == []
            self.checks.seen["runs replayed"] += 1
            self.checks.seen["events replayed"] += len(live_events)

    # How it begins

    @initialize(begun=st.sampled_from(BEGUN))
    def begins(self, begun):
        """Let people widen both cells, so that there is something to take away; or tell a scene."""
        if isinstance(begun, int):
            self.climb(begun)
        else:
            begun(self)

    def climb(self, rung):
        self.traffic(2, GOOD, "v1", True)
        for _ in range(rung):
            self.world.approve_all()
            self.traffic(1, GOOD, "v1", True)
            self.traffic(2, GOOD, "v1", True)

    def checks_now(self):
        self.checks.follow()
        return self.checks

    # Time

    @rule(span=spans)
    def wait(self, span):
        """Let time pass in which no process looks at anything: downtime, if it is long."""
        self.world.clock.advance(span)

    @rule(replica=replicas)
    def tick(self, replica):
        """Look at what is due; what was missed is one pass."""
        self.world.tick(replica)

    @rule(hours=st.integers(1, 30))
    def quiet_hours(self, hours):
        """Tick through hours in which nothing comes in but signs of life."""
        world = self.world
        for _ in range(min(hours, 8)):
            world.to_next_slot()
            beats = [{"kind": "heartbeat", "site": s, "at": world.now.isoformat()} for s in SITES]
            if hours % 2:
                world.send(beats)
            world.tick()

    # What holds after each step

    @invariant()
    def promises_hold(self):
        """Read the ledger's new rows, ask both replicas, look through what reviewers got."""
        self.checks.follow()
        self.checks.blind()
        self.world.settle()
        for replica in (0, 1):
            rules = [
                self.world.question(self.world.new_case(site, version))
                for site in SITES
                for version in VERSIONS
            ]
            answer = self.world.ask(rules, replica)
            self.checks.answered(rules, answer.json()["answers"], doubted=self._off(replica))
        self.checks.blind()

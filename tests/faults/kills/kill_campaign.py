"""The campaign: one kill after the other, each at a random instant inside a chosen action."""

import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.faults.kills.kill_actions import KillActions
from tests.faults.kills.kill_field import prepare_field
from tests.faults.kills.kill_oracle import KillOracle
from tests.faults.kills.process_marks import ACTIONS
from tests.faults.kills.replica_clients import Acknowledgements, Operators, TrafficThread
from tests.faults.kills.replica_processes import COMMAND, REPLICAS, ReplicaProcesses

FIRST_SCALE, SMALLEST_SCALE = 0.9, 0.05
HIT_GROWTH, MISS_SHRINK = 1.05, 0.8
SETTLE = 1.0
"""Seconds of traffic after the last kill: long enough for a stop that is not obeyed."""
HEADINGS = ("lost", "doubled", "wider", "late_stops", "broken")


@dataclass(frozen=True)
class KillShot:
    """What a kill aims at.

    Attributes:
        action, victim: which action, and which replica is asked for it.
        fraction: after which part of the action's usual time it dies.
    """

    action: str
    victim: int
    fraction: float


def plan_shots(engine, seed):
    """Yield shots without end, the same for the same seed; each action has its share."""
    chance = random.Random(f"{engine} {seed}")  # noqa: S311 - no secret
    while True:
        deck = list(ACTIONS)
        chance.shuffle(deck)
        for action in deck:
            yield KillShot(action, chance.choice(REPLICAS), chance.random())


@dataclass
class KillResult:
    """What came of a campaign, so far.

    Attributes:
        kills: by action, the kills of a process that was inside of it.
        missed: by action, the kills that came before or after it.
        points: by action, the last fault points before the kills inside of it.
        recoveries: by action, the seconds until the replica was ready again.
        counts: of the oracle.
        final_faults: what the commands at the end found.
        is_whole: whether the end was reached.
    """

    engine: str
    seed: int
    kills: Counter = field(default_factory=Counter)
    missed: Counter = field(default_factory=Counter)
    points: defaultdict = field(default_factory=lambda: defaultdict(Counter))
    recoveries: defaultdict = field(default_factory=lambda: defaultdict(list))
    counts: object = None
    final_faults: list[str] = field(default_factory=list)
    is_whole: bool = False
    seconds: float = 0.0

    @property
    def total(self):
        """Return the number of kills that count."""
        return self.kills.total()

    @property
    def worst_recovery(self):
        """Return the longest time until a killed process was back."""
        return max((s for times in self.recoveries.values() for s in times), default=0.0)

    @property
    def faults(self):
        """Return everything that was wrong, with its heading."""
        wrong = [
            f"{heading}: {text}" for heading in HEADINGS for text in self.counts.wrong[heading]
        ]
        return wrong + [f"end: {text}" for text in self.final_faults]


class KillCampaign:
    """One engine's campaign on a database of its own."""

    def __init__(self, fork_server, board, url, folder, engine, seed, mutants=("", "")):
        self._kill_field = prepare_field(url)
        self._processes = ReplicaProcesses(fork_server, board, folder, url, mutants)
        self._oracle = KillOracle(self._kill_field)
        self._acknowledgements = Acknowledgements()
        ports, keys = self._processes.ports, self._kill_field.api_keys
        operators = Operators(ports, keys)
        self._actions = KillActions(
            self._processes, operators, self._oracle, self._acknowledgements, folder, url
        )
        self._traffic = [
            TrafficThread(ports, home, keys["box"], self._acknowledgements) for home in REPLICAS
        ]
        self._scales = dict.fromkeys(ACTIONS, FIRST_SCALE)
        self._seconds = dict.fromkeys(ACTIONS, 0.05)
        self._recovery = None
        self.result = KillResult(engine, seed, counts=self._oracle.counts)

    def run(self, kills, actions=ACTIONS, tell=lambda _: None):
        """Kill until so many kills count; then check everything."""
        started_at = time.monotonic()
        shots = (s for s in plan_shots(self.result.engine, self.result.seed) if s.action in actions)
        try:
            self._start(actions)
            while self.result.total < kills:
                self._shoot(next(shots))
                self.result.seconds = time.monotonic() - started_at
                tell(self.result)
        except KeyboardInterrupt:
            self.result.final_faults.append("interrupted")
        finally:
            self._finish()
            self.result.seconds = time.monotonic() - started_at
        return self.result

    def close(self):
        """End the replicas and let go of the database."""
        self._processes.close()
        self._oracle.close()

    def _start(self, actions):
        for ready in [self._processes.start(replica) for replica in REPLICAS]:
            ready.result()
        for thread in self._traffic:
            thread.start()
        for action in actions:  # how long each takes, and that it works
            self._actions.run(action, 0, None)
            self._measure(action)

    def _shoot(self, shot):
        delay = shot.fraction * self._scales[shot.action] * self._seconds[shot.action]

        def kill(number, pid=None):
            time.sleep(delay)
            death = (
                self._processes.kill_command(pid) if pid is not None else self._processes.kill(number)
            )
            if number != COMMAND:
                self._recovery = self._processes.start(number)
            return death

        self._recovery = None
        death = self._actions.run(shot.action, shot.victim, kill)
        back_at = time.monotonic() if self._recovery is None else self._recovery.result()
        self._note(shot.action, death, back_at - death.at)
        self._measure(shot.action)
        self._oracle.check(*self._acknowledgements.take())

    def _note(self, action, death, seconds):
        """Count a kill, if the process died inside the action."""
        if death.is_killed and action in death.inside:
            self.result.kills[action] += 1
            self.result.points[action][death.point] += 1
            self.result.recoveries[action].append(seconds)
            self._scales[action] = min(1.0, self._scales[action] * HIT_GROWTH)
            return
        self.result.missed[action] += 1
        self._scales[action] = max(SMALLEST_SCALE, self._scales[action] * MISS_SHRINK)

    def _measure(self, action):
        seconds = self._processes.measure_action(action)
        if seconds:
            self._seconds[action] = seconds

    def _finish(self):
        """Let traffic go on for a moment, end it, and check everything."""
        time.sleep(SETTLE)
        for thread in self._traffic:
            if thread.is_alive():
                thread.finish()
        self._oracle.check(*self._acknowledgements.take())
        self._oracle.check_whole()
        for words in (("doctor", "--rebuild"), ("ledger", "verify", "--rollout", "trail")):
            if self._processes.run_command(*words) != 0:
                text = self._processes.read_log(COMMAND)
                self.result.final_faults.append(f"{' '.join(words)}: {text}")
        self.result.is_whole = True

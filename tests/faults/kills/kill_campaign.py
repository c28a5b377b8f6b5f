"""The campaign: one kill after the other, each at a random instant inside a chosen action."""

import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.faults.kills.kill_actions import ActionFailedError, KillActions
from tests.faults.kills.kill_field import ROLLOUT, SITES, prepare_field
from tests.faults.kills.kill_oracle import STALENESS, KillOracle
from tests.faults.kills.process_marks import ACTIONS
from tests.faults.kills.replica_clients import Acknowledgements, Operators, TrafficThread
from tests.faults.kills.replica_processes import COMMAND, REPLICAS, ReplicaProcesses

FIRST_SCALE, SMALLEST_SCALE = 0.9, 0.05
FIRST_SECONDS = {
    "ingest": 0.03,
    "tick": 0.06,
    "approve": 0.02,
    "stop": 0.03,
    "resume": 0.02,
    "report": 0.15,
    "migrate": 0.2,
    "backup": 0.05,
}
"""How long each action takes, about, until it is measured."""
HIT_GROWTH, MISS_SHRINK = 1.05, 0.8
MOST = 10
"""Processes that may die for each kill that counts."""
SETTLE_ANSWERS = 5 * len(SITES)
SETTLE_PATIENCE, SETTLE_PAUSE = 20, 0.05  # seconds
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


def share_kills(kills, actions):
    """Return how many kills each action gets.

    >>> share_kills(5, ("ingest", "tick", "stop"))
    {'ingest': 2, 'tick': 2, 'stop': 1}
    """
    share, rest = divmod(kills, len(actions))
    return {action: share + (place < rest) for place, action in enumerate(actions)}


@dataclass
class KillResult:
    """What came of a campaign, so far.

    Attributes:
        kills: by action, the kills of a process that was inside of it.
        missed: by action, the kills that came before or after it.
        points: by action, the last fault points before the kills inside of it.
        recoveries: by action, the seconds until the replica was ready again, or a command done.
        counts: of the oracle.
        final_faults: what the commands at the end found.
        is_whole: whether everything was compared at the end.
        is_interrupted: whether Ctrl-C ended it early.
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
    is_interrupted: bool = False
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
        """Return sentences about what was wrong."""
        return self.counts.wrong + [f"end: {text}" for text in self.final_faults]

    def list_blind_spots(self):
        """Return what there was never any of, so that nothing about it could be wrong."""
        counts = self.counts
        looked_at = {
            "kills inside an action": self.total,
            "acknowledged records": counts.records,
            "acknowledged events": counts.events,
            "answers that a model decides": counts.model_answers,
        }
        return [f"there were no {name}" for name, count in looked_at.items() if not count]


@dataclass(frozen=True)
class KillLimits:
    """How much of a campaign there is.

    Attributes:
        kills: those that count, shared by the actions.
        actions: which are killed.
        most: how many processes may die for that, inside their action or beside it; 0: ten times
            as many.
        final_commands: what has to succeed at the end.
    """

    kills: int
    actions: tuple[str, ...] = ACTIONS
    most: int = 0
    final_commands: tuple[tuple[str, ...], ...] = (
        ("doctor", "--rebuild"),
        ("ledger", "verify", "--rollout", ROLLOUT),
    )


class KillCampaign:
    """One engine's campaign on a database of its own."""

    def __init__(self, processes, urls, engine, seed, mutants=("", "")):
        """Prepare the database.

        `processes` are fork server, board and folder; `urls` as `ReplicaProcesses` has them.
        """
        kill_field, url = prepare_field(urls[0]), urls[0]
        folder, keys = processes[-1], kill_field.api_keys
        self._processes = ReplicaProcesses(*processes, urls, mutants)
        self._oracle, self._acknowledgements = KillOracle(kill_field), Acknowledgements()
        ports = self._processes.ports
        self._actions = KillActions(
            self._processes,
            Operators(ports, keys),
            self._oracle,
            self._acknowledgements,
            folder,
            url,
        )
        self._traffic = [
            TrafficThread(ports, home, keys, self._acknowledgements) for home in REPLICAS
        ]
        self._scales = dict.fromkeys(ACTIONS, FIRST_SCALE)
        self._seconds = dict(FIRST_SECONDS)
        self._recovery = None
        self.result = KillResult(engine, seed, counts=self._oracle.counts)

    def run(self, limits, tell=lambda _: None, is_interrupted=lambda: False):
        """Kill until each action has its share of the kills; then check everything."""
        started_at = time.monotonic()
        try:
            self._start()
            for shot in self._list_shots(limits):
                self._shoot(shot)
                self.result.seconds = time.monotonic() - started_at
                tell(self.result)
                if is_interrupted():
                    self.result.is_interrupted = True
                    break
        except (ActionFailedError, TimeoutError) as error:
            self.result.final_faults.append(f"given up: {error}")
        self._finish(limits.final_commands)
        self.result.seconds = time.monotonic() - started_at
        return self.result

    def _list_shots(self, limits):
        """Yield the planned shots of actions that lack kills."""
        shares, result = share_kills(limits.kills, limits.actions), self.result
        shots, most = plan_shots(result.engine, result.seed), limits.most or MOST * limits.kills
        while result.total < limits.kills:
            if result.total + result.missed.total() >= most:
                result.final_faults.append(f"only {result.total} kills came inside an action")
                return
            shot = next(shots)
            if result.kills[shot.action] < shares.get(shot.action, 0):
                yield shot

    def close(self):
        """End the replicas and let go of the database."""
        self._processes.close()
        self._oracle.close()

    def _start(self):
        for ready in [self._processes.start(replica) for replica in REPLICAS]:
            ready.result()
        for thread in self._traffic:
            thread.start()

    def _shoot(self, shot):
        delay = shot.fraction * self._scales[shot.action] * self._seconds[shot.action]

        def kill(number, pid=None, *, is_tick_process=False):
            time.sleep(delay)
            if pid is not None:
                return self._processes.kill_command(pid)
            if is_tick_process:
                death = self._processes.kill_ticks(number)
                self._recovery = self._processes.start_ticks(number)
                return death
            death = self._processes.kill(number)
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
        if death.is_killed:
            self.result.recoveries[action].append(seconds)
        if death.is_killed and action in death.inside:
            self.result.kills[action] += 1
            self.result.points[action][death.point] += 1
            self._scales[action] = min(1.0, self._scales[action] * HIT_GROWTH)
            return
        self.result.missed[action] += 1
        self._scales[action] = max(SMALLEST_SCALE, self._scales[action] * MISS_SHRINK)

    def _measure(self, action):
        seconds = self._processes.measure_action(action)
        if seconds:
            self._seconds[action] = seconds

    def _settle(self):
        """Wait until each replica has answered often after the last stop had to hold."""
        since = time.monotonic() + STALENESS
        deadline = since + SETTLE_PATIENCE
        while time.monotonic() < deadline:
            counts = self._acknowledgements.count_answers(since)
            if min(counts[replica] for replica in REPLICAS) >= SETTLE_ANSWERS:
                return
            time.sleep(SETTLE_PAUSE)

    def _finish(self, commands):
        """Let traffic go on for a moment, end it, and check everything."""
        self._settle()
        for thread in self._traffic:
            if not thread.is_alive():
                self.result.final_faults.append(f"{thread.name} ended before the end")
            thread.finish()
        self._oracle.check(*self._acknowledgements.take())
        self._oracle.check_whole()
        for words in commands:
            if self._processes.run_check(*words) != 0:
                text = self._processes.read_log(COMMAND)
                self.result.final_faults.append(f"{' '.join(words)}: {text}")
        self.result.final_faults += self.result.list_blind_spots()
        self.result.is_whole = True

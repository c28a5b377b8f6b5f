"""One trial: a point of a step fails; then all heals, the client asks again, and all must hold."""

from dataclasses import dataclass
from datetime import timedelta

from rollout import faults
from rollout.data.database.rollouts import Rollouts
from rollout.engine.decide.projection import apply_events
from rollout.kernel.calendar.instants import find_slot_before
from tests import oracles
from tests.faults import kinds, outgoing
from tests.faults.forks import Died, Fork
from tests.faults.kinds import Arm
from tests.faults.outgoing import Received
from tests.faults.replica import NAME, Replica
from tests.faults.script import TICK, script
from tests.faults.world import POLICIES, ClientRequest, ask

STEPS = script()
TICKS = [number for number, step in enumerate(STEPS) if step.ticks]
HOURS_AHEAD = (0, 1, 12, 30, 45, 55, 70, 100)
HEAD_HELD = {"append.locked", "append.inserted", "append.moved", "commit.before"}
HOLDS_ALREADY = {"already-approved", "proposal-closed", "nothing-waits"}
LEASED = {"report", "outbox"}  # what somebody took is taken again when its time is over
LATER = timedelta(minutes=15)  # longer than any such time
TWICE = {"tick", "resume", *LEASED}  # awaited twice: what somebody held, or the same answer again
LATEST = 4 * TICK  # how much later than without faults something may be granted


@dataclass(frozen=True)
class Trial:
    """Which point fails, and how.

    Attributes:
        step, hit: the number of the step, and of the point that it passes.
        point: that point's name.
        kind: kill, raise, cut or pause.
        always: whether every later point fails too, until all is healed.
        whole: whether the rest of the script follows; else it ends with the next tick.
    """

    step: int
    hit: int
    point: str
    kind: str
    always: bool = False
    whole: bool = False

    @property
    def path(self):
        """Return the path through the program that fails."""
        return STEPS[self.step].path

    @property
    def end(self):
        """Return the number of the last step: the tick that counts what the failing step did."""
        return len(STEPS) - 1 if self.whole else next(n for n in TICKS if n >= self.step)

    @property
    def start(self):
        """Return the first step: a survivor has in memory what the tick before read."""
        earlier = [number for number in TICKS if number < self.step]
        warm = self.whole and self.kind != "kill" and STEPS[self.step].ticks and earlier
        return earlier[-1] if warm else self.step

    def __str__(self):
        often = "always" if self.always else "once"
        return f"{STEPS[self.step].name} · {self.hit} {self.point} · {self.kind} {often}"


class Client:
    """Everybody who asks, and what they remember of it."""

    def __init__(self, trial, world, url, mutant):
        self.trial, self.world, self.url, self.mutant = trial, world, url, mutant
        self.replica = Replica(url, "one")
        self.replica.cited = list(world.cited[trial.start])
        self.replica.shown = dict(world.shown[trial.start])
        self.replica.received = list(world.received[trial.start])
        self.asked = [world.asked[number] for number in range(trial.start)]
        self.seen = [world.evidence[number] for number in range(trial.start)]
        self.wrong = []
        self.arm, self.told = None, False

    def run(self):
        """Run the trial and return what is wrong."""
        trial = self.trial
        for number in range(trial.start, trial.step):
            self.do(number)
        self.fail()
        self.settle()
        for number in range(trial.step + 1, trial.end + 1):
            if STEPS[number].path == "purge":
                self.judge_answers()
            self.do(number)
        self.judge()
        self.replica.close()
        return self.wrong

    # The step that fails

    def fail(self):
        """Ask the step while its point fails; where it always does, ask once more."""
        self.attempt(Arm(self.trial.hit, self.act, always=self.trial.always))
        if not self.arm.fired and self.trial.kind != "kill" and not self.mutant:
            self.wrong.append(f"point {self.trial.hit} was never passed: {self.arm.passed}")
        if self.trial.always:
            self.attempt(Arm(0, self.act, always=True), 1)

    def attempt(self, arm, again=0):
        """Ask once with points armed."""
        self.arm, arm.elsewhere = arm, []
        step = STEPS[self.trial.step]
        at = step.at + again * self.later(step)

        def armed(early=None):
            self.replica.database.early = early  # for who answers too early
            self.replica.tell = early and (lambda facts: early(_build_request_fact(facts)))
            with faults.install_action(arm):
                return ask(step, self.replica, at), self.replica.cited

        if self.trial.kind != "kill":
            self.asked.append(armed()[0])
            self.look()
            return
        before, result = len(self.asked), Fork(armed).answer()
        if isinstance(result, Died):
            if result.by != -9:
                self.wrong.append(f"died by {result}")
            self.asked += [fact for fact in result.said if isinstance(fact, ClientRequest)]
            self.replica.received += [fact for fact in result.said if isinstance(fact, Received)]
            self.told = any(question.outcome == "done" for question in self.asked[before:])
            return
        if again:  # what was done the first time passes no point when it is asked again
            self.asked.append(result[0])
            return
        self.wrong.append(f"point {self.trial.hit} was never passed")

    def act(self, arm):
        """Do what the trial's kind says."""
        match self.trial.kind:
            case "kill":
                kinds.kill(arm)
            case "raise":
                kinds.raises(arm)
            case "cut":
                kinds.cut(self.replica)(arm)
            case "pause":
                kinds.pause(self.meanwhile)(arm)

    def meanwhile(self):
        """Let another replica take over: the same is asked of it, and it does the next slot."""
        step, other = STEPS[self.trial.step], Replica(self.url, "two", impatient=True)
        other.cited, other.shown = self.replica.cited, dict(self.replica.shown)
        other.received = self.replica.received
        self.asked.append(ask(step, other, step.at + LATER if step.path in LEASED else step.at))
        tick = next(STEPS[number] for number in TICKS if STEPS[number].at > step.at - TICK)
        self.asked.append(ask(tick, other, step.at + TICK if step.ticks else step.at))
        other.close()
        is_head_held = self.arm.fired in HEAD_HELD and "append.locked" in self.arm.passed
        since = self.arm.passed[::-1].index("append.locked") if is_head_held else 0
        released = "commit.after" in self.arm.passed[len(self.arm.passed) - since :]
        if is_head_held and not released and "append.locked" in self.arm.elsewhere:
            self.wrong.append("O2 two held the head of the ledger at once")
        self.look()

    # Healed

    def settle(self):
        """Ask again as a client would that was told nothing, until it knows."""
        if self.trial.kind == "kill":
            self.replica.close()
            before = self.replica
            self.replica = Replica(self.url, "reborn")
            self.replica.cited, self.replica.shown = before.cited, before.shown
            self.replica.received = before.received
        if self.told:
            return  # nobody asks again who was told that it is done
        step, right = STEPS[self.trial.step], self.world.asked[self.trial.step]
        for again in (1, 2):
            at = step.at + (again + self.trial.always) * self.later(step)
            answer = ask(step, self.replica, at)
            self.asked.append(answer)
            self.look()
            holds = answer.outcome == "refused" and answer.code in HOLDS_ALREADY
            healed = (answer.outcome, answer.code) == (right.outcome, right.code) or holds
            if healed and step.path not in TWICE:
                return
        if not healed:
            self.wrong.append(f"O6 {step.name} was never done: {self.asked[-3:]}")

    def later(self, step):
        """Return how long one waits before asking again."""
        if step.path in LEASED:
            return LATER
        return TICK if step.ticks else timedelta(seconds=20)

    def do(self, number):
        """Do a step that nothing disturbs; it must be answered as without faults."""
        result, right = ask(STEPS[number], self.replica), self.world.asked[number]
        if (result.outcome, result.code) != (right.outcome, right.code):
            self.wrong.append(f"{STEPS[number].name}: {result.outcome} {result.code}")
        self.asked.append(result)
        self.look()

    def look(self):
        """Note how far evidence reaches; who is told to retry waits before it asks again."""
        self.replica.await_database()
        with self.replica.database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(NAME)
            if rollout is not None:
                self.seen.append(oracles.Evidence.of(transaction, rollout))

    # Judged

    def judge_answers(self):
        """Look for what was answered, before a purge deletes some of it."""
        pairs = [
            p
            for question in self.asked
            for p in question.answer
            if isinstance(p, oracles.AnsweredRecord)
        ]
        with self.replica.database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(NAME)
            self.wrong += oracles.accepted_once(transaction, rollout, pairs)
            self.wrong += outgoing.chosen_once(transaction, rollout, self.told_of())

    def told_of(self):
        """Return the facts that clients were told, but for records."""
        return [
            e for a in self.asked for e in a.answer if not isinstance(e, oracles.AnsweredRecord)
        ]

    def judge(self):
        """Ask every oracle."""
        last = self.trial.end
        right, right_events = self.world.right[last]
        instants = [STEPS[last].at + timedelta(hours=hours) for hours in HOURS_AHEAD]
        purged = any(step.path == "purge" for step in STEPS[: last + 1])
        if not purged:
            self.judge_answers()
        told_facts, received = self.told_of(), self.replica.received
        with self.replica.database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(NAME)
            of = (transaction, rollout)
            self.wrong += [
                *oracles.chain_whole(*of),
                *oracles.scope_held(*of, POLICIES, instants),
                *oracles.shown_hashes_alone(*of, self.replica.cited),
                *oracles.nothing_lost(*of, told_facts),
                *oracles.counted_once(*of),
                *oracles.evidence_stands(*of, self.seen),
                *oracles.same(oracles.whole(*of), right),
                *oracles.never_wider(*of, POLICIES, apply_events(right_events), instants, LATEST),
                *oracles.slots_done(*of, find_slot_before(STEPS[last].at, TICK)),
                *outgoing.reports_sealed(*of, told_facts),
                *outgoing.delivered(*of, received, self.world.queued[last]),
                *outgoing.one_key_each(received),
                *outgoing.replies_kept(*of, told_facts),
            ]
        self.wrong += oracles.refuses_doubles(self.replica.database, rollout)


def _build_request_fact(facts):
    return facts if isinstance(facts, Received) else ClientRequest("done", answer=facts)


def run(trial, world, copies, mutant=None):
    """Run a trial on a copy of its own; return what is wrong, nothing if all is well."""
    url = copies.copy(world.before[trial.start])
    try:
        if mutant is None:
            return Client(trial, world, url, mutant).run()
        with mutant.applied(copies, url):
            return Client(trial, world, url, mutant).run()
    finally:
        copies.drop(url)

"""The script run once without faults: where each trial starts, and what it has to come to."""

from dataclasses import dataclass, field
from typing import Any

from rollout import faults
from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import NoSuchRolloutError
from tests.faults.outgoing import Received, queued
from tests.faults.replica import NAME, Replica
from tests.faults.script import LOOSER, POLICY, script
from tests.oracles import Evidence, Whole, whole

POLICIES = {policy.hash: policy for policy in map(parse_policy, (POLICY, LOOSER))}


@dataclass(frozen=True)
class ClientRequest:
    """What a client asked and was told: `outcome` is done, refused, or unknown."""

    outcome: str
    code: str = ""
    answer: Any = ()


def ask(step, replica, at=None):
    """Ask a step of a replica, as a client that may never learn what came of it."""
    now = step.at if at is None else at
    replica.set_clock(now)
    try:
        answer = step.ask(replica, now)
    except (RefusalError, DatabaseBusyError) as refusal:
        return ClientRequest("refused", refusal.code)
    except NoSuchRolloutError:
        return ClientRequest("refused", "no-such-rollout")
    except Exception as error:  # noqa: BLE001 - a client sees a failure, whatever it was
        return ClientRequest("unknown", f"{type(error).__name__}: {error}"[:200])
    return (
        ClientRequest("refused", "not-mine")
        if answer is None
        else ClientRequest("done", answer=answer)
    )


@dataclass
class FaultWorld:
    """One engine's run without faults.

    Attributes:
        before: the URL of a copy of the database as it was before each step.
        passed: the points that each step passed.
        asked: what each step was told.
        cited: before each step, who had cited which evidence.
        shown: before each step, what clients had been shown.
        received: before each step, what channels had got.
        right: after each step the whole, and the events so far.
        queued: after each step, what there is to be delivered.
        evidence: after each step how far evidence reached; None before there is a rollout.
    """

    before: list[str] = field(default_factory=list)
    passed: list[list[str]] = field(default_factory=list)
    asked: list[ClientRequest] = field(default_factory=list)
    cited: list[list[tuple[str, str, str]]] = field(default_factory=list)
    shown: list[dict[Any, Any]] = field(default_factory=list)
    received: list[list[Received]] = field(default_factory=list)
    right: list[tuple[Whole, tuple[Any, ...]]] = field(default_factory=list)
    queued: list[list[Any]] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)


def recorded(copies):
    """Run the script without faults and keep what every trial needs."""
    world = FaultWorld()
    replica = Replica(copies.fresh(), "one")
    for step in script():
        replica.close()  # a copy is made of a database that nobody is connected to
        world.before.append(copies.copy(replica.url))
        world.cited.append(list(replica.cited))
        world.shown.append(dict(replica.shown))
        world.received.append(list(replica.received))
        passed = []
        with faults.install_action(passed.append):
            world.asked.append(ask(step, replica))
        world.passed.append(passed)
        with replica.database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(NAME)
            events = tuple(Ledger(transaction, rollout).list_events())
            world.right.append((whole(transaction, rollout), events))
            world.queued.append(queued(transaction, rollout))
            world.evidence.append(Evidence.of(transaction, rollout))
    replica.close()
    copies.drop(replica.url)
    return world

"""The suite tested: the program broken on purpose, in each way that a fault would bring to light.

Some rules stand behind one another: without the head's lock a second row at a revision is still
refused by its key, and without the key by the compare-and-set of the head. Each of these alone is
caught by an oracle that looks at just that rule (two at the head at once, a probe of the key), and
all of them dropped together by the chain itself.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest import mock

from sqlalchemy import text, update

from rollout.data.counting.count_queue import CountQueue
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.database import session
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import EvidenceStore
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import evidence_heads, ledger_heads
from rollout.engine.decide import approvals
from rollout.engine.decide.scope import Grant
from tests.faults import outgoing_mutants
from tests.faults.instead import instead
from tests.faults.trials import STEPS, Trial
from tests.faults.world import ClientRequest
from tests.oracles import AnsweredRecord

BOTH = ("sqlite", "postgresql")


@dataclass(frozen=True)
class FaultMutant:
    """One way to break the program.

    Attributes:
        name: what is broken, as safety.md calls it.
        oracles: which of them has to say so.
        patch: breaks it, given a stack to undo it, the copies and a database.
        where: path, point and kind of the trials that bring it to light.
        engines: where it can be broken so.
    """

    name: str
    oracles: tuple[str, ...]
    patch: Callable
    where: tuple[str, str, str]
    engines: tuple[str, ...] = BOTH

    @contextmanager
    def applied(self, copies, url):
        """Break the program within a block."""
        with ExitStack() as stack:
            self.patch(stack, copies, url)
            yield

    def trials(self, world, most=4):
        """Return its trials: all points of that name on that path, at most some of them."""
        path, point, kind = self.where
        caught = [
            Trial(step, hit, name, kind)
            for step, passed in enumerate(world.passed)
            for hit, name in enumerate(passed)
            if name == point and STEPS[step].name.startswith(path)
        ]
        return caught[:: max(1, len(caught) // most)][:most]


# The head of the ledger


def _no_lock(stack, _copies, _url):
    def unlocked(original):
        def select_head(self):
            query = original(self)
            query.with_for_update = lambda: query
            return query

        return select_head

    instead(stack, Ledger, "_select_head", unlocked)
    instead(stack, session, "_begin_sqlite", lambda _: _begin_late)


def _begin_late(_writes, connection):
    """Begin on SQLite without the lock of a writer: it is taken by the first that writes."""
    connection.exec_driver_sql("begin")


def _no_key(_stack, copies, url):
    if copies.engine == "postgresql":
        copies.do(url, "alter table ledger drop constraint pk_ledger")
        return
    for statement in (
        "create table without_key as select * from ledger",
        "drop table ledger",
        "alter table without_key rename to ledger",
    ):
        copies.do(url, statement)


def _after_ignored(stack, _copies, _url):
    def append(original):
        def anywhere(self, events, *, after, **others):
            return original(self, events, after=self.load_head().revision, **others)

        return anywhere

    instead(stack, Ledger, "append", append)


def _unguarded_head(stack, copies, url):
    _no_lock(stack, copies, url)
    _no_key(stack, copies, url)

    def move(_original):
        def blindly(self, last, after, **_):
            own = update(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)
            self._transaction.execute(own.values(revision=last.revision, hash=last.hash))

        return blindly

    instead(stack, Ledger, "_move_head", move)


# Counting


def _through_ignored(stack, _copies, _url):
    def through(original):
        return lambda self, *, lock=False: original(self, lock=False)  # noqa: ARG005 - broken

    def move(_original):
        def blindly(self, to):
            self._transaction.execute(
                update(evidence_heads).where(self._own_head).values(through=to)
            )

        return blindly

    instead(stack, EvidenceStore, "get_last_slot", through)
    instead(stack, EvidenceStore, "advance", move)


def _due_apart(stack, _copies, _url):
    def lock(original):
        def locked(self, entries):
            batch = original(self, entries)
            self.delete(batch)
            self._transaction.connection.exec_driver_sql("commit")
            self._transaction.connection.exec_driver_sql("begin")
            return batch

        return locked

    instead(stack, CountQueue, "lock", lock)


def _unmarked(stack, _copies, _url):
    def mark(original):
        def all_of_them(self, marks):
            original(self, marks)
            return list(marks)

        return all_of_them

    instead(stack, CountedUnits, "store", mark)


def _purge_counted(stack, copies, url):
    name = "counted_units_refuses_delete"
    if copies.engine == "postgresql":
        name = "counted_units_refuses_update_or_delete on counted_units"
    copies.do(url, f"drop trigger {name}")

    def purge(original):
        def counted_too(self, numbers):
            original(self, numbers)
            gone = "delete from counted_units where rollout = :rollout and case_id = :number"
            for number in numbers:
                of = {"rollout": self._rollout.number, "number": number}
                self._transaction.execute(text(gone), of)

        return counted_too

    instead(stack, ExternalKeys, "purge", purge)


# Answers and people


def _reply_early(stack, _copies, _url):
    lines = []

    def keep(original):
        def remembered(self, items, **how):
            stored = original(self, items, **how)
            pairs = zip(items, stored.results, strict=True)
            lines.append([AnsweredRecord(record, str(answer.status)) for record, answer in pairs])
            return stored

        return remembered

    def writing(original):
        @contextmanager
        def answered_first(self):
            with original(self) as transaction:
                yield transaction
                if lines and self.early is not None:
                    self.early(ClientRequest("done", answer=lines.pop()))

        return answered_first

    stack.enter_context(mock.patch.object(Database, "early", None, create=True))
    instead(stack, RecordStore, "store", keep)
    instead(stack, Database, "begin_write", writing)


def _no_hash(stack, _copies, _url):
    def approved_before(original):
        def whatever_was_shown(command, proposal, at):
            approval = replace(command, evidence_hash=proposal.evidence_hash)
            return original(approval, proposal, at)

        return whatever_was_shown

    instead(stack, approvals, "_is_already_approved", approved_before)


def _own_yes(stack, _copies, _url):
    instead(stack, approvals, "_check_can_approve", lambda _: lambda *_: None)


def _never_lapses(stack, _copies, _url):
    instead(stack, Grant, "is_valid", lambda _: lambda _self, _at: True)


MUTANTS = (
    FaultMutant("head lock dropped", ("O2",), _no_lock, ("dan", "append.locked", "pause")),
    FaultMutant(
        "unique (rollout, revision) dropped", ("O2",), _no_key, ("stop", "append.moved", "raise")
    ),
    FaultMutant(
        "`after` not compared", ("O3",), _after_ignored, ("dan", "command.decided", "pause")
    ),
    FaultMutant(
        "lock, key and compare of the head dropped",
        ("O2 revisions",),
        _unguarded_head,
        ("dan", "append.locked", "pause"),
        ("postgresql",),
    ),
    FaultMutant(
        "`through` not compared",
        ("O4",),
        _through_ignored,
        ("tick", "tick.due-counted", "pause"),
        ("postgresql",),
    ),
    FaultMutant(
        "due deleted in another transaction", ("O5",), _due_apart, ("tick", "tick.counted", "kill")
    ),
    FaultMutant("counted unmarked", ("O4",), _unmarked, ("tick", "tick.counted", "raise")),
    FaultMutant("reply before commit", ("O1",), _reply_early, ("send", "commit.before", "kill")),
    FaultMutant("approval without hash", ("O3",), _no_hash, ("eve", "command.read", "raise")),
    FaultMutant(
        "approver is raiser", ("O3",), _own_yes, ("ana approves policy", "command.read", "raise")
    ),
    FaultMutant("lapse only by tick", ("O3",), _never_lapses, ("tick 17", "tick.claimed", "raise")),
    FaultMutant(
        "purge deletes counted", ("O4", "O5"), _purge_counted, ("purge", "purge.deleted", "raise")
    ),
    FaultMutant(
        "sealed without append",
        ("O9",),
        outgoing_mutants.seal_alone,
        ("ask report", "commit.before", "raise"),
    ),
    FaultMutant(
        "sealed apart from its append",
        ("O9",),
        outgoing_mutants.seal_apart,
        ("look", "report.sealed", "raise"),
    ),
    FaultMutant(
        "marked before sent",
        ("O9",),
        outgoing_mutants.mark_early,
        ("deliver", "commit.before", "kill"),
    ),
    FaultMutant(
        "another key at each try",
        ("O9 several keys",),
        outgoing_mutants.key_of_try,
        ("deliver", "outbox.sent", "kill"),
    ),
    FaultMutant(
        "reply kept before commit",
        ("O9",),
        outgoing_mutants.reply_uncommitted,
        ("ask resume", "reply.kept", "kill"),
        ("postgresql",),  # on SQLite the one waits for the other
    ),
)

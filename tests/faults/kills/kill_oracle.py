"""The oracle outside of the service: what was acknowledged, against what is there.

It knows what clients were told, and reads the tables by SQL of its own and the ledger by a fold of
its own (`slow_fold`). Each fault that it finds is counted under one heading.
"""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from sqlalchemy import text

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from tests import oracles
from tests.faults import outgoing
from tests.faults.kills.kill_field import (
    ANSWER,
    POLICIES,
    REVIEWER,
    ROLLOUT,
    SITES,
    STAGES,
    VERSION,
    WINDOW,
)
from tests.slow_fold import SlowFold

STALENESS = 0.5
"""Seconds after a stop's answer within which the other replica may not have it yet: the promise."""
FOREVER = float("inf")
RECORDS = {
    "cases": "r.site",
    "predictions": "r.version || ' ' || r.answers",
    "decisions": "r.reviewer || ' ' || r.answers",
}
BATCH = 300
MAX_SENTENCES = 20
CAN_DECIDE = len(STAGES)


@dataclass(frozen=True)
class StopSpan:
    """When a site was stopped: from an acknowledged stop until the last approval was sent."""

    site: str
    since: float
    until: float = FOREVER

    def covers(self, answer):
        """Return whether an answer lies whole in the span, after what the promise allows."""
        return (
            answer.site == self.site
            and answer.asked_at >= self.since + STALENESS
            and answer.answered_at <= self.until
        )


@dataclass
class OracleCounts:
    """What was looked at, and what was wrong.

    Attributes:
        records, events: acknowledged ones that were looked for.
        answers, model_answers, stopped_answers: to questions; those under a stop must be `human`.
        faults: how many were found under each heading.
        wrong: sentences about the first of them.
    """

    records: int = 0
    events: int = 0
    answers: int = 0
    model_answers: int = 0
    stopped_answers: int = 0
    faults: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, heading, sentences):
        """Count faults under a heading."""
        self.faults[heading] += len(sentences)
        room = max(0, MAX_SENTENCES - len(self.wrong))
        self.wrong += [f"{heading}: {sentence}" for sentence in sentences[:room]]


class KillOracle:
    """Compares a database with what its clients were told, as often as asked."""

    def __init__(self, kill_field):
        self.counts = OracleCounts()
        self._database = Database(kill_field.url)
        self._fold = SlowFold(POLICIES)
        self._revision, self._hash = 0, ""
        self._revisions, self._levels = [0], [dict.fromkeys(SITES, 0)]
        self._events = Counter()
        self._facts, self._sealed = [], []
        self._spans = {site: [] for site in SITES}
        self._all_cases = []

    def close(self):
        """Let go of the database."""
        self._database.close()

    # What clients were told

    def add_stop(self, site, reason, answered_at):
        """Note an acknowledged stop."""
        self._facts.append(("Stopped", "ana", reason))
        self._spans[site].append(StopSpan(site, answered_at))

    def end_stop(self, site, sent_at):
        """Note that from now on a resume may be applied."""
        span = self._spans[site].pop()
        self._spans[site].append(StopSpan(site, span.since, sent_at))

    def add_resume(self, proposal):
        """Note an acknowledged proposal to resume."""
        self._facts.append(("ProposalRaised", "ana", proposal))

    def add_approval(self, who, proposal):
        """Note an acknowledged approval."""
        self._facts.append(("Approved", who, proposal))

    def add_report(self, number, text_hash):
        """Note an acknowledged report."""
        self._sealed.append(outgoing.Sealed(number, text_hash))

    # What is there

    def check(self, cases, answers):
        """Look for new cases and for all events; judge new answers."""
        with self._database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(ROLLOUT)
            self._read_ledger(transaction, rollout)
            self._check_cases(transaction, rollout, cases)
        self._check_events()
        self._judge_answers(answers)
        self._all_cases += cases

    def check_whole(self):
        """Look for everything again, at the end."""
        with self._database.begin_read() as transaction:
            is_postgresql = transaction.connection.dialect.name == "postgresql"
            if is_postgresql:  # comparing takes long on a busy machine
                transaction.execute(text("set local idle_in_transaction_session_timeout = 0"))
            rollout = Rollouts(transaction).find(ROLLOUT)
            self._check_cases(transaction, rollout, self._all_cases)
            self._say("lost", outgoing.reports_sealed(transaction, rollout, self._sealed))
            self._say("doubled", oracles.counted_once(transaction, rollout))
            self._say("broken", oracles.chain_whole(transaction, rollout))

    def find_missing_cases(self, execute):
        """Return the acknowledged cases that another database lacks, such as a backup."""
        query = "select key from external_keys where kind = 'case'"
        stored = {row[0] for row in execute(query)}
        return [case.key for case in self._all_cases if case.key not in stored]

    def add_missing_in_backup(self, keys):
        """Count cases that were acknowledged before a backup began and are not in it."""
        self._say("lost", [f"{key} is not in the backup" for key in keys])

    def _check_cases(self, transaction, rollout, cases):
        for start in range(0, len(cases), BATCH):
            batch = cases[start : start + BATCH]
            for table in RECORDS:
                self._check_table(transaction, rollout, table, batch)
        self.counts.records += len(cases) * len(RECORDS)

    def _check_table(self, transaction, rollout, table, cases):
        names = {f"k{place}": case.key for place, case in enumerate(cases)}
        query = (
            f"select k.key, {RECORDS[table]} from {table} r "  # noqa: S608 - names of ours
            "join external_keys k on k.id = r.case_id and k.kind = 'case' "
            f"where r.rollout = :rollout and k.key in ({', '.join(f':{name}' for name in names)})"
        )
        stored = defaultdict(list)
        for key, content in oracles.rows_of(transaction, rollout, query, **names):
            stored[key].append(content)
        for case in cases:
            contents = stored[case.key]
            if not contents or any(text != _describe(table, case) for text in contents):
                self._say("lost", [f"{table} of {case.key}: {contents}"])
            elif len(contents) > 1:
                self._say("doubled", [f"{table} of {case.key}: {len(contents)} times"])

    def _read_ledger(self, transaction, rollout):
        """Read the rows that are new; those read before must still be there."""
        rows = _load_new_rows(transaction, rollout, self._revision, self._hash)
        if rows is None:
            self._say("lost", [f"revision {self._revision} of the ledger has changed"])
            return
        for revision, row_hash, *row in rows:
            self._fold.read([(revision, *row)])
            self._revision, self._hash = revision, row_hash
            self._count_event(*row[1:])
            if row[1] != "RecordsCounted" and self._fold.policy is not None:
                self._revisions.append(revision)
                self._levels.append(
                    {site: self._fold.stage(site, WINDOW, VERSION, row[0]) for site in SITES}
                )
        self._say("broken", self._fold.faults)
        self._fold.faults.clear()

    def _count_event(self, kind, actor, body):
        names = {"Stopped": "reason", "ProposalRaised": "proposal", "Approved": "proposal"}
        if kind in names:
            fact = kind, actor, body.get(names[kind], "")
            self._events[fact] += 1
            if self._events[fact] > 1 and fact[2]:
                self._say("doubled", [f"{fact} is in the ledger {self._events[fact]} times"])

    def _check_events(self):
        missing = [fact for fact in self._facts if not self._events[fact]]
        self.counts.events += len(self._facts)
        self._say("lost", [f"{fact} was acknowledged and is not in the ledger" for fact in missing])
        self._facts.clear()

    def _judge_answers(self, answers):
        for answer in answers:
            self.counts.answers += 1
            self.counts.model_answers += answer.is_model
            is_stopped = any(span.covers(answer) for span in self._spans[answer.site])
            self.counts.stopped_answers += is_stopped
            if answer.is_model and is_stopped:
                self._say("late_stops", [f"replica {answer.replica}: {answer}"])
            if answer.is_model and self._find_level(answer) < CAN_DECIDE:
                self._say("wider", [f"replica {answer.replica}: {answer}"])

    def _find_level(self, answer):
        """Return the stage level of the ledger at the revision of an answer."""
        place = bisect_right(self._revisions, answer.revision) - 1
        return self._levels[place][answer.site]

    def _say(self, heading, sentences):
        self.counts.add(heading, sentences)


def _describe(table, case):
    """Return how a record of a case is stored."""
    if table == "cases":
        return case.site
    answers = json.dumps(ANSWER, separators=(",", ":"))
    return f"{VERSION if table == 'predictions' else REVIEWER} {answers}"


def _load_new_rows(transaction, rollout, revision, row_hash):
    """Return the ledger's rows after a revision, with names and texts; None if that is not there.

    A row is (revision, hash, at, kind, actor, body).
    """
    query = (
        "select revision, at, kind, actor, body, hash from ledger "
        "where rollout = :rollout and revision >= :revision order by revision"
    )
    rows = oracles.rows_of(transaction, rollout, query, revision=revision)
    if revision and (not rows or (rows[0][0], rows[0][-1]) != (revision, row_hash)):
        return None
    names = dict(oracles.rows_of(transaction, rollout, oracles.NAMES))
    texts = {
        row[:2]: row[2]
        for row in oracles.rows_of(
            transaction, rollout, f"{oracles.TEXTS} and revision >= :revision", revision=revision
        )
    }
    return [
        (
            number,
            own_hash,
            at,
            kind,
            names.get(actor, actor),
            oracles._restore_texts(number, json.loads(body), texts, names),
        )
        for number, at, kind, actor, body, own_hash in rows
        if number > revision
    ]

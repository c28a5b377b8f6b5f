"""What must hold after any fault, as functions: each returns what is wrong, nothing if all is well.

They read the tables by SQL of their own and the ledger by a fold of their own (`slow_fold`), and
know nothing of how a fault came about: suites of concurrency and of the API use them too.
"""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from rollout.data.ledger.ledger import Ledger
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.tables.record_tables import encode_instant, encode_json
from rollout.engine.decide.scope import compute_stage_level
from rollout.engine.ledger.ledger import BrokenLedgerError
from rollout.engine.records.records import Case, Decision, Outcome, Prediction, Record
from tests.slow_fold import SlowFold

OF_A_RECORD = {Case: (), Prediction: ("version",), Decision: ("reviewer",), Outcome: ()}
OF_A_TALLY = 'track, version, site, s."window", definition, attempt'
OF_A_CLASS = "lever, predicted, decided, second, level"
LEDGER = "select revision, at, kind, actor, body from ledger where rollout = :rollout"
NAMES = "select account, name from account_names where :rollout >= 0"
TEXTS = "select revision, field, text from ledger_texts where rollout = :rollout"
TYPED = ("reason", "note")  # what somebody typed stands beside the row, which holds its hash


@dataclass(frozen=True)
class AnsweredRecord:
    """A client was told what became of a record: `verdict` is accepted, duplicate, …"""

    record: Record
    verdict: str


@dataclass(frozen=True)
class Written:
    """A client was told of an event, as its ledger row holds it."""

    kind: str
    by: str
    body: dict


@dataclass(frozen=True)
class OracleRow:
    """A client was told of a row of the ledger."""

    revision: int
    hash: str


def rows_of(transaction, rollout, query, **more):
    """Return the rows of a query about a rollout, as tuples."""
    rows = transaction.execute(text(query), {"rollout": rollout.number, **more})
    return [tuple(row) for row in rows]


# What was answered: O1 and O9


def accepted_once(transaction, rollout, answered, *, gone=lambda _: False):
    """O1: each record answered `accepted` or `duplicate` is there once, as it was sent.

    Args:
        transaction, rollout: where to look.
        answered: what was `Kept`.
        gone: says of a record that a purge has deleted it.
    """
    wrong = []
    for record, verdict in ((answer.record, answer.verdict) for answer in answered):
        if verdict in {"accepted", "duplicate"} and not gone(record):
            stored = _stored(transaction, rollout, record)
            if stored != [_content(record)]:
                kind = type(record).__name__
                wrong.append(f"O1 {kind} {record.key} was answered {verdict}, there: {stored}")
    return wrong


def _stored(transaction, rollout, record):
    own = ("revision", *OF_A_RECORD[type(record)])
    where = " and ".join(f"r.{name} = :{name}" for name in own)
    names = ", ".join(f"r.{name}" for name in _columns(record))
    query = (
        f"select {names} from {RECORD_SCHEMAS[type(record)].table.name} r "  # noqa: S608 - names of ours
        "join external_keys k on k.id = r.case_id and k.kind = 'case' and k.key = :key "
        f"where r.rollout = :rollout and {where}"
    )
    of = {name: getattr(record, name) for name in own}
    return rows_of(transaction, rollout, query, key=record.key, **of)


def _columns(record):
    return ("site", "occurred_at") if isinstance(record, Case) else ("answers",)


def _content(record):
    if isinstance(record, Case):
        return record.site, encode_instant(record.occurred_at)
    return (encode_json(dict(record.answers)),)


def nothing_lost(transaction, rollout, facts):
    """O9: everything of the ledger that somebody was told of is in it, once."""
    rows = ledger_rows(transaction, rollout)
    bodies = Counter((kind, actor, _drop_empty(body)) for _, _, kind, actor, body in rows)
    hashes = set(
        rows_of(transaction, rollout, "select revision, hash from ledger where rollout = :rollout")
    )
    wrong = []
    for fact in facts:
        if isinstance(fact, OracleRow) and (fact.revision, fact.hash) not in hashes:
            wrong.append(f"O9 {fact} was answered and is not there")
        if isinstance(fact, Written):
            times = bodies[fact.kind, fact.by, _drop_empty(fact.body)]
            if times != 1:
                wrong.append(f"O9 {fact} was answered and is there {times} times")
    return wrong


def shown_hashes_alone(transaction, rollout, cited):
    """O3: every approver had cited that proposal's hash; `cited` is (who, proposal, hash)."""
    wrong = []
    for revision, _, kind, actor, body in ledger_rows(transaction, rollout):
        if kind == "Approved" and (actor, body["proposal"], body["evidence_hash"]) not in set(
            cited
        ):
            wrong.append(f"O3 revision {revision}: {actor} never cited {body['evidence_hash'][:8]}")
    return wrong


# The chain: O2 and O3


def ledger_rows(transaction, rollout):
    """Return (revision, at, kind, actor, body) of every row, in order, with names and texts."""
    names = dict(rows_of(transaction, rollout, NAMES))
    texts = {row[:2]: row[2] for row in rows_of(transaction, rollout, TEXTS)}
    return [
        (
            revision,
            at,
            kind,
            names.get(actor, actor),
            _restore_texts(revision, json.loads(body), texts, names),
        )
        for revision, at, kind, actor, body in rows_of(
            transaction, rollout, f"{LEDGER} order by revision, hash"
        )
    ]


def _restore_texts(revision, body, texts, names):
    """Put texts in the place of their hashes and names in that of ids."""
    body = {key: names.get(value, value) if isinstance(value, str) else value
            for key, value in body.items()}  # fmt: skip
    for name in (*TYPED, "about"):
        if body.pop(f"{name}_hash", None) is not None:
            body[name] = texts[revision, name]
    return body


def _drop_empty(body):
    """Return a body without what is empty: an answer has an empty reason, a row has none."""
    return encode_json({key: value for key, value in body.items() if value or key not in TYPED})


def chain_whole(transaction, rollout):
    """O2: revisions are 1, 2, …, each once and hashed with the one before; the head is the last."""
    wrong = []
    revisions = [row[0] for row in ledger_rows(transaction, rollout)]
    if revisions != list(range(1, len(revisions) + 1)):
        wrong.append(f"O2 revisions are {revisions}")
    last = f"select revision, hash from ledger where rollout = :rollout and revision = {len(revisions)}"  # noqa: E501, S608
    head = rows_of(
        transaction, rollout, "select revision, hash from ledger_heads where rollout = :rollout"
    )
    if rows_of(transaction, rollout, last) != head:
        wrong.append(f"O2 the head is {head}, not the last of {len(revisions)} rows")
    try:
        Ledger(transaction, rollout).verify()
    except BrokenLedgerError as broken:
        wrong.append(f"O2 {broken}")
    return wrong


def refuses_doubles(database, rollout):
    """O2: the database itself refuses a second row at a revision, whatever the program does."""
    again = (
        "insert into ledger (rollout, revision, at, kind, actor, body, previous, hash) "
        "select rollout, revision, at, kind, actor, body, previous, 'x' from ledger "
        "where rollout = :rollout and revision = 1"
    )
    taken = []
    with suppress(Undone), database.begin_write() as transaction:
        with suppress(DatabaseError):
            transaction.execute(text(again), {"rollout": rollout.number})
            taken.append("O2 the database takes a second row at revision 1")
        raise Undone
    return taken


class Undone(Exception):  # noqa: N818 - nothing is wrong: it takes a probe back
    """What a probe wrote must not stay."""


def scope_held(transaction, rollout, policies, instants):
    """O3: nothing allows more than the slow fold does, and each widening was approved.

    Args:
        transaction, rollout: where to look.
        policies: each policy that was ever in force, by its hash.
        instants: when to compare stages, the end of each grant not forgotten.
    """
    slow = SlowFold(policies).read(ledger_rows(transaction, rollout))
    wrong = list(slow.faults)
    try:
        scope = Ledger(transaction, rollout).load_scope()
    except Exception as error:  # noqa: BLE001 - whatever it is, the rollout can't be read any more
        return [*wrong, f"O3 the ledger can't be folded: {error!r}"]
    for cell, version in scope.cells:
        for at in instants:
            most = slow.stage(cell.site, cell.window, version, encode_instant(at))
            stage_level = compute_stage_level(scope, slow.policy, cell, version, at)
            if stage_level > most:
                wrong.append(f"O3 {cell} {version} at {at} stands on {stage_level}, may on {most}")
    return wrong


# How it was counted


def counted_once(transaction, rollout):
    """O4: no unit is marked twice; tallies and matrices are what the marks add up to."""
    marks = rows_of(
        transaction,
        rollout,
        "select unit, version, track, slot, occurred, series_id, class_ids, bucket, "
        "exclusion_reason from counted_units where rollout = :rollout",
    )
    wrong = [
        f"O4 unit {unit} is counted {n} times"
        for unit, n in Counter(mark[:3] for mark in marks).items()
        if n > 1
    ]
    right = Counter(
        (slot, occurred, series, kind, bucket)
        for *_, slot, occurred, series, kinds, bucket, excluded in marks
        if excluded is None
        for kind in json.loads(kinds)
    )
    stored_ones = tallies(transaction, rollout)
    if stored_ones != right:
        wrong.append(
            f"O4 tallies less marks {stored_ones - right}, marks less {right - stored_ones}"
        )
    by_class = Counter()
    for (_, _, series, kind, _), n in right.items():
        by_class[series, kind] += n
    if matrices(transaction, rollout) != by_class:
        wrong.append(f"O4 matrices are not {by_class}, what the marks add up to")
    return wrong


def matrices(transaction, rollout):
    """Return the sums over all slots, by their key."""
    query = "select series_id, class_id, n from confusion_matrices where rollout = :rollout"
    return Counter({row[:-1]: row[-1] for row in rows_of(transaction, rollout, query)})


def tallies(transaction, rollout, until=2**60):
    """Return the tallies up to a slot, by their key."""
    query = (
        "select slot, occurred, series_id, class_id, bucket, n from counts "
        "where rollout = :rollout and slot <= :until"
    )
    return Counter({row[:-1]: row[-1] for row in rows_of(transaction, rollout, query, until=until)})


@dataclass(frozen=True)
class Evidence:
    """How far evidence reached at one moment, and the tallies that it was made of."""

    through: int
    tallies: Counter

    @classmethod
    def of(cls, transaction, rollout):
        """Return it as it is now."""
        query = "select through from evidence_heads where rollout = :rollout"
        ((through,),) = rows_of(transaction, rollout, query)
        return cls(through, tallies(transaction, rollout, through))


def evidence_stands(transaction, rollout, earlier):
    """O4: evidence never went back, and no slot that it had reached has grown or shrunk since."""
    now = Evidence.of(transaction, rollout)
    wrong, highest = [], 0
    for then in [*earlier, now]:
        if then.through < highest:
            wrong.append(f"O4 evidence went back from slot {highest} to {then.through}")
        highest = max(highest, then.through)
        closed = tallies(transaction, rollout, then.through)
        if closed != then.tallies:
            wrong.append(f"O4 slots through {then.through} changed after they were evidence")
    return wrong


# What healed


@dataclass(frozen=True)
class Whole:
    """Everything that faults must make no difference to.

    Attributes:
        records: by table, what each record says, by its caller's key.
        sums: units by everything but the slot that they were counted in.
        done: what was decided, in order: kinds of events and what they are about.
        waiting: entries of the due queue.
    """

    records: dict
    sums: Counter
    done: list
    waiting: int


RECORDS = {
    "cases": "r.revision, r.site, r.window, r.occurred_at, r.attributes",
    "predictions": "r.version, r.answers, r.latency_ms",
    "decisions": "r.reviewer, r.answers, r.exposure",
    "outcomes": "r.answers, r.harm, r.at",
    "reviews": "r.kind, r.task_number, r.state, r.reviewer",
}
NOTES = {"IncidentAcknowledged", "GrantExpired", "ProposalVoided", "ProposalExpired"} | {
    "RecordsCounted"  # a fault may let two passes count what one would; the sums are compared
}


def whole(transaction, rollout):
    """Return the rollout as it stands, without numbers and times that faults may change."""
    records = {
        table: sorted(
            rows_of(
                transaction,
                rollout,
                f"select k.key, {columns} from {table} r "  # noqa: S608
                "join external_keys k on k.id = r.case_id where r.rollout = :rollout",
            ),
            key=repr,
        )
        for table, columns in RECORDS.items()
    }
    query = (
        f"select {OF_A_TALLY}, {OF_A_CLASS}, occurred, bucket, sum(n) from counts t "  # noqa: S608
        "join count_series s on s.id = t.series_id join count_classes c on c.id = t.class_id "
        f"where t.rollout = :rollout group by {OF_A_TALLY}, {OF_A_CLASS}, occurred, bucket"
    )
    sums = Counter({row[:-1]: int(row[-1]) for row in rows_of(transaction, rollout, query)})
    done = [
        (kind, body.get("kind"), body.get("site"), body.get("to_stage"), actor)
        for _, _, kind, actor, body in ledger_rows(transaction, rollout)
        if kind not in NOTES and body.get("kind") != "writes"  # what a failed write leaves behind
    ]
    queued = (
        "select count(*) from count_queue where rollout = :rollout and track in ('gate', 'guard')"
    )
    waiting = rows_of(transaction, rollout, queued)
    return Whole(records, sums, done, waiting[0][0])


def same(figures, right):
    """O5, O6: what was counted and decided is what it would be without faults."""
    wrong = [
        f"O5 {table} differ: {set(figures.records[table]) ^ set(right.records[table])}"
        for table in RECORDS
        if figures.records[table] != right.records[table]
    ]
    if figures.sums != right.sums:
        wrong.append(
            f"O5 tallies: {figures.sums - right.sums} more, {right.sums - figures.sums} less"
        )
    if _ordered(figures.done) != _ordered(right.done):
        wrong.append(f"O5 decided {_unlike(figures.done, right.done)}")
    if figures.waiting > right.waiting:
        wrong.append(f"O6 {figures.waiting} wait to be counted, not {right.waiting}")
    return wrong


def _ordered(done):
    """Return what was decided, in order, and the reports sealed beside it, in any.

    A report decides nothing: one asked for later is sealed after a widening done meanwhile.
    """
    sealed = Counter(event for event in done if event[0] == "ReportSealed")
    return [event for event in done if event[0] != "ReportSealed"], sealed


def _unlike(figures, right):
    more, less = Counter(figures) - Counter(right), Counter(right) - Counter(figures)
    return f"{list(more)} more, {list(less)} less" if more or less else f"{figures}, not {right}"


def never_wider(transaction, rollout, policies, right, instants, late):
    """O5: no stage at any of `instants` is higher than without faults.

    Args:
        transaction, rollout: where to look.
        policies: each policy by its hash.
        right: the scope without faults.
        instants: from now on.
        late: how much later than without faults a grant may have been given, and so may end.
    """
    try:
        scope = Ledger(transaction, rollout).load_scope()
    except Exception:  # noqa: BLE001 - `scope_held` tells of it
        return []
    wrong = []
    for cell, version in scope.cells:
        for at in instants:
            stage_level = compute_stage_level(scope, policies[scope.policy_hash], cell, version, at)
            policy = policies[right.policy_hash]
            most = max(
                compute_stage_level(right, policy, cell, version, t) for t in (at, at - late)
            )
            if stage_level > most:
                wrong.append(f"O5 {cell} {version} at {at}: {stage_level}, without faults {most}")
    return wrong


def slots_done(transaction, rollout, slot):
    """O6: the slot, or a later one, is done."""
    query = "select max(slot) from tick_slots where rollout = :rollout and done_at is not null"
    ((last,),) = rows_of(transaction, rollout, query)
    return [] if last is not None and last >= slot else [f"O6 slot {slot} is not done, {last} is"]

"""What must hold of what leaves: reports, their deliveries, replies under a key, choices.

Like `tests.oracles`, each function returns what is wrong, nothing if all is well, and reads the
tables by SQL of its own.
"""

from collections import Counter
from dataclasses import dataclass

from rollout.features.reports.figures.report_version import compute_seal
from tests.oracles import ledger_rows, rows_of


@dataclass(frozen=True)
class Sealed:
    """A client was told of a report."""

    number: int
    hash: str


@dataclass(frozen=True)
class Replied:
    """A client was given an answer under its key."""

    key: str
    status: int
    body: str


@dataclass(frozen=True)
class Chose:
    """A client was told that a choice about a case is kept."""

    who: str
    key: str
    choice: str


@dataclass(frozen=True)
class Received:
    """A channel was given a message: its key, where it came, and what it links to."""

    key: str
    url: str
    link: str


# Reports


def reports_sealed(transaction, rollout, facts):
    """O1, O9: each report is what the ledger seals, once; each answered one is there."""
    query = (
        "select id, name, since, until, version, sealed_revision, hash, body "
        "from reports where rollout = :rollout"
    )
    rows = rows_of(transaction, rollout, query)
    hashes = {number: compute_seal(body) for number, *_, body in rows}
    wrong = [
        f"O9 report {number} is cited by {cited[:8]}, its text has {hashes[number][:8]}"
        for number, *_, cited, _ in rows
        if cited != hashes[number]
    ]
    rows_by_delivery = Counter((row[5], row[1], row[4], hashes[row[0]]) for row in rows)
    sealed = Counter(_seals(transaction, rollout))
    if rows_by_delivery != sealed:
        wrong.append(
            f"O9 reports without a seal {rows_by_delivery - sealed},"
            f" seals without one {sealed - rows_by_delivery}"
        )
    wrong += [
        f"O9 {name} since {since} until {until}, version {number}, is sealed {n} times"
        for (name, since, until, number), n in Counter(
            (body["report"], body["since"], body["until"], body["number"])
            for _, _, kind, _, body in ledger_rows(transaction, rollout)
            if kind == "ReportSealed"
        ).items()
        if n > 1
    ]
    return wrong + [
        f"O9 {fact} was answered and is not there"
        for fact in facts
        if isinstance(fact, Sealed) and hashes.get(fact.number) != fact.hash
    ]


def _seals(transaction, rollout):
    for revision, _, kind, _, body in ledger_rows(transaction, rollout):
        if kind == "ReportSealed":
            yield revision, body["report"], body["number"], body["sha256"]


# Deliveries


def queued(transaction, rollout):
    """Return what there is to be delivered: report, span, version and channel of each."""
    query = (
        "select r.name, r.since, r.until, r.version, d.channel from deliveries d "
        "left join reports r on r.id = d.report and r.rollout = d.rollout "
        "where d.rollout = :rollout"
    )
    return sorted(rows_of(transaction, rollout, query), key=repr)


def delivered(transaction, rollout, received, right):
    """O6, O9: what was sealed is queued, sent at least once under one key, and marked.

    Args:
        transaction, rollout: where to look.
        received: every message that a channel got.
        right: what is queued without faults.
    """
    deliveries = queued(transaction, rollout)
    wrong = [] if deliveries == right else [f"O9 queued are {deliveries}, without faults {right}"]
    query = (
        "select d.id, d.state, d.attempts, r.hash from deliveries d "
        "left join reports r on r.id = d.report where d.rollout = :rollout"
    )
    times, keys = Counter(message.key for message in received), set()
    for number, state, attempts, cited in rows_of(transaction, rollout, query):
        key = f"{number}-{str(cited)[:16]}"
        keys.add(key)
        if state == "sent" and not times[key]:
            wrong.append(f"O9 delivery {number} is marked as sent, and nobody received it")
        if times[key] > attempts:
            wrong.append(f"O9 delivery {number} came {times[key]} times at {attempts} tries")
        if state != "sent":
            wrong.append(f"O6 delivery {number} is {state} after {attempts} tries")
    if set(times) - keys:
        wrong.append(f"O9 sent under keys that are nobody's: {set(times) - keys}")
    return wrong


def one_key_each(received):
    """O9: a message that comes twice comes with the same key."""
    keys = {}
    for message in received:
        keys.setdefault((message.url, message.link), set()).add(message.key)
    several = {link: report for (_, link), report in keys.items() if len(report) > 1}
    return [f"O9 several keys of {link}: {report}" for link, report in several.items()]


# Replies and choices


def replies_kept(transaction, rollout, reply_facts):
    """O1: requests with the same key get one answer, the stored one."""
    query = "select key, response_status, response_body from idempotency_keys"
    replies = {row[0]: Replied(*row) for row in rows_of(transaction, rollout, query)}
    by_key = {}
    for fact in reply_facts:
        if isinstance(fact, Replied):
            by_key.setdefault(fact.key, []).append(fact)
    return [
        f"O1 under {key} was answered {facts}, kept is {replies.get(key)}"
        for key, facts in by_key.items()
        if {replies.get(key), *facts} != {facts[0]}
    ]


def chosen_once(transaction, rollout, facts):
    """O1: a choice that was answered `kept` is there once."""
    query = (
        'select c."by", k.key, c.choice from cleanings c '
        "join external_keys k on k.id = c.case_id where c.rollout = :rollout"
    )
    choices = Counter(Chose(*row) for row in rows_of(transaction, rollout, query))
    wanted_choices = {fact for fact in facts if isinstance(fact, Chose)}
    return [
        f"O1 {fact} is there {choices[fact]} times" for fact in wanted_choices if choices[fact] != 1
    ]

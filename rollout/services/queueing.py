"""When the cases that came in are to be counted, without resolving them first.

Where a unit is a case, its slots follow from a few times. What is queued here holds every slot
that `rollout.tally.units.resolve` will give it, and at most some more: an entry whose unit is not
ripe, or was counted, is taken and nothing follows. Units that are episodes depend on other cases:
the next tick resolves them, many at once, and queues those that are not ripe.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from rollout import faults
from rollout.core.ledger import micros as micros_of
from rollout.core.policy import Policy
from rollout.core.records import Case, Decision, Prediction, Record
from rollout.services.ingesting import looks_at_more
from rollout.services.standing import Standing
from rollout.store.columns import stored
from rollout.store.due import CAME, Due, DueQueue
from rollout.store.records import Kept, Verdict
from rollout.store.session import Transaction
from rollout.store.touched import Facts, Touched
from rollout.tally.slots import micros

BLIND, ASSISTED, UNKNOWN = "blind", "assisted", "unknown"
Entry = tuple[int, int, str]


def queue(
    transaction: Transaction,
    stood: Standing,
    records: Iterable[Record],
    kept: Kept,
    at: datetime,
) -> None:
    """Write when the units of the cases just kept are to be counted.

    Args:
        transaction: the writing one that kept them.
        stood: the rollout's standing.
        records: what came in.
        kept: the store's answers to them, in the same order.
        at: when it came in.
    """
    pairs, accepted = zip(records, kept.answers, strict=True), Verdict.ACCEPTED
    new = [record for record, answer in pairs if answer.verdict is accepted]
    touched = {kept.case_ids[record.key] for record in new}
    if not touched:
        return
    if looks_at_more(stood.policy):
        DueQueue(transaction, stood.rollout).note_arrived(touched, at)
    if stood.policy.evidence.unit != "case":
        DueQueue(transaction, stood.rollout).add(Due(at, number, CAME) for number in touched)
        faults.point("ingest.due")
        return
    store = Touched(transaction, stood.rollout)
    facts = {number: Facts() for number in touched}
    _add(facts, new, kept.case_ids, stored(at))
    facts |= store.facts(touched - kept.new)  # of those known before all that is stored counts
    store.queue(_entries(facts, stood.policy))
    faults.point("ingest.due")


def _add(
    facts: Mapping[int, Facts], new: Sequence[Record], numbers: Mapping[str, int], received: int
) -> None:
    """Add what records say of their cases; of several revisions the highest counts."""
    if any(record.revision > 1 for record in new):
        new = sorted(new, key=_revision)
    for record in new:
        fact = facts[numbers[record.key]]
        if isinstance(record, Prediction):
            fact.predicted[record.version] = None if record.at is None else micros_of(record.at)
        elif isinstance(record, Decision):
            submitted = record.submitted_at
            judged = received if submitted is None else micros_of(submitted)
            fact.decided[record.reviewer] = (record.exposure, judged)
        elif isinstance(record, Case):
            fact.site, fact.received = record.site, received
            fact.occurred = micros_of(record.occurred_at)


def _revision(record: Record) -> int:
    return record.revision


def _entries(facts: Mapping[int, Facts], policy: Policy) -> list[Entry]:
    sites = policy.site
    grace, tick = micros(policy.evidence.grace), micros(policy.tick)
    unseen = {BLIND, UNKNOWN} if policy.evidence.outside_blind else {BLIND}
    entries: set[Entry] = set()
    for number, fact in facts.items():
        if fact.site in sites and fact.predicted:
            due = max(fact.occurred, fact.received) + grace
            entries.add((_slot(due, fact.occurred, tick), number, "gate"))
            entries.update(
                (_slot(counted, fact.occurred, tick), number, track)
                for track, counted in _judged(fact, unseen)
            )
    return sorted(entries)


def _judged(fact: Facts, unseen: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield on which track, and when, each verdict meets each prediction."""
    for exposure, at in fact.decided.values():
        track = "guard" if exposure in unseen else exposure
        if track in {"guard", ASSISTED}:
            for predicted in fact.predicted.values():
                said = fact.occurred if predicted is None else predicted
                yield track, max(at, said, fact.occurred)


def _slot(counted: int, occurred: int, tick: int) -> int:
    """Return the instant of the slot in which something is counted, as `resolve` gives it."""
    return max(-(-counted // tick), occurred // tick + 1) * tick

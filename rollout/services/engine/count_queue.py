"""When the cases that came in are to be counted, without resolving them first.

Where a unit is a case, its slots follow from a few times. What is queued here holds every slot
that `rollout.tally.units.resolve` will give it, and at most some more: an entry whose unit is not
ripe, or was counted, is taken and nothing follows. Units that are episodes depend on other cases:
the next tick resolves them, many at once, and queues those that are not ripe.
"""

from collections.abc import Mapping
from datetime import datetime

from rollout import faults
from rollout.core.policy.policy import Policy
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.unit_counting import looks_at_more
from rollout.store.counting.count_queue import CAME, Due, DueQueue
from rollout.store.database.session import Transaction
from rollout.store.records.incoming_cases import Facts, Touched, facts_of
from rollout.store.records.records import Kept
from rollout.store.tables.columns import stored
from rollout.tally.slots import micros

BLIND, ASSISTED, UNKNOWN = "blind", "assisted", "unknown"
GATE, GUARD = "gate", "guard"
Entry = tuple[int, int, str]


def queue(transaction: Transaction, stood: Standing, kept: Kept, at: datetime) -> None:
    """Write when the units of the cases just kept are to be counted.

    Args:
        transaction: the writing one that kept them.
        stood: the rollout's standing.
        kept: what became of what came in.
        at: when it came in.
    """
    touched = kept.touched
    if not touched:
        return
    if looks_at_more(stood.policy):
        DueQueue(transaction, stood.rollout).note_arrived(touched, at)
    if stood.policy.evidence.unit != "case":
        DueQueue(transaction, stood.rollout).add(Due(at, number, CAME) for number in touched)
        faults.point("ingest.due")
        return
    store = Touched(transaction, stood.rollout)
    facts = facts_of(kept.columns, stored(at))
    if touched - kept.new:  # of those known before all that is stored counts
        facts |= store.facts(touched - kept.new)
    store.queue(_entries(facts, stood.policy))
    faults.point("ingest.due")


def _entries(facts: Mapping[int, Facts], policy: Policy) -> list[Entry]:
    """Return when each case counts: in the slot that something falls into, as `resolve` says."""
    sites = policy.site
    grace, tick = micros(policy.evidence.grace), micros(policy.tick)
    tracks = {BLIND: GUARD, ASSISTED: ASSISTED}
    if policy.evidence.outside_blind:
        tracks[UNKNOWN] = GUARD
    gates: list[Entry] = []
    judged: set[Entry] = set()
    for number, fact in facts.items():
        if fact.site not in sites or not fact.predicted:
            continue
        occurred = fact.occurred
        first = occurred // tick + 1  # the slot after the one in which it occurred
        due = max(occurred, fact.received) + grace
        gates.append((max(-(-due // tick), first) * tick, number, GATE))
        for exposure, at in fact.decided.values():
            track = tracks.get(exposure)
            if track is not None:
                for predicted in fact.predicted.values():
                    said = occurred if predicted is None else predicted
                    counted = max(at, said)
                    judged.add((max(-(-counted // tick), first) * tick, number, track))
    return [*sorted(judged), *gates]  # one after another an insert finds its place at once

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
    case_ids = kept.touched
    if not case_ids:
        return
    if looks_at_more(stood.policy):
        DueQueue(transaction, stood.rollout).note_arrived(case_ids, at)
    if stood.policy.evidence.unit != "case":
        DueQueue(transaction, stood.rollout).add(Due(at, case_id, CAME) for case_id in case_ids)
        faults.point("ingest.due")
        return
    incoming_cases = Touched(transaction, stood.rollout)
    case_facts = facts_of(kept.columns, stored(at))
    if case_ids - kept.new:  # of those known before all that is stored counts
        case_facts |= incoming_cases.facts(case_ids - kept.new)
    incoming_cases.queue(_entries(case_facts, stood.policy))
    faults.point("ingest.due")


def _entries(facts: Mapping[int, Facts], policy: Policy) -> list[Entry]:
    """Return when each case counts: in the slot that something falls into, as `resolve` says."""
    sites = policy.site
    grace, tick = micros(policy.evidence.grace), micros(policy.tick)
    tracks = {BLIND: GUARD, ASSISTED: ASSISTED}
    if policy.evidence.outside_blind:
        tracks[UNKNOWN] = GUARD
    gate_entries: list[Entry] = []
    decision_entries: set[Entry] = set()
    for case_id, case in facts.items():
        if case.site not in sites or not case.predicted:
            continue
        occurred_at = case.occurred
        first_slot = occurred_at // tick + 1  # the slot after the one in which it occurred
        due_at = max(occurred_at, case.received) + grace
        gate_entries.append((max(-(-due_at // tick), first_slot) * tick, case_id, GATE))
        for exposure, decided_at in case.decided.values():
            track = tracks.get(exposure)
            if track is not None:
                for prediction_time in case.predicted.values():
                    predicted_at = occurred_at if prediction_time is None else prediction_time
                    counted_at = max(decided_at, predicted_at)
                    decision_entries.add(
                        (max(-(-counted_at // tick), first_slot) * tick, case_id, track)
                    )
    return [
        *sorted(decision_entries),
        *gate_entries,
    ]  # one after another an insert finds its place at once

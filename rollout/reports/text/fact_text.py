"""Sentences about what speaks against a proposal: the only ones there are."""

from rollout.core.policy.fresh_evidence import ALARM, NEWEST, FreshFact


def describe_fresh_fact(fact: FreshFact) -> str:
    """Say what answers that don't count yet hold against a widening.

    >>> describe_fresh_fact(FreshFact("newest", "agreement at least 90 %", 3, 20))
    'of the newest 20 answers 3 agree, for agreement at least 90 %'
    """
    if fact.kind == ALARM:
        return f"the guard on {fact.subject} would trip now"
    if fact.kind == NEWEST:
        return f"of the newest {fact.units} answers {fact.agreed} agree, for {fact.subject}"
    counts = f"{fact.agreed} of {fact.units}" if fact.units else "the costs"
    return f"with answers that don't count yet, {counts} speak against {fact.subject}"

"""What an edit of a policy loosens, in words."""

from rollout.engine.decide.policy_diff import list_looser_rules
from rollout.kernel.facts import parse_facts, to_facts
from rollout.kernel.words import say_looser


def say_looser_rules(old, new):
    """Return it as a ledger that was read says it."""
    looser_rules = list_looser_rules(old, new)
    assert [parse_facts(type(each), to_facts(each)) for each in looser_rules] == [*looser_rules]
    return tuple(map(say_looser, looser_rules))

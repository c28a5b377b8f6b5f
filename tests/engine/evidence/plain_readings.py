"""Readings of guards computed slot by slot and unit by unit."""

from math import ceil

from tests.kernel.statistics.step_detectors import (
    ActionChangeDetector,
    AgreementDetector,
    CostDetector,
)


class Plain:
    """A detector of a guard, fed with the units of one slot after another.

    A unit is anything with `lever`, `predicted`, `decided` and `level`.
    """

    def __init__(self, guard, policy):
        self.guard, self.policy, condition = guard, policy, guard.condition
        every = guard.false_alarm_every
        match condition.measure.name:
            case "cost":
                self.detector = CostDetector(policy.scale_cost(condition.threshold), every)
            case "action_change":
                self.detector = ActionChangeDetector(condition.threshold, every)
            case "override":
                self.detector = AgreementDetector(1 - condition.threshold, every)
            case _:
                self.detector = AgreementDetector(condition.threshold, every)
        self.bad = self.records = 0

    def see(self, kinds):
        """Take in the units of one slot."""
        condition = self.guard.condition
        if condition.measure.name != "action_change":
            lever = condition.lever or self.policy.whole_unit_lever
            kinds = [kind for kind in kinds if kind.lever == lever]
        getattr(self, condition.measure.name, self.share)(kinds)

    def share(self, kinds):
        condition = self.guard.condition
        if condition.measure.name == "recall":
            kinds = [kind for kind in kinds if kind.decided == condition.label]
        if condition.measure.name == "precision":
            kinds = [kind for kind in kinds if kind.predicted == condition.label]
        good = sum(kind.predicted == kind.decided for kind in kinds)
        self._moved(len(kinds) - good, kinds)
        if kinds:
            self.detector = self.detector.update(good, len(kinds))

    def cost(self, kinds):
        levels = range(len(self.policy.cost_levels))
        counts = [sum(kind.level == level for kind in kinds) for level in levels]
        self._moved(sum(counts[1:]), kinds)
        self.detector = self.detector.update(self.policy.cost_shares, counts)

    def action_change(self, kinds):
        levers = self.policy.levers_by_id
        kinds = [k for k in kinds if k.lever in levers and "ring" in levers[k.lever].actions]
        acts = [(kind.predicted == "bear", kind.decided == "bear") for kind in kinds]
        model, person = acts.count((True, False)), acts.count((False, True))
        self._moved(model, kinds)
        self.detector = self.detector.update(model, person, len(acts))

    def _moved(self, bad, kinds):
        self.bad += bad
        self.records += len(kinds)


def in_alarm(guard, bad, records):
    """Say whether so many bad records of so many are over the line of a guard with a span."""
    line = guard.condition.threshold
    match guard.condition.measure.name:
        case "harm":
            return bad > line
        case "latency_p95":
            return bad > 0.05 * records
        case "unaudited":
            return records >= 20 and bad > line * records
    return bad > line * records


def within(guard, tick, slot, came):
    """Return what came, as (slot, bad), within the guard's span up to a slot."""
    over = ceil((guard.over or tick) / tick)
    return [bad for at, bad in came if slot - over < at <= slot]

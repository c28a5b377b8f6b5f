"""What decides next in a cell, in one sentence."""

from datetime import datetime
from typing import TYPE_CHECKING

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.proposals import is_challenger
from rollout.core.scope.scope import CellState, Proposal, Scope
from rollout.core.scope.waves import wave_holds
from rollout.reports.inputs.gate_progress import Leg
from rollout.reports.inputs.inputs import Key
from rollout.reports.text.formatting import number, per_cent, zoned

if TYPE_CHECKING:
    from rollout.reports.figures.evidence_facts import ConditionFacts, GateFacts

NOT_ON_COURSE = 0.5  # the chance of lying below the line above which no date is given


def next_step(
    key: Key,
    leg: Leg,
    gate: "GateFacts | None",
    per_day: float | None,
    scope: Scope,
    policy: Policy,
    at: datetime,
) -> str:
    """Say what decides about the next step of one version in one cell."""
    cell, version = key
    zone, state = policy.site[cell.site].timezone, scope.state(cell, version)
    hold = _withheld(state, cell, scope, zone, at)
    if hold:
        return hold
    if state.proposal is not None:
        return _of_proposal(scope.proposals[state.proposal], zone, at)
    acting_version = scope.holder(cell)
    if acting_version not in (None, version) and not is_challenger(
        scope, version, str(acting_version)
    ):
        return f"{acting_version}, seen later, acts here; only an operator brings {version} back"
    if gate is None:
        return _at_the_top(leg, cell, policy, at, zone)
    wave_hold = wave_holds(scope, policy, cell, policy.rungs.index(gate.to), at)
    if gate.met and wave_hold is None:
        return f"everything that the gate to {gate.to} asks for is there"
    missing = [*gate.lacks, *(wanting(c, per_day) for c in gate.conditions if not c.met)]
    return f"{gate.to}: " + "; ".join([*missing, *([wave_hold] if wave_hold else [])])


def _withheld(state: CellState, cell: Cell, scope: Scope, zone: str, at: datetime) -> str:
    if scope.stopped(cell):
        return "stopped by a person until a resume is approved"
    if state.suspended_by:
        return f"suspended until this is good again: {', '.join(sorted(state.suspended_by))}"
    if state.quiet_until is not None and at < state.quiet_until:
        quiet_until = zoned(state.quiet_until, zone, at)
        return f"a proposal was rejected: nothing is raised before {quiet_until}"
    return ""


def _of_proposal(proposal: Proposal, zone: str, at: datetime) -> str:
    subject = f"{proposal.kind} to {proposal.to} ({proposal.id})"
    if proposal.approved:
        return f"{subject} is approved and waits for its time"
    approvals = f"{len(proposal.approvals)} of {len(proposal.needs)} approvals"
    return (
        f"{subject} waits for people: {approvals}, open until"
        f" {zoned(proposal.expires_at, zone, at)}"
    )


def _at_the_top(leg: Leg, cell: Cell, policy: Policy, at: datetime, zone: str) -> str:
    ceiling = policy.ceiling(cell, at)
    ends = [grant.until for grant in leg.state.grants if grant.valid(at)]
    expiry = f"; the grant ends {zoned(min(ends), zone, at)} unless renewed" if ends else ""
    if leg.ahead:
        return "another version acts here at the highest stage that this one could ask for"
    if leg.rung >= len(policy.stages):
        return f"nothing above this stage{expiry}"
    if leg.rung >= ceiling:
        return f"the policy allows no more than {policy.rungs[ceiling]} here{expiry}"
    return f"no gate leads to {policy.rungs[leg.rung + 1]}{expiry}"


def wanting(condition: "ConditionFacts", per_day: float | None) -> str:
    """Say how far a condition is from being met."""
    if condition.n == 0:
        return f"{condition.condition}: no data yet"
    if condition.measure == "cost":
        return (
            f"{condition.condition}: {condition.estimate:.3g} so far, "
            f"known to be at most {condition.bound:.3g}"
        )
    if condition.measure == "parity":
        return f"{condition.condition}: evidence {condition.log_e:.1f} of {condition.needed:.1f}"
    counts = f"{number(condition.counts[0])} of {number(condition.n)}"
    if condition.below is not None and condition.below > NOT_ON_COURSE:
        is_early = condition.estimate is not None and condition.estimate >= condition.line
        status = "is too early to tell" if is_early else "is not on course"
        return f"{condition.condition} {status}: {counts}, {per_cent(condition.estimate)}"
    return f"{condition.condition}: {counts}, about {_more(condition, per_day)} if all agree"


def _more(condition: "ConditionFacts", per_day: float | None) -> str:
    further = condition.further or 0
    text = f"{number(further)} more agreement{'' if further == 1 else 's'}"
    if not per_day or condition.measure != "agreement":
        return text
    days = further / per_day
    return f"{text}, {'a day' if days < 1.5 else f'{days:.0f} days'}"

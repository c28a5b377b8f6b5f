"""Who could still say yes to a proposal, and what to do where too few are left.

A page that refuses one person names the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.core.scope.permissions import OPERATOR, Act, Caller, require
from rollout.core.scope.quorum import Groups, askers, groups_at, resume_lacks, unfilled, without
from rollout.core.scope.scope import Proposal as ScopeProposal
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.proposals.eligible_approvers import (
    NAMED,
    at_text,
    giving,
    needs_text,
    people_here,
    some,
)
from rollout.services.proposals.proposal_details import Proposal, sites_of
from rollout.store.database.session import Transaction


@dataclass(frozen=True, slots=True)
class Asking:
    """Who can ask for a stop's end.

    Attributes:
        able: by name those whose asking leaves enough others to approve it.
        warns: of the caller's asking, or that nobody's is of use, with what to do; "" for nothing.
    """

    able: tuple[str, ...]
    warns: str


def who_can(service: Service, caller: Caller, name: str, shown: Proposal) -> tuple[str, ...]:
    """Return by name the people whose yes would still count, () for a proposal that is closed.

    Whoever raised it is not among them, nor who has said yes, nor who may not sign in.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    if shown.id not in stood.scope.proposals:
        return ()
    said = {shown.raised_by, *(yes.by for yes in shown.approvals)}
    with service.database.reading() as transaction:
        people = people_here(transaction) or ()
    groups = groups_at((p for p in people if p.name not in said), name, sites_of(stood, shown.id))
    return tuple(sorted(n for n, held in groups.items() if set(held) & set(shown.groups_missing)))


def too_few(service: Service, caller: Caller, name: str, proposal: str) -> str:
    """Say that too few are left to approve an open proposal, and what to do; "" for enough.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    found = stood.scope.proposals.get(proposal)
    if found is None:
        return ""
    with service.database.reading() as transaction:
        return left_over(transaction, stood, found)


def left_over(transaction: Transaction, stood: Standing, proposal: ScopeProposal) -> str:
    """Say the same of a proposal; of one that is approved nothing is left over."""
    people, sites = people_here(transaction), sites_of(stood, proposal.id)
    if people is None:
        return ""
    groups = dict(groups_at(people, stood.rollout.name, sites))
    for yes in proposal.approvals:  # it counts, whatever rights they have now
        groups[yes.by] = (*groups.get(yes.by, ()), *yes.groups)
    instead = f"reject {proposal.id} and let" if proposal.kind == "resume" else ""
    return _too_few(proposal.needs, groups, proposal.raised_by, instead, sites)


def asking(
    service: Service, caller: Caller, name: str, needs: Sequence[str], sites: Sequence[str]
) -> Asking:
    """Return who can ask for a stop's end so that enough others are left to approve it.

    Args:
        service: the replica that is asked.
        caller: who looks.
        name: of the rollout.
        needs: the approvals that the resume would ask.
        sites: of the stop.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    with service.database.reading() as transaction:
        people = people_here(transaction)
    groups = groups_at(people or (), name, tuple(sites))
    able = askers(needs, groups)
    if people is None or caller.name in able:
        return Asking(able, "")
    if OPERATOR in groups.get(caller.name, ()):
        return Asking(able, f"if you ask, {_too_few(needs, groups, caller.name, 'let', sites)}")
    step = giving(resume_lacks(needs, groups)) + at_text(sites)
    return Asking(able, "" if able else f"as people stand nobody can take it back; {step}")


def _too_few(
    needs: Sequence[str], people: Groups, asker: str, instead: str, sites: Sequence[str]
) -> str:
    """Say whom a proposal lacks; `instead` is how another one comes to ask, "" for not at all."""
    left = without(people, asker)
    lacks = unfilled(needs, left)
    if not lacks:
        return ""
    able = sorted(name for name, groups in left.items() if set(groups) & set(needs))
    others = askers(needs, people) if instead else ()
    ways = [f"{instead} {' or '.join(others[:NAMED])} ask"] if others else []
    ways.append(giving(lacks) + at_text(sites))
    other = f" other than {asker}" if asker in people else ""
    return f"{_who(able)} it needs {needs_text(needs)}{other}; {', or '.join(ways)}"


def _who(able: list[str]) -> str:
    if not able:
        return "nobody is left who can approve it:"
    return f"{some(able)}{' alone' if len(able) == 1 else ''} can approve it, but"

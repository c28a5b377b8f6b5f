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
    state = service.watch.confirmed(name).standing
    if shown.id not in state.scope.proposals:
        return ()
    excluded_names = {shown.raised_by, *(approval.by for approval in shown.approvals)}
    with service.database.reading() as transaction:
        approvers = people_here(transaction) or ()
    groups_by_user = groups_at(
        (approver for approver in approvers if approver.name not in excluded_names),
        name,
        sites_of(state, shown.id),
    )
    return tuple(
        sorted(
            user_name
            for user_name, user_groups in groups_by_user.items()
            if set(user_groups) & set(shown.groups_missing)
        )
    )


def too_few(service: Service, caller: Caller, name: str, proposal: str) -> str:
    """Say that too few are left to approve an open proposal, and what to do; "" for enough.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    found = state.scope.proposals.get(proposal)
    if found is None:
        return ""
    with service.database.reading() as transaction:
        return left_over(transaction, state, found)


def left_over(transaction: Transaction, stood: Standing, proposal: ScopeProposal) -> str:
    """Say the same of a proposal; of one that is approved nothing is left over."""
    approvers, sites = people_here(transaction), sites_of(stood, proposal.id)
    if approvers is None:
        return ""
    groups_by_user = dict(groups_at(approvers, stood.rollout.name, sites))
    for approval in proposal.approvals:  # it counts, whatever rights they have now
        groups_by_user[approval.by] = (*groups_by_user.get(approval.by, ()), *approval.groups)
    alternative = f"reject {proposal.id} and let" if proposal.kind == "resume" else ""
    return _too_few(proposal.needs, groups_by_user, proposal.raised_by, alternative, sites)


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
        approvers = people_here(transaction)
    groups_by_user = groups_at(approvers or (), name, tuple(sites))
    asker_names = askers(needs, groups_by_user)
    if approvers is None or caller.name in asker_names:
        return Asking(asker_names, "")
    if OPERATOR in groups_by_user.get(caller.name, ()):
        return Asking(
            asker_names, f"if you ask, {_too_few(needs, groups_by_user, caller.name, 'let', sites)}"
        )
    remedy = giving(resume_lacks(needs, groups_by_user)) + at_text(sites)
    return Asking(
        asker_names, "" if asker_names else f"as people stand nobody can take it back; {remedy}"
    )


def _too_few(
    needs: Sequence[str], people: Groups, asker: str, instead: str, sites: Sequence[str]
) -> str:
    """Say whom a proposal lacks; `instead` is how another one comes to ask, "" for not at all."""
    remaining_groups = without(people, asker)
    missing_groups = unfilled(needs, remaining_groups)
    if not missing_groups:
        return ""
    able_names = sorted(
        user_name for user_name, groups in remaining_groups.items() if set(groups) & set(needs)
    )
    other_askers = askers(needs, people) if instead else ()
    remedies = [f"{instead} {' or '.join(other_askers[:NAMED])} ask"] if other_askers else []
    remedies.append(giving(missing_groups) + at_text(sites))
    exception_text = f" other than {asker}" if asker in people else ""
    return (
        f"{_who(able_names)} it needs {needs_text(needs)}{exception_text}; {', or '.join(remedies)}"
    )


def _who(able: list[str]) -> str:
    if not able:
        return "nobody is left who can approve it:"
    return f"{some(able)}{' alone' if len(able) == 1 else ''} can approve it, but"

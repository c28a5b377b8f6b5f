"""The proposals of a rollout: what waits, several approved at once, what became of the others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import Form, Signed, fault
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.text import segment
from api.console.proposals.evidence_table import brief
from api.console.proposals.manual_proposal import Wanted, clock_is_off, options_of, wanted_of
from api.console.proposals.proposal import path_of, version_of
from api.console.proposals.proposal_text import Question, question, told
from api.problems import STATUS
from rollout.core.errors import Refusal, UnknownProposal
from rollout.core.scope.permissions import Act
from rollout.services.proposals import proposals
from rollout.services.proposals.proposal_details import STATES, Proposal, listing, one
from rollout.services.proposals.proposals import CLOCK, MOST_AT_ONCE, ProposalResult

router = APIRouter()
AT_ONCE: Final = 25
CLOSED: Final = tuple(state for state in STATES if state not in {"open", "approved"})
GIVEN: Final = re.compile(r"(P-[0-9]{1,12})\.([0-9a-f]{0,64})")
State = Annotated[str, Query(max_length=20)]
After = Annotated[int | None, Query(ge=1, le=2**53)]
Several = Annotated[list[str] | None, Query(max_length=MOST_AT_ONCE)]
TICK_ONE = "Tick at least one proposal; nothing was approved"


@dataclass(frozen=True, slots=True)
class Line:
    """A proposal in the list, whether its box is ticked, why the visitor can't approve it."""

    shown: Proposal
    question: Question
    value: str
    ticked: bool
    why_not: str
    brief: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one of several: `kind` and word of its tag, and why where it was refused."""

    shown: Proposal
    kind: str
    tag: str
    why: str


def list_of(rollout: str) -> str:
    """Return where the proposals of a rollout are listed."""
    return f"/rollouts/{segment(rollout)}/proposals"


@router.get("/rollouts/{rollout}/proposals")
def read(
    request: Request, rollout: str, visitor: Visiting, state: State = "", after: After = None
) -> Response:
    """Show what waits, then what became of the others, a page at a time."""
    return _shown(request, visitor, rollout, state=state, after=after)


@router.post("/rollouts/{rollout}/approvals")
def approve_several(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Say yes to those that are ticked, each by the hash that it was shown with."""
    reason = form.one("reason")
    matches = [match for match in map(GIVEN.fullmatch, form.every("approve")) if match]
    errors = {"approve": TICK_ONE} if not matches else {}
    if reason_fault := fault(reason, "approve"):
        errors["reason"] = reason_fault
    if errors:
        return _shown(request, visitor, rollout, 422, errors=errors, form=form)
    approvals = [(match[1], match[2], reason) for match in matches[:MOST_AT_ONCE]]
    proposals.approve_each(
        visitor.service.database, visitor.caller, rollout, approvals, at=visitor.at
    )
    query = urlencode(
        [("p", f"{proposal}.{evidence_hash}") for proposal, evidence_hash, _ in approvals]
    )
    return to(f"/rollouts/{segment(rollout)}/approvals?{query}")


@router.get("/rollouts/{rollout}/approvals")
def approved(request: Request, rollout: str, visitor: Visiting, p: Several = None) -> Response:
    """Show what became of several: read from the ledger, the address only names them."""
    if not p:
        return to(list_of(rollout))
    matches = [candidates for candidates in map(GIVEN.fullmatch, p or ()) if candidates]
    candidates = [_outcome(visitor, rollout, item[1], item[2]) for item in matches]
    outcomes = [item for item in candidates if item is not None]
    approved_count = sum(item.kind == "good" for item in outcomes)
    changed_count = sum(item.tag == MOVED for item in outcomes)
    counts = {
        "yes": approved_count,
        "moved": changed_count,
        "others": len(outcomes) - approved_count - changed_count,
    }
    return page(request, visitor, "approvals", rollout=rollout, outcomes=outcomes, **counts)


@router.post("/rollouts/{rollout}/proposals/raise")
def raise_one(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Propose a takeover, a renewal, or that the ledger's time goes back."""
    try:
        raised_proposal = _raised(visitor, rollout, wanted_of(form.one("what")))
    except Refusal as error:
        status = STATUS.get(error.code, 422)
        errors = {"what": told(str(error), visitor.name, *_versions(visitor, rollout))}
        return _shown(request, visitor, rollout, status, errors=errors, form=form)
    return to(path_of(rollout, raised_proposal.proposal))


def _raised(visitor: Visitor, rollout: str, wanted: Wanted) -> ProposalResult:
    database, caller, at = visitor.service.database, visitor.caller, visitor.at
    if wanted.kind == CLOCK:
        return proposals.correct_clock(database, caller, rollout, at=at)
    return proposals.raise_for_cell(
        database, caller, rollout, wanted.kind, wanted.cell, wanted.version, wanted.to, at=at
    )


MOVED = "Had moved"


def _outcome(visitor: Visitor, rollout: str, proposal: str, evidence: str) -> Outcome | None:
    """Say what became of a yes, None of what never was."""
    try:
        details = one(visitor.service, visitor.caller, rollout, proposal, at=visitor.at)
    except UnknownProposal:
        return None
    if (
        any(approval.by == visitor.name for approval in details.approvals)
        and details.evidence_hash == evidence
    ):
        return Outcome(details, "good", "Approved by you", "")
    if details.evidence_hash != evidence:
        return Outcome(
            details, "warn", MOVED, "It rests on other evidence than was shown; read it."
        )
    reason = told(details.cannot_approve_reason or "it still waits", visitor.name)
    return Outcome(details, "mute", "Not approved", reason)


def _shown(  # noqa: PLR0913 - a list, its filter, and a form that comes back
    request: Request,
    visitor: Visitor,
    rollout: str,
    status: int = 200,
    *,
    state: str = "",
    after: int | None = None,
    errors: dict[str, str] | None = None,
    form: Form | None = None,
) -> Response:
    live_region = live(request, visitor, rollout)
    service, caller, at = visitor.service, visitor.caller, visitor.at
    states = (state,) if state in CLOSED else CLOSED
    closed_page = listing(
        service, caller, rollout, at=at, states=states, before=after, limit=AT_ONCE
    )
    open_proposals = (
        () if after else listing(service, caller, rollout, at=at, limit=MOST_AT_ONCE).items
    )
    lines = _lines(visitor, rollout, open_proposals, () if form is None else form.every("approve"))
    next_path = None if closed_page.before is None else _further(rollout, state, closed_page.before)
    reason = "" if form is None else form.one("reason")
    context: dict[str, Any] = {
        "rollout": rollout,
        "live": live_region,
        "lines": lines,
        "closed": _lines(visitor, rollout, closed_page.items, ()),
        "states": CLOSED,
        "state": state if state in CLOSED else "",
        "first_page": after is None,
        "further": next_path,
        "may_approve": any(line.shown.can_approve for line in lines),
        "errors": errors or {},
        "typed": {"reason": reason},
        "version_hash": "-".join(version_of(line.shown)[:4] for line in lines),
        **_to_raise(visitor, rollout),
    }
    return page(request, visitor, "proposals", status, **context)


def _lines(
    visitor: Visitor, rollout: str, items: Sequence[Proposal], ticked: Sequence[str]
) -> list[Line]:
    state = visitor.service.watch.confirmed(rollout).standing
    values = [f"{details.id}.{details.evidence_hash}" for details in items]
    questions = [question(state, details, visitor.at) for details in items]
    return [
        Line(
            shown=details,
            question=question,
            value=value,
            ticked=value in ticked,
            why_not=told(details.cannot_approve_reason, visitor.name),
            brief=brief(details.readings),
        )
        for details, question, value in zip(items, questions, values, strict=True)
    ]


def _to_raise(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return what the visitor may propose by hand."""
    state = visitor.service.watch.confirmed(rollout).standing
    sites = frozenset(visitor.sites(Act.OPERATE, rollout, state.policy))
    has_all_sites = bool(sites) and len(sites) == len(state.policy.site)
    return {
        "operates_here": bool(sites),
        "options": options_of(state, sites, visitor.at),
        "clock": "clock////" if has_all_sites and clock_is_off(state, visitor.at) else "",
    }


def _versions(visitor: Visitor, rollout: str) -> tuple[str, ...]:
    return tuple(visitor.service.watch.confirmed(rollout).standing.scope.versions)


def _further(rollout: str, state: str, before: int) -> str:
    query = urlencode({"state": state, "after": before} if state else {"after": before})
    return f"/console{list_of(rollout)}?{query}"

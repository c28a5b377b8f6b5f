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
    given = [found for found in map(GIVEN.fullmatch, form.every("approve")) if found]
    errors = {"approve": TICK_ONE} if not given else {}
    if wrong := fault(reason, "approve"):
        errors["reason"] = wrong
    if errors:
        return _shown(request, visitor, rollout, 422, errors=errors, form=form)
    wanted = [(found[1], found[2], reason) for found in given[:MOST_AT_ONCE]]
    proposals.approve_each(visitor.service.database, visitor.caller, rollout, wanted, at=visitor.at)
    query = urlencode([("p", f"{proposal}.{evidence}") for proposal, evidence, _ in wanted])
    return to(f"/rollouts/{segment(rollout)}/approvals?{query}")


@router.get("/rollouts/{rollout}/approvals")
def approved(request: Request, rollout: str, visitor: Visiting, p: Several = None) -> Response:
    """Show what became of several: read from the ledger, the address only names them."""
    if not p:
        return to(list_of(rollout))
    given = [found for found in map(GIVEN.fullmatch, p or ()) if found]
    found = [_outcome(visitor, rollout, each[1], each[2]) for each in given]
    outcomes = [each for each in found if each is not None]
    yes = sum(each.kind == "good" for each in outcomes)
    moved = sum(each.tag == MOVED for each in outcomes)
    counts = {"yes": yes, "moved": moved, "others": len(outcomes) - yes - moved}
    return page(request, visitor, "approvals", rollout=rollout, outcomes=outcomes, **counts)


@router.post("/rollouts/{rollout}/proposals/raise")
def raise_one(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Propose a takeover, a renewal, or that the ledger's time goes back."""
    try:
        raised = _raised(visitor, rollout, wanted_of(form.one("what")))
    except Refusal as refused:
        status = STATUS.get(refused.code, 422)
        errors = {"what": told(str(refused), visitor.name, *_versions(visitor, rollout))}
        return _shown(request, visitor, rollout, status, errors=errors, form=form)
    return to(path_of(rollout, raised.proposal))


def _raised(visitor: Visitor, rollout: str, wanted: Wanted) -> ProposalResult:
    database, who, at = visitor.service.database, visitor.caller, visitor.at
    if wanted.kind == CLOCK:
        return proposals.correct_clock(database, who, rollout, at=at)
    return proposals.raise_for_cell(
        database, who, rollout, wanted.kind, wanted.cell, wanted.version, wanted.to, at=at
    )


MOVED = "Had moved"


def _outcome(visitor: Visitor, rollout: str, proposal: str, evidence: str) -> Outcome | None:
    """Say what became of a yes, None of what never was."""
    try:
        shown = one(visitor.service, visitor.caller, rollout, proposal, at=visitor.at)
    except UnknownProposal:
        return None
    if any(yes.by == visitor.name for yes in shown.approvals) and shown.evidence_hash == evidence:
        return Outcome(shown, "good", "Approved by you", "")
    if shown.evidence_hash != evidence:
        return Outcome(shown, "warn", MOVED, "It rests on other evidence than was shown; read it.")
    why = told(shown.cannot_approve_reason or "it still waits", visitor.name)
    return Outcome(shown, "mute", "Not approved", why)


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
    heard = live(request, visitor, rollout)
    service, who, at = visitor.service, visitor.caller, visitor.at
    states = (state,) if state in CLOSED else CLOSED
    closed = listing(service, who, rollout, at=at, states=states, before=after, limit=AT_ONCE)
    waiting = () if after else listing(service, who, rollout, at=at, limit=MOST_AT_ONCE).items
    lines = _lines(visitor, rollout, waiting, () if form is None else form.every("approve"))
    further = None if closed.before is None else _further(rollout, state, closed.before)
    reason = "" if form is None else form.one("reason")
    around: dict[str, Any] = {
        "rollout": rollout,
        "live": heard,
        "lines": lines,
        "closed": _lines(visitor, rollout, closed.items, ()),
        "states": CLOSED,
        "state": state if state in CLOSED else "",
        "first_page": after is None,
        "further": further,
        "may_approve": any(line.shown.can_approve for line in lines),
        "errors": errors or {},
        "typed": {"reason": reason},
        "version_hash": "-".join(version_of(line.shown)[:4] for line in lines),
        **_to_raise(visitor, rollout),
    }
    return page(request, visitor, "proposals", status, **around)


def _lines(
    visitor: Visitor, rollout: str, items: Sequence[Proposal], ticked: Sequence[str]
) -> list[Line]:
    stood = visitor.service.watch.confirmed(rollout).standing
    values = [f"{shown.id}.{shown.evidence_hash}" for shown in items]
    asked = [question(stood, shown, visitor.at) for shown in items]
    return [
        Line(
            shown=shown,
            question=each,
            value=value,
            ticked=value in ticked,
            why_not=told(shown.cannot_approve_reason, visitor.name),
            brief=brief(shown.readings),
        )
        for shown, each, value in zip(items, asked, values, strict=True)
    ]


def _to_raise(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return what the visitor may propose by hand."""
    stood = visitor.service.watch.confirmed(rollout).standing
    sites = frozenset(visitor.sites(Act.OPERATE, rollout, stood.policy))
    everywhere = bool(sites) and len(sites) == len(stood.policy.site)
    return {
        "operates_here": bool(sites),
        "options": options_of(stood, sites, visitor.at),
        "clock": "clock////" if everywhere and clock_is_off(stood, visitor.at) else "",
    }


def _versions(visitor: Visitor, rollout: str) -> tuple[str, ...]:
    return tuple(visitor.service.watch.confirmed(rollout).standing.scope.versions)


def _further(rollout: str, state: str, before: int) -> str:
    query = urlencode({"state": state, "after": before} if state else {"after": before})
    return f"/console{list_of(rollout)}?{query}"

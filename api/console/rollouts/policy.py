"""A rollout's policy: what is in force, earlier ones, and a new one with its plan before it holds.

Nothing is applied that was not planned on the page before, against the policy that still holds.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.text import first_large, segment
from api.console.rollouts.policy_text import (
    OUTCOMES,
    Change,
    Difference,
    Fault,
    changes,
    differences,
    faults,
    in_area,
    kept,
)
from api.routers.policies import LONGEST
from api.schemas.policies import TEXT
from rollout.core.errors import NotAllowed, PolicyRefused, Refusal, UnknownRollout
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Act, require
from rollout.formats.policy.reader import PolicyFaults, load_policy
from rollout.services.incidents.incidents import channels_told
from rollout.services.policies import policies
from rollout.services.policies.policies import policies_of, policy_numbered
from rollout.services.proposals.eligible_approvers import needs_text
from rollout.services.support.channels import channel_warnings

router = APIRouter()
Number = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
EMPTY: Final = "Paste a policy: one YAML or JSON document"
OTHER: Final = "The text is of {}, not of {}. Change its first line, or go to that rollout's page."
MOVED: Final = (
    "Policy {} came into force since this was planned, so it was not applied. Your text is kept: "
    "plan it again and read what it changes now."
)
THERE: Final = "There is a rollout {} already. Change its policy on its own page."


@dataclass(frozen=True, slots=True)
class Seen:
    """A plan as it is shown: of which text, against which policy in force ("" for none)."""

    text: str
    against: str
    planned: policies.PolicyPlan
    outcome: str
    changes: tuple[Change, ...]
    differences: tuple[Difference, ...] | None
    needs: str


@router.get("/rollouts/{rollout}/settings")
def settings(request: Request, visitor: Visiting, rollout: str, policy: Number = None) -> Response:
    """Show the policy in force, or an earlier one."""
    return _shown(request, visitor, rollout, number=policy)


@router.post("/rollouts/{rollout}/settings")
def change(request: Request, visitor: Visiting, rollout: str, form: Signed) -> Response:
    """Plan a new text, or apply one that was planned."""
    require(visitor.caller, Act.READ, rollout)
    text = form.whole("text")
    try:
        if form.has("apply"):
            return _apply(visitor, rollout, text, form)
        plan_view = _plan(visitor, rollout, text)
    except Refusal as error:
        return _shown(request, visitor, rollout, text=text, refused=error)
    return _shown(request, visitor, rollout, text=text, seen=plan_view)


@router.get("/new")
def new(request: Request, visitor: Visiting) -> Response:
    """Ask for the first policy of a rollout that is not there yet."""
    return _new(request, visitor)


@router.post("/new")
def make(request: Request, visitor: Visiting, form: Signed) -> Response:
    """Plan a rollout, or make it."""
    text = form.whole("text")
    try:
        rollout_name = _checked(text).rollout
        _not_there(visitor, rollout_name)
        if form.has("apply"):
            return _apply(visitor, rollout_name, text, form)
        plan_view = _plan(visitor, rollout_name, text)
    except Refusal as error:
        return _new(request, visitor, text=text, refused=error)
    return _new(request, visitor, text=text, seen=plan_view)


def _apply(visitor: Visitor, rollout: str, text: str, form: Form) -> Response:
    service, current_hash = visitor.service, _in_force(visitor, rollout)
    if form.one("against") != current_hash:
        current_number = (
            "" if not current_hash else policies_of(service, visitor.caller, rollout)[0].number
        )
        raise PolicyRefused(MOVED.format(current_number))
    result = policies.put(
        service.database,
        visitor.caller,
        rollout,
        text,
        at=visitor.at,
        salt=service.entropy(policies.SALT),
        channels=service.channels.names,
    )
    if result.proposal:
        return to(f"/rollouts/{segment(rollout)}/proposals/{segment(result.proposal)}")
    return to(f"/rollouts/{segment(rollout)}/settings")


def _plan(visitor: Visitor, rollout: str, text: str) -> Seen:
    service, caller = visitor.service, visitor.caller
    policy = _checked(text)
    if policy.rollout != rollout:
        raise PolicyRefused(OTHER.format(policy.rollout, rollout))
    current_hash = _in_force(visitor, rollout)
    preview = policies.planned(
        service, caller, text, at=visitor.at, channels=service.channels.names
    )
    current_text = policies.policy_at(service, caller, rollout).text if current_hash else ""
    return Seen(
        text=text,
        against=current_hash,
        planned=preview,
        outcome=OUTCOMES[preview.changes.outcome],
        changes=changes(preview.changes),
        differences=differences(current_text, text) if current_hash else (),
        needs=needs_text(preview.changes.required_approvals),
    )


def _checked(text: str) -> Policy:
    """Return a text as a policy.

    Raises:
        PolicyFaults: it is none; one line a fault.
        PolicyRefused: there is none, or it is too long.
    """
    if not text.strip():
        raise PolicyRefused(EMPTY)
    if (size := len(text.encode())) > LONGEST:
        raise PolicyRefused(f"A policy of {size:,} bytes; at most {LONGEST:,} are read")
    return load_policy(text)


def _in_force(visitor: Visitor, rollout: str) -> str:
    """Return the hash of the policy in force, "" where there is no such rollout."""
    try:
        return visitor.service.watch.confirmed(rollout).standing.scope.policy_hash
    except UnknownRollout:
        return ""


def _not_there(visitor: Visitor, name: str) -> None:
    require(visitor.caller, Act.ADMINISTER, "")
    if _in_force(visitor, name):
        raise PolicyRefused(THERE.format(name))


def _shown(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    number: int | None = None,
    text: str = "",
    seen: Seen | None = None,
    refused: Refusal | None = None,
) -> Response:
    live_region = live(request, visitor, rollout)
    service, caller = visitor.service, visitor.caller
    policy_records = policies_of(service, caller, rollout)
    policy_record, policy_text = policy_numbered(
        service, caller, rollout, number or policy_records[0].number
    )
    state = service.watch.confirmed(rollout).standing
    open_proposals = [
        proposal for proposal in state.scope.proposals.values() if proposal.kind == "policy"
    ]
    channel_names = channels_told(state.policy)
    return page(
        request,
        visitor,
        "policy",
        422 if refused else 200,
        live=live_region if seen is None else None,
        rollout=rollout,
        zone=state.policy.timezone,
        held=policy_records,
        there=policy_record,
        text=in_area(policy_text),
        waiting=[(proposal, needs_text(proposal.needs)) for proposal in open_proposals],
        channels=[
            (channel_name, service.channels.masked(channel_name)) for channel_name in channel_names
        ],
        unheard=channel_warnings(state.policy, service.channels.names),
        seen=seen,
        applied=_applied(seen),
        whole=all(visitor.may(Act.READ, rollout, site) for site in state.policy.site),
        may_apply=visitor.may(Act.ADMINISTER, rollout),
        **_wrong(refused, text, policy_text),
    )


def _new(
    request: Request,
    visitor: Visitor,
    *,
    text: str = "",
    seen: Seen | None = None,
    refused: Refusal | None = None,
) -> Response:
    if not visitor.may(Act.ADMINISTER):
        error_text = (
            f"{visitor.name} may not make a rollout; it takes an admin of all rollouts: ask one"
        )
        raise NotAllowed(error_text)
    return page(
        request,
        visitor,
        "new_rollout",
        422 if refused else 200,
        example=in_area(TEXT),
        seen=seen,
        applied=_applied(seen),
        may_apply=True,
        **_wrong(refused, text, ""),
    )


def _applied(seen: Seen | None) -> str:
    """Return the planned text as it stands in the form that applies it."""
    return "" if seen is None else in_area(seen.text)


def _wrong(refused: Refusal | None, text: str, otherwise: str) -> dict[str, object]:
    """Return what is wrong with a text, by line where that is known, and the text as typed."""
    policy_faults: tuple[Fault, ...] = ()
    errors: dict[str, str] = {}
    if isinstance(refused, PolicyFaults):
        policy_faults = faults(refused.faults, text)
        count_text = "one fault" if len(policy_faults) == 1 else f"{len(policy_faults)} faults"
        errors = {"text": f"This is no policy yet: {count_text}, each with its line"}
    elif refused is not None:
        errors = {"text": first_large(str(refused))}
    return {
        "errors": errors,
        "faults": policy_faults,
        "typed": {"text": in_area(text or otherwise)},
        "kept": kept,
    }

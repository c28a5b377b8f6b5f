"""The policy: what one would ask for and change, putting one in force, reading one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from api.deps import Act, By, Caller, Now, Served
from api.schemas.examples import answers
from api.schemas.policies import APPLIED, BODY, IN_FORCE, PLANNED
from rollout.core.errors import PolicyRefused
from rollout.services.policies import policies

router = APIRouter(prefix="/v1", tags=["policies"])
LONGEST = 400_000  # bytes: room for as many sites as there may be cells; read within seconds
STATUS = {"created": 201, "proposed": 202}
Instant = Annotated[AwareDatetime | None, Query(description="an instant with its offset; now")]


async def _text(request: Request) -> str:
    """Return the body as the text that it is.

    Raises:
        PolicyRefused: it is too long, or not UTF-8.
    """
    body = await request.body()
    if len(body) > LONGEST:
        raise PolicyRefused(f"a policy of {len(body)} bytes; at most {LONGEST} are read")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise PolicyRefused(f"not UTF-8 at byte {error.start}; save the policy as UTF-8") from None


Text = Annotated[str, Depends(_text)]


@router.post(
    "/plan",
    operation_id="planPolicy",
    summary="Plan a policy",
    openapi_extra=BODY,
    responses=answers(PLANNED),
)
def plan_policy(
    text: Text, service: Served, now: Now, who: Annotated[Caller, By(Act.BE)]
) -> policies.PolicyPlan:
    """Say what a policy would ask for, in decisions and days, and what it would change."""
    return policies.planned(service, who, text, at=now, channels=service.channels.names)


@router.put(
    "/rollouts/{rollout}/policy",
    operation_id="applyPolicy",
    summary="Apply a policy",
    openapi_extra=BODY,
    responses=answers(APPLIED, 200, 201, 202, model=policies.PolicyResult),
)
def apply_policy(
    rollout: str,
    text: Text,
    response: Response,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.ADMINISTER)],
) -> policies.PolicyResult:
    """Put a policy in force, or raise it where it loosens. The first one makes the rollout.

    One that is raised waits for approvals under the policy in force; its author may not give one.
    """
    done = policies.put(
        service.database,
        who,
        rollout,
        text,
        at=now,
        salt=service.entropy(policies.SALT),
        channels=service.channels.names,
    )
    response.status_code = STATUS.get(done.outcome, 200)
    return done


@router.get(
    "/rollouts/{rollout}/policy",
    operation_id="getPolicy",
    summary="Get the policy",
    responses=answers(IN_FORCE),
)
def get_policy(
    rollout: str, service: Served, who: Annotated[Caller, By(Act.READ)], at: Instant = None
) -> policies.PolicyInForce:
    """Return the policy in force now or at an instant, as it was given."""
    return policies.policy_at(service, who, rollout, at=at)

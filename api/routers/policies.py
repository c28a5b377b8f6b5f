"""Policies: plan, apply and get one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import APPLIED, BODY, IN_FORCE, PLANNED, build_responses
from rollout.features.policies import policies
from rollout.kernel.errors import PolicyRefusedError

router = APIRouter(prefix="/v1", tags=["policies"])
MAX_POLICY_BYTES = 400_000  # enough for the maximum number of sites, and parsed within seconds
STATUS_BY_OUTCOME = {"created": 201, "proposed": 202}
Instant = Annotated[AwareDatetime | None, Query(description="time with UTC offset; default: now")]


async def _read_text(request: Request) -> str:
    """Return the body as text.

    Raises:
        PolicyRefusedError: it is too long, or not UTF-8.
    """
    body = await request.body()
    if len(body) > MAX_POLICY_BYTES:
        raise PolicyRefusedError(
            f"a policy of {len(body)} bytes; at most {MAX_POLICY_BYTES} are read"
        )
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise PolicyRefusedError(
            f"not UTF-8 at byte {error.start}; save the policy as UTF-8"
        ) from None


PolicyText = Annotated[str, Depends(_read_text)]


@router.post(
    "/plan",
    operation_id="planPolicy",
    summary="Plan a policy",
    openapi_extra=BODY,
    responses=build_responses(PLANNED),
)
def plan_policy(
    text: PolicyText,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.IDENTIFY)],
) -> policies.PolicyPlan:
    """Return what a policy requires, and what it would change.

    The requirements are in decisions and days. Nothing is stored. Fails with 422 if the policy is
    invalid; `faults` lists each line and field.
    """
    return policies.preview_policy(
        service, caller, text, at=now, channels=service.channels.shared_names
    )


@router.put(
    "/rollouts/{rollout}/policy",
    operation_id="applyPolicy",
    summary="Apply a policy",
    openapi_extra=BODY,
    responses=build_responses(APPLIED, 200, 201, 202, model=policies.PolicyResult),
)
def apply_policy(
    rollout: str,
    text: PolicyText,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.ADMINISTER)],
) -> policies.PolicyResult:
    """Apply a policy, or propose it if it loosens the current one.

    The first policy of a rollout creates it. A policy that loosens a requirement returns 202 and
    takes effect after the approvals that the current policy requires; its author cannot approve it.
    Fails with 422 if the policy is invalid. It is safe to retry: applying the current policy
    returns `unchanged`.
    """
    result = policies.put_policy(
        service.database,
        caller,
        rollout,
        text,
        at=now,
        salts=(service.entropy(policies.SALT_BYTES), service.entropy(policies.SALT_BYTES)),
        channels=service.channels.shared_names,
    )
    response.status_code = STATUS_BY_OUTCOME.get(result.outcome, 200)
    return result


@router.get(
    "/rollouts/{rollout}/policy",
    operation_id="getPolicy",
    summary="Get the policy",
    responses=build_responses(IN_FORCE),
)
def get_policy(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    at: Instant = None,
) -> policies.PolicyInForce:
    """Return the policy in force now or at a given time.

    `text` is the policy exactly as it was submitted.
    """
    return policies.load_policy_at(service, caller, rollout, at=at)

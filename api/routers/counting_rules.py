"""Counting rules: what newer ones would change, and the proposal to apply them."""

from typing import Annotated, Any

from fastapi import APIRouter, Response

from api.deps import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import build_command_example, build_responses
from api.schemas.proposals import EVIDENCE, RulesRequest
from rollout.services.policies import rules_plan
from rollout.services.proposals.proposals import ProposalResult

router = APIRouter(prefix="/v1/rollouts/{rollout}/rules", tags=["policies"])
PLAN: dict[str, Any] = {
    "rollout": "bear-alarm",
    "rules": 1,
    "newest_rules": 2,
    "senders": [
        {
            "source": "edge-1",
            "reason": "the policy does not name its sender as a source",
            "units": 80,
        }
    ],
    "effects": [
        {
            "cells": ["creek · night"],
            "version": "v7",
            "counted_units": 120,
            "sources": [
                {
                    "source": "edge-1",
                    "account": "u-aaaaaaaaaaaaaaaa",
                    "reason": "the policy does not name its sender as a source",
                    "units": 80,
                }
            ],
            "proposals": ["P-7"],
            "next_step": "P-7 needs 2 approvals",
            "next_step_without": "60 of 100 units",
        }
    ],
    "unchanged_cells": 3,
    "unknown_units": 0,
    "proposal": "",
    "evidence_hash": EVIDENCE,
    "text": "bear-alarm is on counting rules 1. …",
}
RAISED = build_command_example(
    "ProposalRaised",
    "zoe",
    {"proposal": "P-9", "kind": "rules", "about": "2"},
    proposal="P-9",
    required_approvals=["operator"],
    evidence_hash=EVIDENCE,
)


@router.get(
    "",
    operation_id="planCountingRules",
    summary="Plan the newest counting rules",
    responses=build_responses(PLAN),
)
def plan_counting_rules(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> rules_plan.RulesPlan:
    """Return what the newest counting rules would change, cell by cell.

    Nothing is stored. Requires permission to read every site.
    """
    return rules_plan.load_rules_plan(service, caller, rollout, at=now)


@router.post(
    "",
    operation_id="proposeCountingRules",
    summary="Propose the newest counting rules",
    responses=build_responses(RAISED, 200, 201, model=ProposalResult),
)
def propose_counting_rules(
    rollout: str,
    body: RulesRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.ADMINISTER)],
) -> ProposalResult:
    """Propose the newest counting rules by the hash of their plan.

    Returns 201 for a new proposal, or 200 with the open one. An operator, another user, approves it
    as any proposal; that applies the rules at once, for good. If they would change something else
    by now, the request fails with 409: get the plan again. Requires the admin role.
    """
    result = rules_plan.propose_rules(service, caller, rollout, body.evidence_hash, at=now)
    response.status_code = 201 if result.events else 200
    return result

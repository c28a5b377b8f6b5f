"""Policies (plan, apply and get one), and model versions (list, compare and retire them)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel

from api.auth import (
    Admin,
    Anyone,
    Caller,
    CurrentTime,
    Operator,
    Permission,
    Reader,
    RequirePermission,
    ServiceDependency,
)
from api.priority_threads import prioritize
from api.schema_forms import (
    CELL,
    NOON,
    ItemList,
    build_command_example,
    build_responses,
)
from api.stops.routes import Reason
from rollout.features.policies import policies
from rollout.features.reports.figures.comparison import VersionMatrix
from rollout.kernel.errors import PolicyRefusedError
from rollout.live.rollout_state import CommandResult
from rollout.live.versions import (
    VersionStatus,
    load_versions,
    record_training_cutoff,
    retire_model_version,
)

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
EXAMPLE_POLICY = """rollout: parcel-damage
timezone: Europe/Vienna
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b]
evidence: {unit: case}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
"""
POLICY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": EXAMPLE_POLICY},
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "rollout": "parcel-damage",
                    "timezone": "Europe/Vienna",
                    "levers": [{"id": "parcel", "labels": ["damaged", "sound"]}],
                    "sites": ["ramp-a", "ramp-b"],
                    "evidence": {"unit": "case"},
                    "gates": [
                        {
                            "to": "supervised",
                            "require": [{"measure": "agreement", "at_least": "95%"}],
                        }
                    ],
                },
            },
        },
    }
}
"""The body is the policy file itself: YAML or JSON."""

PLANNED: dict[str, Any] = {
    "rollout": "parcel-damage",
    "policy": "5be1…",
    "cells": 2,
    "stages": ["shadow", "supervised", "autonomous"],
    "changes": {
        "outcome": "propose",
        "loosens": [{"kind": "missing", "values": {"new": "0.1"}, "cells": [], "others": 0}],
        "looser_texts": ["more units may lack a decision: 10 %"],
        "required_approvals": ["operator", "operator"],
        "narrowed": [],
        "restarted": [],
        "cleared": [],
        "voided": [],
    },
    "warnings": [],
    "text": "Plan of parcel-damage: 2 cells, shadow → supervised → autonomous\n…",
}
APPLIED = build_command_example(
    "PolicyApplied",
    "ana",
    {"number": 2, "policy": "5be1…"},
    outcome="applied",
    policy=2,
    proposal="",
    required_approvals=[],
    evidence_hash="",
    text="policy 2 of parcel-damage holds",
    warnings=[],
)
IN_FORCE: dict[str, Any] = {
    "rollout": "parcel-damage",
    "number": 1,
    "hash": "5be1…",
    "since": NOON,
    "by": "ana",
    "text": EXAMPLE_POLICY,
}


@router.post(
    "/plan",
    operation_id="planPolicy",
    summary="Plan a policy",
    openapi_extra=POLICY_BODY,
    responses=build_responses(PLANNED),
)
def plan_policy(
    text: PolicyText,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Anyone,
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
    openapi_extra=POLICY_BODY,
    responses=build_responses(APPLIED, 200, 201, 202, model=policies.PolicyResult),
)
def apply_policy(
    rollout: str,
    text: PolicyText,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Admin,
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
    caller: Reader,
    at: Instant = None,
) -> policies.PolicyInForce:
    """Return the policy in force now or at a given time.

    `text` is the policy exactly as it was submitted.
    """
    return policies.load_policy_at(service, caller, rollout, at=at)


versions_router = APIRouter(prefix="/v1/rollouts/{rollout}/versions", tags=["versions"])
VERSION: dict[str, Any] = {
    "version": "v7",
    "other_names": [],
    "first_used_at": NOON,
    "retired": False,
    "content": "",
    "source": "assignment",
    "trained_until": "2027-03-01T00:00:00Z",
    "acting_cells": [{**CELL, "stage": "supervised"}],
    "proposals": ["P-7"],
}
SHARE: dict[str, Any] = {
    "count": 418,
    "n": 426,
    "rate": 0.9812,
    "low": 0.9633,
    "high": 0.9919,
    "effective": 426.0,
    "method": "Clopper–Pearson, 95 % for these days",
}
KAPPA: dict[str, Any] = {
    "value": 0.9611,
    "low": 0.9322,
    "high": 0.9823,
    "n": 426,
    "method": "Dirichlet posterior, prior mass 2, 2,000 draws seeded by the counts, 95 %",
    "effective": 426.0,
}
MATRIX: dict[str, Any] = {
    "version": "v7",
    "basis": "units that are evidence, each once, when it closed",
    "items": [
        {
            "version": "v7",
            "lever": "alarm",
            "unjudged": 12,
            "agreement": SHARE,
            "bounds": [0.9543, 0.9817],
            "kappa": KAPPA,
            "ac1": KAPPA,
            "cost": None,
            "labels": [],
            "label_matrix": {
                "labels": ["bear", "none"],
                "counts": [[203, 5], [3, 215]],
                "costs": None,
            },
            "action_matrix": None,
            "cells": [{**CELL, "agreement": SHARE, "kappa": 0.9611, "cost": None}],
            "sides": None,
        }
    ],
}
RETIRED = build_command_example(
    "VersionRetired", "bo", {"version": "v6", "reason": "no longer served"}
)


class VersionList(ItemList[VersionStatus], json_schema_extra={"example": {"items": [VERSION]}}):
    """Every model version, in order of first use; at most 20 are not retired."""


class RetirementRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"reason": "no longer served"}}
):
    """An optional reason for the retirement."""

    reason: Reason = ""


class TrainingCutoff(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"trained_until": "2027-03-01T00:00:00+00:00"}},
):
    """The time up to which a version's training cases reach."""

    trained_until: AwareDatetime | None = None


@versions_router.put(
    "/{version:path}",
    operation_id="setTrainingCutoff",
    summary="Set up to when a version was trained",
)
def set_training_cutoff(
    rollout: str,
    version: Annotated[str, Path(min_length=1, max_length=200)],
    body: TrainingCutoff,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.STATE_TRAINING)],
) -> TrainingCutoff:
    """Set the time up to which a version's training cases reach.

    Gates don't count predictions on cases up to this time; guards count every case. It is safe to
    retry. The time lies before the version's first prediction; an admin may correct it later.
    """
    until = body.trained_until
    record_training_cutoff(service.database, caller, rollout, version, trained_until=until, at=now)
    return body


@versions_router.get("", operation_id="listVersions", summary="List model versions")
def list_versions(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> VersionList:
    """Return each version with the cells where it acts and its open proposals."""
    return VersionList(items=list(load_versions(service, caller, rollout, at=now)))


@versions_router.get(
    "/{version:path}/matrix",
    operation_id="getVersionMatrix",
    summary="Get a version's confusion matrices against human decisions",
    responses=build_responses(MATRIX),
)
def get_version_matrix(
    rollout: str,
    version: str,
    service: ServiceDependency,
    caller: Reader,
) -> VersionMatrix:
    """Return a version's confusion matrices against human decisions.

    Rows are human decisions, columns the version's answers. The figures come from stored counts, so
    the response time does not depend on the number of cases.
    """
    from rollout.features.divergences.closed_units import load_version_confusion

    return load_version_confusion(service, caller, rollout, version)


@versions_router.post(
    "/{version:path}/retirement",
    operation_id="retireVersion",
    summary="Retire a version",
    responses=build_responses(RETIRED),
)
@prioritize
def retire_version(
    rollout: str,
    version: str,
    body: RetirementRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> CommandResult:
    """Retire a version in all cells.

    Its grants end and cannot be restored. It is safe to retry. Requires the operator role.
    """
    return retire_model_version(
        service.database, caller, rollout, version, at=now, reason=body.reason
    )

"""The model versions: side by side, and out of service."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict

from api.deps import Act, By, Caller, Now, Served
from api.priority_threads import narrowing
from api.schemas.examples import CELL, NOON, answers, written
from api.schemas.stops import Reason
from rollout.services.divergences.matrices import VersionMatrix, matrix_of
from rollout.services.engine.command_results import CommandResult
from rollout.services.engine.versions import VersionStatus, retire, tell, versions_of

router = APIRouter(prefix="/v1/rollouts/{rollout}/versions", tags=["versions"])
VERSION: dict[str, Any] = {
    "version": "v7",
    "first_used_at": NOON,
    "retired": False,
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
    "method": "Clopper–Pearson, 95 %",
}
KAPPA: dict[str, Any] = {
    "value": 0.9611,
    "low": 0.9322,
    "high": 0.9823,
    "n": 426,
    "method": "Dirichlet posterior, prior mass 2, 2,000 draws, 95 %",
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
        }
    ],
}
RETIRED = written("VersionRetired", "bo", {"version": "v6", "reason": "no longer served"})


class VersionList(BaseModel):
    """Every version that was ever seen, in that order; there are at most 20 open ones."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [VERSION]}})

    items: list[VersionStatus]


class RetirementRequest(BaseModel):
    """Why a version is no longer served."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"reason": "no longer served"}}
    )

    reason: Reason = ""


class TrainingCutoff(BaseModel):
    """What is said of a version."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"trained_until": "2027-03-01T00:00:00+00:00"}},
    )

    trained_until: AwareDatetime | None = None


@router.put(
    "/{version:path}",
    operation_id="setTrainingCutoff",
    summary="Set up to when a version was trained",
)
def set_training_cutoff(
    rollout: str,
    version: Annotated[str, Path(min_length=1, max_length=200)],
    body: TrainingCutoff,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.RECORD)],
) -> TrainingCutoff:
    """Keep up to when its training cases reach: what it says of those is no evidence."""
    until = body.trained_until
    tell(service.database, who, rollout, version, trained_until=until, at=now)
    return body


@router.get("", operation_id="listVersions", summary="List model versions")
def list_versions(
    rollout: str, service: Served, now: Now, who: Annotated[Caller, By(Act.READ)]
) -> VersionList:
    """Return the versions side by side: where each acts, what is proposed for it."""
    return VersionList(items=list(versions_of(service, who, rollout, at=now)))


@router.get(
    "/{version:path}/matrix",
    operation_id="getVersionMatrix",
    summary="Get a version's confusion matrices against human decisions",
    responses=answers(MATRIX),
)
def get_version_matrix(
    rollout: str, version: str, service: Served, who: Annotated[Caller, By(Act.READ)]
) -> VersionMatrix:
    """Return confusion, figures of labels, and agreement of every cell, from what was counted.

    People stand in rows, the model in columns. No record is read: it takes as long for ten units
    as for ten million.
    """
    return matrix_of(service, who, rollout, version)


@router.post(
    "/{version:path}/retirement",
    operation_id="retireVersion",
    summary="Retire a version",
    responses=answers(RETIRED),
)
@narrowing
def retire_version(
    rollout: str,
    version: str,
    body: RetirementRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.OPERATE)],
) -> CommandResult:
    """Take a version out of service everywhere; it loses what it holds, and gets nothing back."""
    return retire(service.database, who, rollout, version, at=now, reason=body.reason)

"""Flags of OFREP: the value of each facet of an assignment, and its JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from pydantic import JsonValue

from rollout.core.calendar.sites import SHADOW
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import Assignment
from rollout.services.assignments.assignments import AssignmentAnswers
from rollout.services.assignments.client_heads import CodedHead
from rollout.services.engine.assignment_cache import SharedAssignment

VOLATILE_METADATA: Final = frozenset({"permit", "fresh_until"})
FlagValue = bool | str | int | float | dict[str, JsonValue]
encode_flag: Final = json.JSONEncoder(separators=(",", ":")).encode
Facet = Callable[[Assignment, Policy | None], FlagValue]


def _get_stage_level(assignment: Assignment, policy: Policy | None) -> int:
    return 0 if policy is None else policy.stage_ids.index(assignment.stage)


def _get_audit_rate(assignment: Assignment, policy: Policy | None) -> float:
    stage_level = _get_stage_level(assignment, policy)
    return (
        0.0
        if policy is None or not stage_level
        else float(policy.get_stage(stage_level).audit or 0.0)
    )


def _build_decision(assignment: Assignment, policy: Policy | None) -> dict[str, JsonValue]:
    return {
        "decider": assignment.decider,
        "stage": assignment.stage,
        "stage_level": _get_stage_level(assignment, policy),
        "exposure": assignment.exposure,
        "audited": assignment.is_audited,
        "share": assignment.share,
    }


FACETS: Final[Mapping[str, Facet]] = {
    "decider": lambda assignment, _: assignment.decider,
    "model-may-act": lambda assignment, _: assignment.decider == "model",
    "audit": lambda assignment, _: assignment.is_audited,
    "audit-rate": _get_audit_rate,
    "stage": _get_stage_level,
    "decision": _build_decision,
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer for one rollout; `policy` is None in shadow."""

    rollout: str
    answers: AssignmentAnswers
    assignment: Assignment
    policy: Policy | None


def build_flag(evaluation: Evaluation, facet: str) -> dict[str, Any]:
    """Return a flag: the value of a facet, with variant, reason and metadata."""
    value = FACETS[facet](evaluation.assignment, evaluation.policy)
    flag = _build_shared_flag(
        evaluation.rollout, facet, value, evaluation.assignment, evaluation.answers.head
    )
    flag["metadata"] |= _build_own_metadata(evaluation)
    return flag


def format_flag(evaluation: Evaluation, facet: str) -> str:
    """Return the JSON of a flag; what equal cases share is formatted once."""
    value = FACETS[facet](evaluation.assignment, evaluation.policy)
    if isinstance(value, dict):  # can't be the key of a cache
        return encode_flag(build_flag(evaluation, facet))
    answers = evaluation.answers
    shared_text = _format_shared_flag(
        evaluation.rollout, facet, value, answers.assignments[0], answers.head
    )
    return f"{shared_text},{encode_flag(_build_own_metadata(evaluation))[1:]}}}"


@lru_cache(maxsize=4_096, typed=True)  # 0, 0.0 and False differ in JSON
def _format_shared_flag(
    rollout_name: str,
    facet: str,
    value: bool | str | float,
    shared: SharedAssignment,
    head: CodedHead,
) -> str:
    """Return the JSON of a flag up to its case's own metadata."""
    flag = _build_shared_flag(rollout_name, facet, value, shared.assignment, head)
    return encode_flag(flag).removesuffix("}}")


def _build_shared_flag(
    rollout_name: str, facet: str, value: FlagValue, assignment: Assignment, head: CodedHead
) -> dict[str, Any]:
    """Return a flag without its case's own metadata, which comes last in it."""
    head_metadata = {
        "hash": head.hash,
        "ledger_head": f"{rollout_name}:{head.revision}:{head.hash}:{head.code}",
    }
    metadata = {
        "rollout": rollout_name,
        "decider": assignment.decider,
        "stage": assignment.stage,
        "exposure": assignment.exposure,
        "audited": assignment.is_audited,
        "share": assignment.share,
        "reason": assignment.reason,
        "revision": assignment.revision,
        "lease": assignment.lease.total_seconds(),
        **(head_metadata if head.hash else {}),
    }
    return {
        "key": f"gate.{rollout_name}.{facet}",
        "reason": "STATIC" if assignment.stage == SHADOW else "SPLIT",
        "variant": _format_variant(value, assignment),
        "value": value,
        "metadata": metadata,
    }


def _build_own_metadata(evaluation: Evaluation) -> dict[str, str]:
    """Return the metadata of `VOLATILE_METADATA` that a flag has."""
    fresh_until = (evaluation.answers.at + evaluation.assignment.lease).isoformat()
    permit = evaluation.answers.permits[0]
    return {"fresh_until": fresh_until} | ({} if permit is None else {"permit": permit})


def _format_variant(value: FlagValue, assignment: Assignment) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return value
    return assignment.stage


def compute_etag(flags: list[dict[str, Any]]) -> str:
    """Return the ETag of flags, which depends on what lasts in them."""
    stable_flags = [flag | {"metadata": _drop_volatile(flag["metadata"])} for flag in flags]
    return f'"{sha256(json.dumps(stable_flags, sort_keys=True).encode()).hexdigest()[:32]}"'


def _drop_volatile(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in VOLATILE_METADATA}

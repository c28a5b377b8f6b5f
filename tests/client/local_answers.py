"""A client's scope as a test asks it: a rollout's table, and answers as the core gives them."""

import json

from api.cells.routes import build_table_scope
from rollout.engine.decide.assignment import Assignment, FallbackAction
from rollout.features.assignments.assignments import Snapshot
from rollout_client.local_scope import parse_snapshot
from rollout_client.questions import LocalQuestion

SALT = bytes(32)


def build_body(policy, scope, at, leases, **changes):
    """Return a scope's table as the service sends it, as JSON."""
    made = build_snapshot(policy, scope, at, leases, **changes)
    return json.loads(build_table_scope(made).model_dump_json())


def build_snapshot(policy, scope, at, leases, *, salt=SALT, number=None):
    """Return a service's snapshot."""
    return Snapshot(
        rollout=policy.rollout,
        revision=scope.revision if number is None else number,
        hash=f"{scope.revision:064x}",
        policy=policy,
        policy_text=f"rollout: {policy.rollout}",
        sites=tuple(leases),
        scope=scope,
        salt=salt,
        leases=leases,
        permits=dict.fromkeys(leases, "permit"),
        head_code="1.1.5be1",
        issued_at=at,
    )


def read_scope(client, rollout, **parameters):
    """Return the scope that a client reads from a service."""
    answer = client.get(f"/v1/rollouts/{rollout}/scope", params={"form": "table-1", **parameters})
    assert answer.status_code == 200, answer.text
    return parse_snapshot(answer.json())


def decide_locally(local, question, *, now, time_left):
    """Return a client's answer as the core gives it."""
    copied = LocalQuestion(
        question.site,
        question.at,
        question.version,
        question.key,
        question.episode,
        question.confidence,
        question.attributes,
    )
    made = local.decide(copied, now=now, time_left=time_left)
    fallbacks = tuple(FallbackAction(*fallback) for fallback in local.table.fallbacks)
    return Assignment(*made.answer, local.head.revision, made.lease, fallbacks)

"""The accounts of the live demo: users with a link, simulated colleagues, two clients."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Actor
from rollout.core.scope.permissions import (
    ADMIN,
    APPROVER,
    INGEST_DECISIONS,
    INGEST_OUTCOMES,
    INGEST_PREDICTIONS,
    OPERATOR,
    REVIEWER,
    VIEWER,
    AssignedRole,
)
from rollout.services.access import keys, users
from rollout.store.database.session import Database

ADMIN_NAME: Final = "ada"
ROLES_BY_USER: Final = {
    "ana": (OPERATOR, VIEWER),
    "bo": (OPERATOR, VIEWER),
    "rui": (REVIEWER,),
    ADMIN_NAME: (ADMIN,),
    "vic": (VIEWER,),
}
"""Roles of the users for whom the demo prints a link."""
OPERATORS: Final = ("ana", "bo")
COLLEAGUE, RESUME_APPROVER = "cy", "dee"
"""Simulated operators. A resume needs two approvers besides the user who proposes it."""
MODEL_CLIENT: Final = "model-client"
"""The client that asks who decides, with the models' predictions."""
DECISION_SYSTEM: Final = "decision-system"
"""The system in which humans decide, where the policy names none as a source of evidence."""
KEY_LIFETIME: Final = timedelta(days=90)


def get_decision_system(policy: Policy) -> str:
    """Return the account of the system in which humans decide: the policy's first source."""
    accounts = policy.evidence.sources.accounts
    return accounts[0].account if accounts else DECISION_SYSTEM


def list_groups(policy: Policy) -> tuple[str, ...]:
    """Return the groups whose approvals the gates of a policy ask for, besides operators."""
    groups = (group for gate in policy.gates for group in gate.approvals if group != OPERATOR)
    return tuple(dict.fromkeys(groups))


def build_operator(policy: Policy, name: str) -> Actor:
    """Return an operator of the demo, who approves for every group."""
    return Actor(name, (OPERATOR, *list_groups(policy)))


def create_accounts(database: Database, policy: Policy, at: datetime) -> None:
    """Create all accounts, without passwords or keys."""
    users.create_first_admin(database, ADMIN_NAME, at=at)
    admin = users.load_local_caller(database, ADMIN_NAME)
    colleagues = dict.fromkeys((COLLEAGUE, RESUME_APPROVER), (OPERATOR, VIEWER))
    clients = {
        MODEL_CLIENT: (INGEST_PREDICTIONS, VIEWER),
        get_decision_system(policy): (INGEST_DECISIONS, INGEST_OUTCOMES),
    }
    approvers = [AssignedRole(APPROVER, group=group) for group in list_groups(policy)]
    for name, roles in (ROLES_BY_USER | colleagues | clients).items():
        if name != ADMIN_NAME:
            assigned = [AssignedRole(role) for role in roles]
            users.create_account(
                database,
                admin,
                name,
                at=at,
                is_service_account=name in clients,
                role_assignments=[*assigned, *(approvers if OPERATOR in roles else ())],
            )


def create_keys(database: Database, policy: Policy, at: datetime) -> dict[str, str]:
    """Create an API key for each account that the demo itself uses; return their texts by name."""
    admin = users.load_local_caller(database, ADMIN_NAME)
    clients = (MODEL_CLIENT, get_decision_system(policy))
    return {
        name: keys.create_key(
            database,
            admin,
            name,
            random_bytes=secrets.token_bytes(keys.KEY_BYTES),
            at=at,
            expires_at=at + KEY_LIFETIME,
        ).text
        for name in (OPERATORS[0], COLLEAGUE, RESUME_APPROVER, *clients)
    }

"""The accounts of the live demo: users with a link, simulated colleagues, the scanners."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from rollout.core.scope.permissions import (
    ADMIN,
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
SERVICE_ACCOUNT: Final = "scanners"
"""The client that asks who decides, with the models' predictions."""
CLERKS_ACCOUNT: Final = "sorting-desk"
"""The system in which clerks decide; the policy names it as a source of evidence."""
ROLES_BY_SERVICE_ACCOUNT: Final = {
    SERVICE_ACCOUNT: (INGEST_PREDICTIONS, VIEWER),
    CLERKS_ACCOUNT: (INGEST_DECISIONS, INGEST_OUTCOMES),
}
KEY_LIFETIME: Final = timedelta(days=90)
KEY_HOLDERS: Final = (OPERATORS[0], COLLEAGUE, RESUME_APPROVER, *ROLES_BY_SERVICE_ACCOUNT)


def create_accounts(database: Database, at: datetime) -> None:
    """Create all accounts, without passwords or keys."""
    users.create_first_admin(database, ADMIN_NAME, at=at)
    admin = users.load_local_caller(database, ADMIN_NAME)
    operator_roles = (OPERATOR, VIEWER)
    roles_by_name = ROLES_BY_USER | {COLLEAGUE: operator_roles, RESUME_APPROVER: operator_roles}
    for name, roles in (roles_by_name | ROLES_BY_SERVICE_ACCOUNT).items():
        if name != ADMIN_NAME:
            users.create_account(
                database,
                admin,
                name,
                at=at,
                is_service_account=name in ROLES_BY_SERVICE_ACCOUNT,
                role_assignments=[AssignedRole(role) for role in roles],
            )


def create_keys(database: Database, at: datetime) -> dict[str, str]:
    """Create an API key for each of `KEY_HOLDERS`; return their texts by name."""
    admin = users.load_local_caller(database, ADMIN_NAME)
    return {
        name: keys.create_key(
            database,
            admin,
            name,
            random_bytes=secrets.token_bytes(keys.KEY_BYTES),
            at=at,
            expires_at=at + KEY_LIFETIME,
        ).text
        for name in KEY_HOLDERS
    }

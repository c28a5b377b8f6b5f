"""The setup of the live demo: a temporary database, accounts, keys and the policy."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Actor
from rollout.core.scope.permissions import INGEST, OPERATOR, VIEWER, AssignedRole
from rollout.formats.policy.reader import parse_policy
from rollout.services.access import keys, users
from rollout.services.access.authentication import Authenticator
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.service import Service, build_service
from rollout.services.replay.demo_traffic import load_policy_text
from rollout.services.support.clock import ManualClock
from rollout.store.database.migrations import upgrade
from rollout.store.database.session import Database

FOUNDER, SERVICE_ACCOUNT = "founder", "scanners"
OPERATORS = ("ana", "bo")
RESUME_APPROVER = "cy"  # a resume needs two approvers other than the user who proposes it
SALT = bytes(32)  # the replay's, so that the same letters are sampled


@dataclass(frozen=True, slots=True)
class DemoService:
    """A service with its accounts.

    `keys` has each account's API key by name; `password` is that of every operator.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    keys: dict[str, str] = field(repr=False)
    password: str = field(repr=False)


@contextmanager
def open_demo_service(starts_at: datetime) -> Iterator[DemoService]:
    """Create the demo's service in a temporary folder.

    Args:
        starts_at: the simulated time at which the service starts.
    """
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        url = f"sqlite:///{Path(folder) / 'mail-room.db'}"
        upgrade(url)
        database = Database(url)
        try:
            yield _build_demo_service(database, starts_at)
        finally:
            database.close()


def _build_demo_service(database: Database, starts_at: datetime) -> DemoService:
    clock = ManualClock(starts_at)
    policy = parse_policy(load_policy_text())
    apply_policy(database, load_policy_text(), Actor(FOUNDER), starts_at, salt=SALT)
    key_texts = _create_users(database, starts_at)
    service = build_service(database, Authenticator(database, clock), clock)
    password = secrets.token_urlsafe(12)
    founder_caller = users.load_local_caller(database, FOUNDER)
    for name in (*OPERATORS, RESUME_APPROVER):
        service.sign_in.set_password(founder_caller, name, password, at=starts_at)
    return DemoService(service, clock, policy, key_texts, password)


def _create_users(database: Database, at: datetime) -> dict[str, str]:
    users.create_first_admin(database, FOUNDER, at=at)
    admin = users.load_local_caller(database, FOUNDER)
    operator_roles = (AssignedRole(OPERATOR), AssignedRole(VIEWER))
    for name in (*OPERATORS, RESUME_APPROVER):
        users.create_account(database, admin, name, at=at, role_assignments=operator_roles)
    service_roles = (AssignedRole(INGEST), AssignedRole(VIEWER))
    users.create_account(
        database,
        admin,
        SERVICE_ACCOUNT,
        at=at,
        is_service_account=True,
        role_assignments=service_roles,
    )
    expires_at = at + timedelta(days=90)
    key_texts = {}
    for name in (*OPERATORS, RESUME_APPROVER, SERVICE_ACCOUNT):
        entropy = secrets.token_bytes(keys.KEY_BYTES)
        key_texts[name] = keys.create_key(
            database, admin, name, random_bytes=entropy, at=at, expires_at=expires_at
        ).text
    return key_texts

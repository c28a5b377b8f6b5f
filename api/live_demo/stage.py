"""The stage of the live demo: a database of its own, people with keys, the policy in force."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Person
from rollout.core.scope.permissions import INGEST, OPERATOR, VIEWER, Right
from rollout.formats.policy.reader import load_policy
from rollout.services.access import keys, users
from rollout.services.access.authentication import Door
from rollout.services.engine.policy_application import apply
from rollout.services.engine.service import Service, service_on
from rollout.services.replay.demo_traffic import policy_text
from rollout.services.support.clock import SetClock
from rollout.store.database.migrations import upgrade
from rollout.store.database.session import Database

MAKER, MACHINE = "founder", "scanners"
OPERATORS = ("ana", "bo")
THIRD = "cy"  # who asks for a resume does not approve it, and it takes two others
SALT = bytes(32)  # replay's: the same letters go to people


@dataclass(frozen=True, slots=True)
class Stage:
    """A service with its people.

    `keys` holds the text of each one's key by name; `password` is that of everybody who operates.
    """

    service: Service
    clock: SetClock
    policy: Policy
    keys: dict[str, str] = field(repr=False)
    password: str = field(repr=False)


@contextmanager
def stage(begins: datetime) -> Iterator[Stage]:
    """Set the stage in a folder that is removed at the end.

    Args:
        begins: the instant of the story at which the service starts.
    """
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        url = f"sqlite:///{Path(folder) / 'mail-room.db'}"
        upgrade(url)
        database = Database(url)
        try:
            yield _set(database, begins)
        finally:
            database.close()


def _set(database: Database, begins: datetime) -> Stage:
    clock = SetClock(begins)
    policy = load_policy(policy_text())
    apply(database, policy_text(), Person(MAKER), begins, salt=SALT)
    key_texts = _people(database, begins)
    service = service_on(database, Door(database, clock), clock)
    password = secrets.token_urlsafe(12)
    founder_caller = users.local_caller(database, MAKER)
    for name in (*OPERATORS, THIRD):
        service.signing.set_password(founder_caller, name, password, at=begins)
    return Stage(service, clock, policy, key_texts, password)


def _people(database: Database, at: datetime) -> dict[str, str]:
    users.first_admin(database, MAKER, at=at)
    admin = users.local_caller(database, MAKER)
    operator_roles = (Right(OPERATOR), Right(VIEWER))
    for name in (*OPERATORS, THIRD):
        users.add(database, admin, name, at=at, rights=operator_roles)
    service_roles = (Right(INGEST), Right(VIEWER))
    users.add(database, admin, MACHINE, at=at, machine=True, rights=service_roles)
    expires_at = at + timedelta(days=90)
    key_texts = {}
    for name in (*OPERATORS, THIRD, MACHINE):
        entropy = secrets.token_bytes(keys.CHANCE)
        key_texts[name] = keys.make(
            database, admin, name, chance=entropy, at=at, expires_at=expires_at
        ).text
    return key_texts

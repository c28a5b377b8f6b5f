"""The rollout that is killed around: eight autonomous sites, and users who stop and resume."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rollout.core.calendar.sites import Cell
from rollout.core.scope.commands import Actor
from rollout.core.scope.events import VersionFirstUsed, Widened
from rollout.core.scope.permissions import AssignedRole
from rollout.formats.policy.reader import parse_policy
from rollout.services.access import keys, users
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.versions import VersionInfo, VersionStore

ROLLOUT, VERSION, WINDOW = "trail", "v1", "always"
SITES = tuple(f"site-{number}" for number in range(8))
STAGES = ("supervised", "autonomous")
POLICY = f"""
rollout: {ROLLOUT}
timezone: UTC
levers:
  - {{id: alarm, labels: [bear, none], actions: {{bear: siren, none: wait}}}}
sites: [{", ".join(SITES)}]
evidence:
  unit: case
  grace: 1s
  outside: blind
  sources: {{accounts: [{{account: box, reviewers: ["*"]}}]}}
gates:
  - {{to: supervised, require: [{{measure: agreement, at_least: 60%}}], approvals: 2}}
  - {{to: autonomous, require: [{{measure: agreement, at_least: 65%}}], approvals: 2}}
tick: 1s
"""
POLICIES = {policy.hash: policy for policy in [parse_policy(POLICY)]}
ROLES = {
    "box": ("ingest", "ingest-decisions"),
    "ana": ("operator", "viewer"),
    "bo": ("operator",),
    "cy": ("operator",),
}
GRANTED_FOR = timedelta(days=90)


@dataclass(frozen=True)
class KillField:
    """A prepared database.

    Attributes:
        url: of the database.
        api_keys: by account.
        revision: the last row of the ledger that the preparation wrote.
    """

    url: str
    revision: int
    api_keys: dict[str, str] = field(repr=False)


def prepare_field(url):
    """Make the rollout, let its model decide everywhere, and return keys for the accounts."""
    database, now = Database(url), datetime.now(UTC)
    start = now - timedelta(hours=1)
    try:
        users.create_first_admin(database, "zoe", at=start)
        apply_policy(database, POLICY, Actor("zoe"), start, salt=bytes(32))
        revision = _widen_everywhere(database, start)
        return KillField(url, revision, dict(_create_keys(database, start)))
    finally:
        database.close()


def _widen_everywhere(database, at):
    """Append the grants that a long history of evidence and approvals would have given."""
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, ROLLOUT)
        VersionStore(transaction, state.rollout).record_info(VersionInfo(VERSION, "test"), at=at)
        grants = (
            Widened(
                at=at,
                by="policy",
                cell=Cell(site, WINDOW),
                version=VERSION,
                to_stage=stage,
                until=at + GRANTED_FOR,
                proposal="P-0",
            )
            for site in SITES
            for stage in STAGES
        )
        events = (VersionFirstUsed(at=at, by="policy", version=VERSION), *grants)
        rows = Ledger(transaction, state.rollout)
        rows.append(events, after=state.scope.revision)
        return rows.load_head().revision


def _create_keys(database, at):
    admin = users.load_local_caller(database, "zoe")
    for name, roles in ROLES.items():
        users.create_account(
            database,
            admin,
            name,
            at=at,
            is_service_account=name == "box",
            role_assignments=[AssignedRole(role) for role in roles],
        )
        entropy = os.urandom(keys.KEY_BYTES)
        yield name, keys.create_key(database, admin, name, random_bytes=entropy, at=at).text

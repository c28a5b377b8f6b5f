"""The rollout that is killed around: eight autonomous sites, and users who stop and resume."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.access import keys, users
from rollout.features.proposals.proposals import approve_proposal
from rollout.features.records.ingest import ingest_items
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker

ROLLOUT, VERSION, WINDOW, REVIEWER = "trail", "v1", "always", "dia"
SITES = tuple(f"site-{number}" for number in range(8))
STAGES = ("supervised", "autonomous")
ANSWER = {"alarm": "bear"}
POLICY = f"""
rollout: {ROLLOUT}
timezone: UTC
levers:
  - {{id: alarm, labels: [bear, none], actions: {{bear: siren, none: wait}}}}
sites: [{", ".join(SITES)}]
stages: [{{id: supervised, blind: 50%, lasts: 30d}}, {{id: autonomous, audit: 50%, lasts: 30d}}]
evidence:
  unit: case
  grace: 1s
  outside: blind
  sources: {{accounts: [{{account: desk, reviewers: ["*"]}}]}}
gates:
  - {{to: supervised, require: [{{measure: agreement, at_least: 50%}}], risk: 20%,
     minimum: {{units: 5, days: 1, reviewers: 1}}, approvals: 2}}
  - {{to: autonomous, require: [{{measure: agreement, at_least: 50%}}], risk: 20%,
     minimum: {{units: 5, days: 1, reviewers: 1}}, approvals: 2}}
tick: 1s
"""
POLICIES = {policy.hash: policy for policy in [parse_policy(POLICY)]}
ROLES = {
    "box": ("ingest",),
    "desk": ("ingest-decisions",),
    "ana": ("operator", "viewer"),
    "bo": ("operator", "viewer"),
    "cy": ("operator", "viewer"),
}
SERVICE_ACCOUNTS = frozenset({"box", "desk"})
CASES_A_SITE = 25
DAY = timedelta(days=1)


@dataclass(frozen=True)
class KillField:
    """A prepared database, and a key for each account."""

    url: str
    api_keys: dict[str, str] = field(repr=False)


def prepare_field(url):
    """Make the rollout, widen it to the last stage by evidence and approvals, and return keys.

    Raises:
        RuntimeError: the model does not decide everywhere in the end.
    """
    database, start = Database(url), datetime.now(UTC) - 6 * DAY
    try:
        users.create_first_admin(database, "zoe", at=start)
        apply_policy(database, POLICY, Actor("zoe"), start, salt=bytes(32), service_salt=bytes(32))
        api_keys = dict(_create_keys(database, start))
        for number, _ in enumerate(STAGES):
            _widen_everywhere(database, number, start + 2 * number * DAY)
        _check_widened(database)
        return KillField(url, api_keys)
    finally:
        database.close()


def _widen_everywhere(database, number, start):
    """Send cases that agree, and approve the widenings that they lead to."""
    ticker, end = Ticker(database, ROLLOUT, "history"), start + DAY + timedelta(hours=1)
    service = build_service(database, None, ManualClock(end))
    callers = {name: users.load_local_caller(database, name) for name in SERVICE_ACCOUNTS}
    for place in range(CASES_A_SITE):
        at = start + (place + 1) * DAY / CASES_A_SITE
        records = [
            record
            for site in SITES
            for record in _build_records(f"past-{number}-{site}-{place}", site, at)
        ]
        for account in ("box", "desk"):  # who decides, decides after the prediction came
            is_desk = account == "desk"
            part = [item for item in records if isinstance(item, Decision) == is_desk]
            sent_at = at + is_desk * timedelta(seconds=1)
            ingest_items(service, callers[account], ROLLOUT, part, sent_at)
    ticker.tick(end + timedelta(minutes=1))
    for proposal in _load_state(database).scope.proposals.values():
        for who in ("bo", "cy"):
            caller = users.load_local_caller(database, who)
            at = end + timedelta(minutes=2)
            cited = proposal.evidence_hash
            approve_proposal(database, caller, ROLLOUT, proposal.id, cited, at=at)
    ticker.tick(end + timedelta(minutes=3))


def _build_records(key, site, at):
    """Yield a case with prediction and decision."""
    yield Case(key=key, site=site, occurred_at=at, window=WINDOW)
    yield Prediction(key=key, version=VERSION, answers=ANSWER, at=at)
    later = at + timedelta(seconds=1)
    yield Decision(key=key, reviewer=REVIEWER, answers=ANSWER, exposure="blind", submitted_at=later)


def _check_widened(database):
    scope = _load_state(database).scope
    grants = {cell.site: len(state.grants) for (cell, _), state in scope.cells.items()}
    if grants != dict.fromkeys(SITES, len(STAGES)):
        raise RuntimeError(f"the history does not widen all sites: {grants}")


def _load_state(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, ROLLOUT)


def _create_keys(database, at):
    admin = users.load_local_caller(database, "zoe")
    for name, roles in ROLES.items():
        users.create_account(
            database,
            admin,
            name,
            at=at,
            is_service_account=name in SERVICE_ACCOUNTS,
            role_assignments=[AssignedRole(role) for role in roles],
        )
        entropy = os.urandom(keys.KEY_BYTES)
        yield name, keys.create_key(database, admin, name, random_bytes=entropy, at=at).text

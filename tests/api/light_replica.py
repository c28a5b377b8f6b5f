"""Ask a replica in a process of its own; print which named modules each step has imported.

python -m tests.api.light_replica DATABASE MODULE...
"""

import json
import os
import sys
from datetime import timedelta

from fastapi.testclient import TestClient

import api.serve  # noqa: F401 - what the command imports
from api.app import create_app
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.authentication import Authenticator
from rollout.features.notifications.settings import NotificationJob
from rollout.live.clock import SystemClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.worker.jobs import JobScheduler

POLICY = """
rollout: light
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound], answer_within: 2m, unanswered: damaged}]
sites: [dock]
evidence: {unit: case, grace: 1h, verdicts: 1}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
ROLES = {"box": ("ingest",), "olga": ("operator", "viewer"), "rita": ("reviewer",)}
R = "/v1/rollouts/light"
LONG = 3_600  # seconds to the scheduler's first own pass


def main(url: str, heavy: tuple[str, ...]) -> None:
    """Ask everything in turn, and print what was imported after each step."""
    database, clock = Database(url), SystemClock()
    at, loaded = clock.now(), {}
    apply_policy(
        database,
        POLICY,
        Actor("ada"),
        at - timedelta(hours=3),
        salt=bytes(32),
        service_salt=bytes(32),
    )
    headers = dict(create_accounts(database, at))
    client = TestClient(create_app(build_service(database, Authenticator(database, clock), clock)))
    scheduler = JobScheduler(
        client.app.state.service,
        "here",
        LONG,
        pass_interval=LONG,
        sending_jobs=[NotificationJob(client.app.state.service)],
    )
    loaded["start"] = find_loaded(heavy)
    for what, who, method, path, body in list_requests(at):
        options = {} if body is None else {"json": body}
        answer = client.request(method, path, headers=headers.get(who), **options)
        assert answer.is_success, (what, answer.status_code, answer.text)
        loaded[what] = find_loaded(heavy)
        if what == "claim":
            (task,) = answer.json()["tasks"]
            decision = f"{R}/reviews/{task['review']}/decision"
            answer = client.post(
                decision, headers=headers["rita"], json={"answers": {"parcel": "sound"}}
            )
            assert answer.is_success, answer.text
            loaded["decide"] = find_loaded(heavy)
    for job in ("reports", "deliveries", "notifications", "uses", "tidy"):
        scheduler._scheduler.get_job(job).func()
        loaded[f"job {job}"] = find_loaded(heavy)
    scheduler._run_tick()
    loaded["tick"] = find_loaded(heavy)
    sys.stdout.write(json.dumps(loaded) + "\n")


def create_accounts(database, at):
    """Yield each account with the header of its key."""
    users.create_first_admin(database, "ada", at=at)
    ada = users.load_local_caller(database, "ada")
    for name, roles in ROLES.items():
        users.create_account(
            database,
            ada,
            name,
            at=at,
            role_assignments=tuple(map(AssignedRole, roles)),
            is_service_account=name == "box",
        )
        key = keys.create_key(database, ada, name, at=at, random_bytes=os.urandom(38))
        yield name, {"Authorization": f"Bearer {key.text}"}


def list_requests(at):
    """Return what is asked: its name, who asks, method, path and body."""
    now, before = at.isoformat(), (at - timedelta(minutes=5)).isoformat()
    question = {"site": "dock", "at": now, "key": "asked", "version": "v1"}
    answered = question | {"prediction": {"answers": {"parcel": "sound"}, "confidence": 0.9}}
    records = [
        {"kind": "case", "key": "sent", "site": "dock", "occurred_at": before},
        {"kind": "prediction", "key": "sent", "at": before, "version": "v1"}
        | {"answers": {"parcel": "sound"}},
    ]
    flag = {"context": {"targetingKey": "flag", "site": "dock", "at": now, "version": "v1"}}
    ofrep = "/ofrep/v1/evaluate/flags/gate.light.decider"
    return (
        ("live", "", "GET", "/health/live", None),
        ("ready", "", "GET", "/health/ready", None),
        ("metrics", "olga", "GET", "/metrics", None),
        ("assignment", "box", "POST", f"{R}/assignments", question),
        ("assignment with a prediction", "box", "POST", f"{R}/assignments", answered),
        ("flag", "box", "POST", ofrep, flag),
        ("scope", "box", "GET", f"{R}/scope", None),
        ("records", "box", "POST", f"{R}/records", {"items": records}),
        ("queue", "rita", "GET", f"{R}/reviews", None),
        ("claim", "rita", "POST", f"{R}/reviews/claims", {}),
        ("cases", "olga", "GET", f"{R}/cases", None),
        ("case", "olga", "GET", f"{R}/cases/sent", None),
        ("proposals", "olga", "GET", f"{R}/proposals", None),
        ("incidents", "olga", "GET", f"{R}/incidents", None),
        ("versions", "olga", "GET", f"{R}/versions", None),
        ("ledger", "olga", "GET", f"{R}/ledger", None),
        ("rollouts", "olga", "GET", "/v1/rollouts", None),
        ("rollout", "olga", "GET", R, None),
        ("report", "olga", "POST", f"{R}/reports", {}),
        ("reports", "olga", "GET", f"{R}/reports", None),
        *(
            (f"report as {form}", "olga", "GET", f"{R}/reports/1?format={form}", None)
            for form in ("html", "json", "csv")
        ),
        ("page of a report", "olga", "GET", f"{R}/reports/1", None),
        ("stop", "olga", "POST", f"{R}/stops", {"all": True, "reason": "smoke"}),
        ("stops", "olga", "GET", f"{R}/stops", None),
        ("me", "olga", "GET", "/v1/me", None),
    )


def find_loaded(names):
    """Return which modules of these are imported."""
    return [name for name in names if name in sys.modules]


if __name__ == "__main__":
    main(sys.argv[1], tuple(sys.argv[2:]))

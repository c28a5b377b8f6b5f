"""What a posted case, a widening tick and an approval enter and send: modules, SQL statements."""

import sys
import threading
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import event
from starlette.testclient import TestClient

from api.app import create_app
from rollout.core.scope.commands import Actor
from rollout.core.scope.events import Widened
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.service import build_service
from rollout.services.engine.ticks import Ticker
from rollout.services.support.clock import ManualClock
from rollout.store.database.session import Database
from tests.api.conftest import Doorkeeper
from tests.docs.pages import ROOT
from tests.factories import NOON
from tests.store.databases import fresh

PRODUCT = (f"{ROOT / 'rollout'}/", f"{ROOT / 'api'}/")
CASES = 30
DAY = timedelta(days=1)
NAME = "ramps"
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence:
  unit: case
  grace: 1h
  sources: {accounts: [{account: ingest-decisions, reviewers: ["*"]}]}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 50%}], risk: 20%,
     minimum: {units: 3, days: 1, reviewers: 1}, approvals: [operator]}
"""


class WorkRecorder:
    """Notes which modules of the product all threads enter, and what one database is sent."""

    def __init__(self, database):
        self.modules, self.statements, self.is_on = set(), 0, False
        event.listen(database.engine, "before_cursor_execute", self.note_statement)

    def note_statement(self, *_):
        self.statements += self.is_on

    def note_call(self, frame, kind, _):
        if self.is_on and kind == "call":
            self.modules.add(frame.f_code.co_filename)

    @contextmanager
    def recording(self, counts, name):
        """Write what happens inside as `NAME_modules` and `NAME_statements`."""
        self.modules, self.statements, self.is_on = set(), 0, True
        try:
            yield
        finally:
            self.is_on = False
        own = {path for path in self.modules if path.startswith(PRODUCT)}
        counts[f"{name}_modules"], counts[f"{name}_statements"] = len(own), self.statements


def measure_work():
    """Return the counts of `[run]` in tools/ratchets.toml, each done once before it is counted."""
    with (
        TemporaryDirectory() as folder,
        fresh("sqlite", Path(folder)) as url,
        closing(Database(url)) as database,
    ):
        recorder = WorkRecorder(database)
        threading.setprofile(recorder.note_call)  # for the threads that the service starts
        sys.setprofile(recorder.note_call)
        try:
            return measure_steps(database, recorder)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def measure_steps(database, recorder):
    counts = {}
    clock = ManualClock(NOON)
    apply_policy(database, POLICY, Actor("zoe"), NOON, salt=bytes(32))
    app = create_app(build_service(database, Doorkeeper(), clock, entropy=bytes))
    ticker = Ticker(database, NAME, owner="here")
    with TestClient(app) as client:
        for number in range(CASES):
            clock.advance(DAY / 10)
            sent = describe_case(number, clock.now())
            post(client, "ingest", *sent[:2])
            post(client, "ingest-decisions", sent[2])
        clock.advance(DAY)
        ticker.tick(clock.now())
        (proposal,) = scope_of(database).proposals.values()
        case, *_ = describe_case(CASES, clock.now())
        with recorder.recording(counts, "case"):
            post(client, "ingest", case)
        path = f"/v1/rollouts/{NAME}/proposals/{proposal.id}/approvals"
        with recorder.recording(counts, "approval"):
            answer = client.post(
                path,
                json={"evidence_hash": proposal.evidence_hash},
                headers={"Authorization": "Bearer operator"},
            )
        assert answer.status_code == 200, answer.text
        clock.advance(DAY / 10)
        with recorder.recording(counts, "tick"):
            events = ticker.tick(clock.now())
        assert any(isinstance(each, Widened) for each in events), events
    return counts


def describe_case(number, at):
    """Return a case that occurs now, its prediction and a human's equal decision."""
    key, when = f"c{number}", at.isoformat()
    answers = {"parcel": "sound"}
    return (
        {"kind": "case", "key": key, "site": "ramp-a", "occurred_at": when},
        {"kind": "prediction", "key": key, "version": "v1", "answers": answers},
        {"kind": "decision", "key": key, "reviewer": "ana", "answers": answers}
        | {"exposure": "blind"},
    )


def post(client, account, *items):
    answer = client.post(
        f"/v1/rollouts/{NAME}/records",
        json={"items": items},
        headers={"Authorization": f"Bearer {account}"},
    )
    assert {each["status"] for each in answer.json()["items"]} == {"accepted"}, answer.text


def scope_of(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, NAME).scope

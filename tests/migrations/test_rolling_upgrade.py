"""Two replicas are upgraded one after the other under traffic: the first program goes on.

The next program is a copy of this one with a migration more; each runs in processes of its own.
"""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest
from sqlalchemy import select

from rollout.services.engine.consistency_check import rebuild_derived_tables
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.store.database.migrations import load_current_revision
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.tables.tables import cases, external_keys
from tests.migrations.further import FURTHER, HEAD, copy_program
from tests.store.databases import ENGINES, fresh

pytestmark = [pytest.mark.faults, pytest.mark.enable_socket]
ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds for a process to start on a busy machine
SET_UP = """
import os, sys
from datetime import UTC, datetime, timedelta
from rollout.core.scope.permissions import AssignedRole
from rollout.core.scope.commands import Actor
from rollout.services.access import keys, users
from rollout.services.engine.policy_application import apply_policy
from rollout.store.database.migrations import upgrade
from rollout.store.database.session import Database
url, policy = os.environ["ROLLOUT_DATABASE_URL"], open(sys.argv[1]).read()
upgrade(url)
database, now = Database(url), datetime.now(UTC)
apply_policy(database, policy, Actor("zoe"), now - timedelta(hours=1), salt=bytes(32))
users.create_first_admin(database, "zoe", at=now)
zoe = users.load_local_caller(database, "zoe")
for name, role, is_machine in (("box", "ingest", True), ("ana", "operator", False)):
    roles = [AssignedRole(role)]
    users.create_account(
        database, zoe, name, at=now, is_service_account=is_machine, role_assignments=roles
    )
    made = keys.create_key(database, zoe, name, random_bytes=os.urandom(keys.KEY_BYTES), at=now)
    print(made.text)
"""
TICK = """
import os, sys
from datetime import datetime
from rollout.services.engine.ticks import Ticker
from rollout.store.database.session import Database
database = Database(os.environ["ROLLOUT_DATABASE_URL"])
events = Ticker(database, "bears", "first").tick(datetime.fromisoformat(sys.argv[1]))
print("nothing due" if events is None else "ticked")
"""
COMMAND = "from rollout.cli.main import app; app(prog_name='rollout')"
POLICY = """
rollout: bears
timezone: UTC
levers:
  - {id: alarm, labels: [bear, none], actions: {bear: siren, none: nothing}}
sites: [creek]
evidence: {unit: case, outside: blind}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
"""


class Program:
    """This or the next program, in processes with a database's URL."""

    def __init__(self, folder, url, workspace):
        self.workspace = workspace
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")
        }
        self.environment |= {"PYTHONPATH": str(folder), "ROLLOUT_DATABASE_URL": url}

    def start(self, *words, log):
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.workspace,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def run(self, *words):
        with (self.workspace / "command.log").open("wb+") as log:
            process = self.start(*words, log=log)
            process.wait(PATIENCE)
            log.seek(0)
            output = log.read().decode()
        assert process.returncode == 0, output
        return output.split()

    @contextmanager
    def serve(self):
        """Run a replica and give its address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = self.workspace / f"replica-{port}.log"
        with path.open("wb") as log:
            process = self.start("-c", COMMAND, "serve", "--port", str(port), log=log)
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
            while not is_ready(address):
                assert process.poll() is None, path.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, path.read_text(encoding="utf-8")
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE)


def is_ready(address):
    try:
        return httpx2.get(f"{address}/health/ready", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


class Traffic:
    """A client that sends cases, predictions and decisions to each open replica in turn."""

    def __init__(self, key):
        self.addresses, self.accepted, self.faults = [], [], Counter()
        self._headers = {"Authorization": f"Bearer {key}"}
        self._end, self._thread = Event(), Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.finish()

    def finish(self):
        """Send nothing more; wait for the last answer."""
        self._end.set()
        self._thread.join()

    def wait_for(self, count):
        """Wait for more acknowledged cases."""
        wanted, deadline = len(self.accepted) + count, time.monotonic() + PATIENCE
        while len(self.accepted) < wanted:
            assert not self.faults
            assert time.monotonic() < deadline, "no answers"
            assert self._thread.is_alive()
            time.sleep(0.01)

    def _run(self):
        number = 0
        while not self._end.wait(0.02):
            for address in tuple(self.addresses):
                number += 1
                self._send(address, f"case-{number}")

    def _send(self, address, key):
        at = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        answers = {"answers": {"alarm": "bear"}}
        records = [
            {"kind": "case", "key": key, "site": "creek", "occurred_at": at},
            {"kind": "prediction", "key": key, "version": "v1", "at": at, **answers},
            {"kind": "decision", "key": key, "reviewer": "dia", "submitted_at": at, **answers},
        ]
        url = f"{address}/v1/rollouts/bears"
        question = {"site": "creek", "at": at, "key": key, "version": "v1"}
        try:
            sent = self._post(f"{url}/records", records)
            asked = self._post(f"{url}/assignments", question)
        except httpx2.TransportError as error:
            self.faults[type(error).__name__] += 1
            return
        statuses = [item["status"] for item in sent.json().get("items", ())]
        is_stored = set(statuses) <= {"accepted", "duplicate"}
        if (sent.status_code, asked.status_code) != (200, 200) or not is_stored:
            self.faults[f"{sent.status_code} {asked.status_code} {statuses} {sent.text[:300]}"] += 1
            return
        self.accepted.append(key)

    def _post(self, url, body):
        """Post until the answer is no 503, as the docs tell clients to do."""
        for _ in range(20):
            answer = httpx2.post(url, json=body, headers=self._headers, timeout=30)
            if answer.status_code != 503:
                break
        return answer


@pytest.mark.parametrize("engine", ENGINES)
def test_two_replicas_are_upgraded_one_after_the_other_under_traffic(engine, tmp_path):
    next_folder = tmp_path / "next"
    copy_program(next_folder)
    with fresh(engine, tmp_path, migrated=False) as url:
        this = Program(ROOT, url, tmp_path)
        following = Program(next_folder, url, tmp_path)
        (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
        key, operator = this.run("-c", SET_UP, "policy.yaml")
        assert load_current_revision(url) == HEAD
        with Traffic(key) as traffic, this.serve() as first:
            traffic.addresses = [first]
            traffic.wait_for(3)
            following.run("-c", COMMAND, "db", "upgrade")
            assert load_current_revision(url) == FURTHER
            traffic.wait_for(3)  # this program on the next tables
            with following.serve() as second:
                traffic.addresses = [first, second]
                traffic.wait_for(6)
                stop_everything(first, operator)
                assert is_stopped(second, operator)
                now = datetime.now(UTC)
                text = (now + timedelta(hours=1)).isoformat()
                assert this.run("-c", TICK, text) == ["ticked"]
                traffic.wait_for(3)
                traffic.addresses = [second]
                traffic.wait_for(3)
                traffic.finish()
        assert not traffic.faults
        check(url, traffic, now + timedelta(hours=2))


def stop_everything(address, key):
    headers = {"Authorization": f"Bearer {key}"}
    body = {"all": True, "reason": "the upgrade"}
    url = f"{address}/v1/rollouts/bears/stops"
    answer = httpx2.post(url, json=body, headers=headers, timeout=30)
    assert answer.status_code in {200, 201}, answer.text


def is_stopped(address, key):
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx2.get(f"{address}/v1/rollouts/bears/stops", headers=headers, timeout=30)
    return len(answer.json()["items"]) == 1


def check(url, traffic, at):
    """Tick with this program; every acknowledged case is stored and the tables agree."""
    database = Database(url)
    try:
        assert Ticker(database, "bears", "second").tick(at) is not None
        with database.begin_read() as transaction:
            state = load_rollout_state(transaction, "bears")
            Ledger(transaction, state.rollout).verify()
            query = select(external_keys.c.key).join(cases, cases.c.case_id == external_keys.c.id)
            stored = Counter(transaction.execute(query).scalars())
        assert {key: stored[key] for key in traffic.accepted} == dict.fromkeys(traffic.accepted, 1)
        assert tuple(rebuild_derived_tables(database, "bears").describe()) == ()
    finally:
        database.close()

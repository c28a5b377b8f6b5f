"""Two replicas are upgraded one after the other under traffic: the first program goes on.

The next program is a copy of this one with a migration and a kind of entry more; each runs in
processes of its own, behind a balancer that probes which are ready.
"""

import json
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

from rollout.data.database.migrations import load_current_revision
from rollout.data.database.session import Database
from rollout.data.tables.tables import cases, damages, external_keys
from tests.data.databases import ENGINES, fresh
from tests.migrations.further import FURTHER, HEAD, copy_program

pytestmark = [pytest.mark.faults, pytest.mark.enable_socket]
ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds for a process to start on a busy machine
SET_UP = """
import os, sys
from datetime import UTC, datetime, timedelta
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.commands import Actor
from rollout.features.access import keys, users
from rollout.live.policy_application import apply_policy
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
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
from rollout.live.tick_passes import Ticker
from rollout.data.database.session import Database
database = Database(os.environ["ROLLOUT_DATABASE_URL"])
events = Ticker(database, "bears", "first").tick(datetime.fromisoformat(sys.argv[1]))
print("nothing due" if events is None else "ticked")
"""
NOTE = """
import os
from datetime import UTC, datetime
from rollout.engine.events import WeatherNoted
from rollout.live.rollout_state import load_rollout_state
from rollout.data.database.migrations import UnfinishedUpgradeError
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
database = Database(os.environ["ROLLOUT_DATABASE_URL"])
try:
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "bears")
        event = WeatherNoted(at=datetime.now(UTC), by="zoe", weather="rain")
        Ledger(transaction, state.rollout).append([event], after=state.scope.revision)
    print("noted")
except UnfinishedUpgradeError:
    print("waits")
"""
COMMAND = "from rollout.cli.main import app; app(prog_name='rollout')"
POLICY = """
rollout: bears
timezone: UTC
levers:
  - {id: alarm, labels: [bear, none], actions: {bear: siren, none: nothing}}
sites: [creek, lake]
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

    def run(self, *words, fails=False):
        """Run to the end and return the words of its output; `fails` None takes any end."""
        with (self.workspace / "command.log").open("wb+") as log:
            process = self.start(*words, log=log)
            process.wait(PATIENCE)
            log.seek(0)
            output = log.read().decode()
        assert fails is None or (process.returncode != 0) is fails, output
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


class Balancer:
    """The replicas that were ready when they were last probed, in turn, as a proxy has them."""

    def __init__(self):
        self.addresses, self._turn = [], 0

    def choose(self):
        ready = [address for address in tuple(self.addresses) if is_ready(address)]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None


class Traffic:
    """A client that sends cases, predictions and decisions through a balancer."""

    def __init__(self, key):
        self.accepted, self.faults, self._balancer = [], Counter(), Balancer()
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

    def use(self, *addresses):
        """Let the balancer probe these."""
        self._balancer.addresses = addresses

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
            number += 1
            self._send(f"case-{number}")

    def _send(self, key):
        at = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        answers = {"answers": {"alarm": "bear"}}
        records = [
            {"kind": "case", "key": key, "site": "creek", "occurred_at": at},
            {"kind": "prediction", "key": key, "version": "v1", "at": at, **answers},
            {"kind": "decision", "key": key, "reviewer": "dia", "submitted_at": at, **answers},
        ]
        question = {"site": "creek", "at": at, "key": key, "version": "v1"}
        try:
            sent = self._post("records", records)
            asked = self._post("assignments", question)
        except httpx2.TransportError as error:
            self.faults[type(error).__name__] += 1
            return
        statuses = [item["status"] for item in sent.json().get("items", ())]
        is_stored = set(statuses) <= {"accepted", "duplicate"}
        if (sent.status_code, asked.status_code) != (200, 200) or not is_stored:
            self.faults[f"{sent.status_code} {asked.status_code} {statuses} {sent.text[:300]}"] += 1
            return
        self.accepted.append(key)

    def _post(self, resource, body):
        """Post until the answer is no 503, as the docs tell clients to do."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            address = self._balancer.choose()
            if address is not None:
                url = f"{address}/v1/rollouts/bears/{resource}"
                answer = httpx2.post(url, json=body, headers=self._headers, timeout=30)
                if answer.status_code != 503:
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"no replica took {resource}")


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
            traffic.use(first)
            traffic.wait_for(3)
            following.run("-c", COMMAND, "db", "upgrade")
            assert load_current_revision(url) == FURTHER
            traffic.wait_for(3)  # this program on the next tables
            with following.serve() as second:
                traffic.use(first, second)
                traffic.wait_for(6)
                stop(first, operator, "creek")
                assert count_stops(second, operator) == 1
                stop(second, operator, "lake")
                assert count_stops(first, operator) == 2
                now = datetime.now(UTC)
                assert tick(this, now + timedelta(hours=1)) == ["ticked"]
                assert tick(following, now + timedelta(hours=2)) == ["ticked"]
                assert following.run("-c", NOTE) == ["waits"]
                traffic.wait_for(3)
            traffic.use(first)  # the way back: the next program was a bad release
            with this.serve() as third:
                traffic.use(first, third)
                traffic.wait_for(4)
                with following.serve() as second:
                    traffic.use(first, second, third)
                    following.run("-c", COMMAND, "db", "upgrade", "--finish")
                    assert following.run("-c", NOTE) == ["noted"]
                    traffic.wait_for(9)  # of those that were replaced none is ready
                    assert not is_ready(first)
                    assert is_ready(second)
                    assert {"newer", "finished:"} <= {*this.run("-c", COMMAND, "serve", fails=True)}
                    assert tick(following, now + timedelta(hours=3)) == ["ticked"]
                    traffic.finish()
        assert not traffic.faults
        check(url, traffic, following, now + timedelta(hours=4))


def tick(program, at):
    return program.run("-c", TICK, at.isoformat())


def stop(address, key, site):
    headers = {"Authorization": f"Bearer {key}"}
    body = {"cells": [{"site": site, "window": "always"}], "reason": "the upgrade"}
    url = f"{address}/v1/rollouts/bears/stops"
    answer = httpx2.post(url, json=body, headers=headers, timeout=30)
    assert answer.status_code in {200, 201}, answer.text


def count_stops(address, key):
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx2.get(f"{address}/v1/rollouts/bears/stops", headers=headers, timeout=30)
    return len(answer.json()["items"])


def check(url, traffic, following, at):
    """Tick with the next program; every acknowledged case is stored and the tables agree."""
    assert tick(following, at) == ["ticked"]
    output = following.run("-c", COMMAND, "doctor", "--rebuild", "--json", fails=None)
    faults = {check["check"] for check in json.loads(" ".join(output)) if check["faults"]}
    assert faults <= {"the role of the service does not own the tables"}
    database = Database(url)
    try:
        with database.begin_read() as transaction:
            query = select(external_keys.c.key).join(cases, cases.c.case_id == external_keys.c.id)
            stored = Counter(transaction.execute(query).scalars())
            assert transaction.execute(select(damages)).all() == []  # none was a fault of a reader
        assert {key: stored[key] for key in traffic.accepted} == dict.fromkeys(traffic.accepted, 1)
    finally:
        database.close()

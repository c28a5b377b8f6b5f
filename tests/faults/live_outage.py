"""A fault under a running service: what clients get before, during and after it, counted.

One thread asks who decides, another sends records until each is acknowledged, and a stop is sent
while the fault lasts. Afterwards the database is compared with what was acknowledged.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread

import httpx2
from sqlalchemy import select

from rollout.data.database.migrations import upgrade
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.tables import cases, external_keys, predictions
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from rollout.live.rollout_state import load_rollout_state
from tests.api.test_serve import free_port, until_ready
from tests.factories import DAY
from tests.features import bear_field as field_of_bears
from tests.features.houses import ADA, chance

BASE = "/v1/rollouts/bears"
COMMAND = "from rollout.cli.main import app; app(prog_name='rollout')"
SITES = ("creek", "lake", "dale")
WRITE_AGE, SLACK = 3.0, 1.0
"""Seconds for which a confirmed write counts, and what a busy machine may take beyond a limit."""
PATIENCE = 60.0
"""Seconds in which a service recovers, at the very latest."""


@dataclass(frozen=True)
class Figures:
    """What a case measured; None where its fault does not touch it."""

    tried: int = 1
    lost: int | None = None
    doubled: int | None = None
    wider: int | None = None
    late_stops: int | None = None
    recovery_seconds: float | None = None
    note: str = ""


@dataclass
class LiveFault:
    """A fault that a test makes while the service runs.

    Attributes:
        begin, end: make and end it.
        prove: raises unless the fault is there.
        blocks_writes: whether nothing can be written meanwhile, so that humans decide everything.
        has_commands: whether an operator on the machine also types a stop meanwhile.
        environment: variables of the service.
    """

    begin: Callable[[], None]
    prove: Callable[[], None]
    end: Callable[[], None]
    blocks_writes: bool = True
    has_commands: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def prepare_field(url):
    """Let the model decide everywhere; return the keys of a client and of an operator."""
    upgrade(url)
    database, now = Database(url), datetime.now(UTC)
    try:
        field_of_bears.set_up_field(database, at=now - DAY)
        cells = [(site, window) for site in SITES for window in ("day", "night")]
        field_of_bears.widen(database, *cells, at=now - DAY / 2)
        users.create_first_admin(database, "ada", at=now)
        operator = (AssignedRole("operator"),)
        users.create_account(database, ADA, "oli", at=now, role_assignments=operator)
        roles = (AssignedRole("ingest"), AssignedRole("viewer"))
        users.create_account(
            database, ADA, "box", at=now, is_service_account=True, role_assignments=roles
        )
        made = (
            keys.create_key(database, ADA, name, random_bytes=chance(), at=now)
            for name in ("box", "oli")
        )
        return [key.text for key in made]
    finally:
        database.close()


@contextmanager
def serve_replica(url, folder, environment=None):
    """Run the service, with its log and its latched stops in a folder; give its address."""
    port = free_port()
    words = [sys.executable, "-c", COMMAND, "serve", "--port", str(port), "--accept-lost-records"]
    settings = build_environment(url, folder) | (environment or {})
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(words, env=settings, cwd=folder, stderr=log, stdout=log) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def build_environment(url, folder):
    """Return the variables of the service and of commands on its machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
    settings = {"ROLLOUT_DATABASE_URL": url, "ROLLOUT_LATCH_FOLDER": str(folder / "kept")}
    return own | settings


@dataclass(frozen=True)
class TimedAnswer:
    """Who decides at a site; `decider` is "" for an error."""

    site: str
    asked_at: float
    answered_at: float
    decider: str


class Clients:
    """Clients of a service: one asks, one sends, both until they are told to end."""

    def __init__(self, address, client_key, operator_key):
        bearer = {"Authorization": f"Bearer {client_key}"}
        self.http = httpx2.Client(base_url=address, headers=bearer, timeout=20)
        self._operator = {"Authorization": f"Bearer {operator_key}"}
        self.answers, self.acknowledged = [], []
        self._is_over = Event()
        self._threads = [Thread(target=run) for run in (self._ask, self._send)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self.http.close()

    def await_decider(self, site, decider, since):
        """Wait for an answer asked for since an instant; return when it came."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for answer in reversed(self.answers):
                if answer.asked_at < since:
                    break
                if (answer.site, answer.decider) == (site, decider):
                    return answer.answered_at
            time.sleep(0.02)
        raise AssertionError(f"{site}: {decider} never decides; last {self.answers[-3:]}")

    def await_record(self):
        """Wait until one more record is acknowledged."""
        count, deadline = len(self.acknowledged), time.monotonic() + PATIENCE
        while len(self.acknowledged) == count:
            assert time.monotonic() < deadline, "no record is acknowledged"
            time.sleep(0.02)

    def stop(self, site):
        """Stop a site; return the answer, and when it came."""
        body = {"sites": [site], "reason": "fault"}
        answer = self.http.post(f"{BASE}/stops", json=body, headers=self._operator)
        return answer, time.monotonic()

    def _ask(self):
        number = 0
        while not self._is_over.wait(0.02):
            number += 1
            site, asked_at = SITES[number % len(SITES)], time.monotonic()
            decider = self._ask_once(site)
            self.answers.append(TimedAnswer(site, asked_at, time.monotonic(), decider))

    def _ask_once(self, site):
        at = datetime.now(UTC).isoformat()
        question = {"site": site, "at": at, "key": "c1", "version": "v1"}
        try:
            answer = self.http.post(f"{BASE}/assignments", json=question)
        except httpx2.TransportError:
            return ""
        return answer.json()["decider"] if answer.status_code == 200 else ""

    def _send(self):
        number, at = 0, datetime.now(UTC).isoformat()
        while not self._is_over.wait(0.05):
            if self._send_once(f"case-{number}", at):  # else the same is sent again
                number, at = number + 1, datetime.now(UTC).isoformat()

    def _send_once(self, key, at):
        case = {"kind": "case", "key": key, "site": "lake", "occurred_at": at}
        prediction = {"kind": "prediction", "key": key, "version": "v1", "at": at}
        body = [case, prediction | {"answers": {"alarm": "bear"}}]
        try:
            answer = self.http.post(f"{BASE}/records", json=body)
        except httpx2.TransportError:
            return False
        if answer.status_code != 200:
            return False
        statuses = {item["status"] for item in answer.json()["items"]}
        if statuses <= {"accepted", "duplicate"}:
            self.acknowledged.append(key)
            return True
        return False


def run_outage(fault, url, api_keys, folder):
    """Run a service, make a fault under it, end it; return the figures."""
    folder.mkdir(exist_ok=True)
    with (
        serve_replica(url, folder, fault.environment) as address,
        Clients(address, *api_keys) as clients,
    ):
        until_ready(address)
        for site in SITES:
            clients.await_decider(site, "model", 0)
        clients.await_record()
        fault.begin()
        fault.prove()
        began_at = time.monotonic()
        if fault.blocks_writes:
            clients.await_decider("lake", "human", began_at)
        stops = _stop_meanwhile(fault, clients, url, folder)
        time.sleep(1)
        fault.prove()
        ended_at = time.monotonic()
        fault.end()
        recovered_at = clients.await_decider("lake", "model", ended_at)
        stops = stops or {"creek": _stop_again(clients)}
        clients.await_record()
        stopped = _await_ledger(url, len(stops))
        time.sleep(1)
    late = [
        site for site, since in stops.items() if count_models(clients.answers, since, site=site)
    ]
    wider = sum(count_models(clients.answers, since, site=site) for site, since in stops.items())
    if fault.blocks_writes:
        wider += count_models(clients.answers, began_at + WRITE_AGE + SLACK, until=ended_at)
    lost, doubled = compare_records(url, clients.acknowledged)
    return Figures(
        lost=lost + max(0, len(stops) - stopped),
        doubled=doubled + max(0, stopped - len(stops)),
        wider=wider,
        late_stops=len(late),
        recovery_seconds=round(recovered_at - ended_at, 2),
        note=_describe(clients, began_at, ended_at, stops),
    )


def _stop_meanwhile(fault, clients, url, folder):
    """Stop creek by a request, dale by a command; return since when each has to hold."""
    stops = {}
    answer, at = clients.stop("creek")
    is_latched = answer.status_code == 503 and answer.json()["code"] == "stop-not-stored"
    assert answer.status_code in {200, 201, 503}, answer.text
    if is_latched or answer.status_code != 503:
        stops["creek"] = at
    if fault.has_commands:
        stops["dale"] = _stop_by_command(url, folder)
    return stops


def _stop_by_command(url, folder):
    """Stop dale by a command on the machine; return since when that has to hold."""
    words = [sys.executable, "-c", COMMAND, "stop", "bears", "--site", "dale", "--by", "oli"]
    done = subprocess.run(
        words,
        env=build_environment(url, folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # else this small write found room
        assert done.returncode == 2, done.stderr
        assert re.search("it is kept in|every replica obeys", done.stderr), done.stderr
    return time.monotonic() + 2 + SLACK


def _stop_again(clients):
    """Send the stop that a 503 has refused again, as its answer says."""
    answer, at = clients.stop("creek")
    assert answer.status_code in {200, 201}, answer.text
    return at


def count_models(answers, since, *, until=float("inf"), site=None):
    """Return how many questions asked in a span got `model`, of one site or of all."""
    return sum(
        answer.decider == "model"
        for answer in answers
        if answer.asked_at >= since and answer.answered_at <= until and site in {None, answer.site}
    )


def _await_ledger(url, count):
    """Wait until the ledger has the stops; return how many it has."""
    deadline = time.monotonic() + PATIENCE
    while True:
        stopped = len(list_stopped(url))
        if stopped >= count or time.monotonic() > deadline:
            return stopped
        time.sleep(0.2)


def list_stopped(url):
    """Return the sites of each stop in the ledger."""
    database = Database(url)
    try:
        with database.begin_read() as transaction:
            ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
            rows = ledger.list_rows(kinds=("Stopped",))
            return [{cell["site"] for cell in row.fields["cells"]} for row in rows]
    finally:
        database.close()


def compare_records(url, acknowledged):
    """Return how many acknowledged records are missing, and how many stand there twice."""
    database = Database(url)
    try:
        with database.begin_read() as transaction:
            Ledger(transaction, load_rollout_state(transaction, "bears").rollout).verify()
            counts = [
                Counter(
                    transaction.execute(
                        select(external_keys.c.key).join(
                            table, table.c.case_id == external_keys.c.id
                        )
                    ).scalars()
                )
                for table in (cases, predictions)
            ]
    finally:
        database.close()
    lost = sum(count[key] == 0 for count in counts for key in set(acknowledged))
    doubled = sum(number - 1 for count in counts for number in count.values() if number > 1)
    return lost, doubled


def _describe(clients, began_at, ended_at, stops):
    meanwhile = [a for a in clients.answers if began_at <= a.asked_at and a.answered_at <= ended_at]
    slowest = max((a.answered_at - a.asked_at for a in meanwhile), default=0.0)
    ending = "" if len(stops) == 1 else "s"
    return (
        f"{len(clients.answers):,} answers, {len(clients.acknowledged):,} acknowledged cases;"
        f" slowest answer during the fault {slowest:.2f} s; {len(stops)} stop{ending}"
    )

"""Clients of two replicas: they know what was acknowledged, and retry what was not."""

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from tests.faults.kills.kill_field import ANSWER, REVIEWER, ROLLOUT, SITES, VERSION
from tests.faults.kills.service_process import ACTION_HEADER

PAUSE = 0.06
"""Seconds between two rounds of a client of the traffic."""
RETRY_PAUSE = 0.05
TIMEOUT = 20
ACCOUNTS = ("box", "desk")
PATH = f"/v1/rollouts/{ROLLOUT}"
REPEAT_EVERY = 7
_numbers = count(1)


class UnansweredRequestError(Exception):
    """A request got no whole answer: nobody knows what came of it."""


@dataclass(frozen=True)
class ClientCase:
    """A case with its prediction and its decision, as a client sends them."""

    key: str
    site: str
    at: str

    def list_items(self, account):
        """Return the records that an account sends: `desk` the decision, `box` all others."""
        of = {"key": self.key}
        if account == "desk":
            own = {"reviewer": REVIEWER, "answers": ANSWER, "submitted_at": self.at}
            return [{"kind": "decision"} | of | own]
        own = {"version": VERSION, "answers": ANSWER, "at": self.at}
        case = {"kind": "case", "site": self.site, "occurred_at": self.at}
        return [case | of, {"kind": "prediction"} | of | own]


@dataclass(frozen=True)
class ScopeAnswer:
    """Who decides at a site: what a replica answered, and when it was asked."""

    replica: int
    site: str
    is_model: bool
    revision: int
    asked_at: float
    answered_at: float


@dataclass
class Acknowledgements:
    """Everything that the service acknowledged, by the clients' own lists.

    Attributes:
        cases: acknowledged, and not yet looked for.
        answers: to questions, and not yet judged.
    """

    cases: list[ClientCase] = field(default_factory=list)
    answers: list[ScopeAnswer] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self):
        """Return the cases and answers that came since the last call."""
        with self.lock:
            taken = self.cases, self.answers
            self.cases, self.answers = [], []
        return taken

    def add_cases(self, cases):
        """Note acknowledged cases."""
        with self.lock:
            self.cases += cases

    def count_answers(self, since):
        """Return by replica how many answers, not yet taken, were asked for since a time."""
        with self.lock:
            return Counter(answer.replica for answer in self.answers if answer.asked_at >= since)

    def add_answers(self, answers):
        """Note answers to questions."""
        with self.lock:
            self.answers += answers


class ReplicaClient:
    """One client's connection to one replica."""

    def __init__(self, port, key):
        self._port, self._key, self._connection = port, key, None

    def post(self, path, body, **headers):
        """Post a body; return status and answer.

        Raises:
            UnansweredRequestError: the connection broke before the answer was whole.
        """
        return self.request("POST", path, json.dumps(body), headers)

    def request(self, method, path, body=None, headers=()):
        """Make a request on the open connection, or on a new one."""
        own = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, TIMEOUT)
            self._connection.request(method, path, body, own | dict(headers))
            answer = self._connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise UnansweredRequestError(f"{type(error).__name__}: {error}") from error

    def close(self):
        """Close the connection."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
            self._connection = None


def mark_action(action):
    """Return the header by which a replica knows which action a request is."""
    return {ACTION_HEADER.decode(): action}


def build_cases(number, site=None):
    """Return new cases of this moment, at one site or at all in turn."""
    at = datetime.now(UTC).isoformat()
    fresh = [next(_numbers) for _ in range(number)]
    return [ClientCase(f"case-{n}", site or SITES[n % len(SITES)], at) for n in fresh]


def list_items(cases, account):
    """Return the records of cases that an account sends."""
    return [item for case in cases for item in case.list_items(account)]


def is_acknowledged(body):
    """Return whether the answer says that each record is stored."""
    return {item["status"] for item in body["items"]} <= {"accepted", "duplicate"}


def send_cases(clients, cases):
    """Send cases by each account's client; return whether all records are acknowledged.

    Raises:
        UnansweredRequestError: no whole answer came.
    """
    answers = (
        client.post(f"{PATH}/records", list_items(cases, account))
        for account, client in clients.items()
    )
    return all(status == 200 and is_acknowledged(body) for status, body in answers)


def ask_everywhere(client, replica):
    """Ask who decides a case at each site; return the answers."""
    at, asked_at = datetime.now(UTC).isoformat(), time.monotonic()
    questions = [
        {"site": site, "at": at, "key": f"q-{next(_numbers)}", "version": VERSION} for site in SITES
    ]
    status, body = client.post(f"{PATH}/assignments", {"questions": questions})
    if status != 200:
        return []
    answered_at = time.monotonic()
    return [
        ScopeAnswer(
            replica, site, answer["decider"] == "model", answer["revision"], asked_at, answered_at
        )
        for site, answer in zip(SITES, body["answers"], strict=True)
    ]


class TrafficThread(threading.Thread):
    """A client of a replica: it sends cases, asks who decides, and fails over to the other one."""

    def __init__(self, ports, home, api_keys, acknowledgements):
        super().__init__(name=f"traffic-{home}", daemon=True)
        self._clients = [
            {account: ReplicaClient(port, api_keys[account]) for account in ACCOUNTS}
            for port in ports
        ]
        self._home, self._acknowledgements = home, acknowledgements
        self._end = threading.Event()

    def finish(self):
        """Send nothing more; wait for the last answer."""
        self._end.set()
        if self.is_alive():
            self.join()

    def run(self):
        """Send until the end."""
        waiting, replica = [], self._home
        for round_number in count():
            if self._end.wait(PAUSE):
                return
            waiting = waiting or build_cases(1)
            try:
                waiting = self._send(replica, waiting, is_repeated=round_number % REPEAT_EVERY == 0)
                replica = self._home
            except UnansweredRequestError:
                replica = 1 - replica

    def _send(self, replica, cases, *, is_repeated):
        """Send cases and questions; return the cases that are to be sent again."""
        clients = self._clients[replica]
        is_sent = send_cases(clients, cases)
        if is_sent:
            self._acknowledgements.add_cases(cases)
            if is_repeated:  # a client that lost the answer
                send_cases(clients, cases)
        self._acknowledgements.add_answers(ask_everywhere(clients["box"], replica))
        return [] if is_sent else cases


class Operators:
    """The accounts whose requests are killed: they retry until answered."""

    def __init__(self, ports, api_keys):
        self._clients = {
            name: [ReplicaClient(port, key) for port in ports] for name, key in api_keys.items()
        }
        self._keys = count(1)

    def start_request(self, who, path, body, action):
        """Return a request that can be repeated at either replica under one key."""
        return KeyedRequest(
            self._clients[who], f"{PATH}{path}", body, action, f"key-{next(self._keys)}"
        )

    def start_batch(self, cases, account):
        """Return the request of a large batch; its records have keys of their own."""
        items = list_items(cases, account)
        return KeyedRequest(self._clients[account], f"{PATH}/records", items, "ingest", "")


@dataclass
class KeyedRequest:
    """One request, with its answer as soon as it has one."""

    clients: list[ReplicaClient]
    path: str
    body: object
    action: str
    key: str
    answer: object = None
    sent_at: float = 0.0
    answered_at: float = 0.0
    refusals: list[str] = field(default_factory=list)

    def try_at(self, replica):
        """Send it to a replica; return whether it was answered by 2xx."""
        headers = mark_action(self.action)
        if self.key:
            headers["Idempotency-Key"] = self.key
        self.sent_at = self.sent_at or time.monotonic()
        try:
            status, body = self.clients[replica].post(self.path, self.body, **headers)
        except UnansweredRequestError as error:
            self.refusals.append(str(error))
            return False
        if status >= 300:
            self.refusals.append(f"{status} {body}")
            return False
        self.answered_at, self.answer = time.monotonic(), body
        return True

    def finish(self, replica, patience):
        """Repeat it, at the replicas in turn, until it is answered.

        Raises:
            TimeoutError: it never was.
        """
        deadline = time.monotonic() + patience
        while self.answer is None:
            if self.try_at(replica):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path}: {self.refusals[-3:]}")
            replica = 1 - replica
            time.sleep(RETRY_PAUSE)
        return self.answer

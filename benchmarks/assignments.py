"""Who decides, over HTTP with 10,000 cells loaded, beside a bare FastAPI handler in the same run.

Both are served by uvicorn, with httptools and uvloop if they are installed, each in a process of
its own, and asked over one kept-open connection, in turns. The service checks keys, permissions and
rates, counts its metrics and writes its access log; the bare handler does none of it. The CPU is
the serving process', so what asks costs nothing here. The model decides a single question, and half
of those of a batch.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from reported_figures import report_figure

HERE = Path(__file__).parent
SITES, WINDOWS = 2_500, 4
CALLERS = 40  # keys that take turns: one alone would meet its rate limit
ROUNDS, REQUESTS, BATCHES, BATCH = 9, 500, 80, 100  # short turns: machines are noisy
NAME = "bench"
FLAG_PATH = f"/ofrep/v1/evaluate/flags/gate.{NAME}.decider"
HOURS = ("00:00-06:00", "06:00-12:00", "12:00-18:00", "18:00-24:00")
START = datetime.now(UTC) - timedelta(days=1)
Turns = dict[str, list[tuple[float, float]]]
"""CPU and wall microseconds of each turn, by what was asked."""


PLAIN_RULES = "evidence: {unit: case}"


def build_policy_text(count: int = SITES, rest: str = PLAIN_RULES) -> str:
    """Return a policy with four cells a site, in which the model decides and a tenth is audited."""
    sites = ", ".join(f"site-{number}" for number in range(count))
    windows = ", ".join(f'{{id: w{n}, hours: "{hours}"}}' for n, hours in enumerate(HOURS))
    return f"""
rollout: {NAME}
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound], answer_within: 2m, unanswered: damaged}}]
sites: [{sites}]
windows: [{windows}]
stages: [{{id: autonomous, audit: 10%}}]
{rest}
gates: [{{to: autonomous, require: [{{measure: agreement, at_least: 95%}}]}}]
"""


def fill(url: str, count: int = SITES, rest: str = PLAIN_RULES) -> list[str]:
    """Make the rollout with a grant in every cell, and machines that may ask; return their keys."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.data.ledger.ledger import Ledger
    from rollout.data.records.versions import VersionInfo, VersionStore
    from rollout.engine.decide.commands import Actor
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.engine.events import VersionFirstUsed, Widened
    from rollout.features.access import keys, users
    from rollout.live.policy_application import apply_policy
    from rollout.live.rollout_state import load_rollout_state

    upgrade(url)
    database, admin = Database(url), Caller("ada", role_assignments=(AssignedRole("admin"),))
    apply_policy(database, build_policy_text(count, rest), Actor("ada"), START, salt=bytes(32))
    with database.begin_write() as transaction:
        rollout_state = load_rollout_state(transaction, NAME)
        for version in ("v1", "v2"):
            VersionStore(transaction, rollout_state.rollout).record_info(
                VersionInfo(version, "bench"), at=START
            )
        engine = {"at": START, "by": "policy"}
        grants = (
            Widened(
                **engine,
                cell=cell,
                version="v1",
                to_stage="autonomous",
                until=START + timedelta(days=90),
                proposal="P-0",
            )
            for cell in rollout_state.policy.cells
        )
        events = (VersionFirstUsed(**engine, version="v1"), *grants)
        Ledger(transaction, rollout_state.rollout).append(
            events, after=rollout_state.scope.revision
        )
    users.create_first_admin(database, "ada", at=START)
    made = []
    for number in range(CALLERS):
        rights = (AssignedRole("ingest", NAME),)
        users.create_account(
            database,
            admin,
            f"box-{number}",
            at=START,
            role_assignments=rights,
            is_service_account=True,
        )
        made.append(_key(database, admin, f"box-{number}", keys))
    database.close()
    return made


def _key(database: Any, admin: Any, name: str, keys: Any) -> str:
    text: str = keys.create_key(database, admin, name, at=START, random_bytes=os.urandom(38)).text
    return text


def serve(which: str, url: str) -> None:
    """Serve one of the two on a free port, which is printed; `/cpu` says its CPU seconds."""
    import uvicorn

    from api.http_protocol import HTTP_PROTOCOL

    app = build_app(url) if which == "ours" else build_bare_app()

    @app.get("/cpu")
    def cpu() -> float:
        return time.process_time()

    config = uvicorn.Config(
        app,
        http=HTTP_PROTOCOL if which == "ours" else "auto",
        log_config=build_log_into_nothing() if which == "ours" else None,
        log_level="warning",
        access_log=False,  # uvicorn's own, which the service never has
        timeout_keep_alive=600,
    )
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # named, so that asyncio sets TCP_NODELAY
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    gc.freeze()  # as `rollout serve` does
    uvicorn.Server(config).run(sockets=[listening])


def build_log_into_nothing() -> dict[str, Any]:
    """Return the configuration with the service's access log, whose lines go to the null device."""
    from api.metrics import build_log_config

    config = build_log_config("json")
    config["handlers"]["stderr"]["stream"] = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    return config


def build_app(url: str) -> Any:
    """Return the service's application."""
    from api.app import create_app
    from rollout.data.database.session import Database
    from rollout.features.access.authentication import Authenticator
    from rollout.live.clock import SystemClock
    from rollout.live.service import build_service

    database, clock = Database(url), SystemClock()
    return create_app(build_service(database, Authenticator(database, clock), clock))


def build_bare_app() -> Any:
    """Return what FastAPI costs by itself: a body of the same form is checked and answered."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class BareQuestion(BaseModel):
        site: str
        at: datetime
        key: str
        version: str
        episode: str | None = None
        confidence: float | None = None

    class BareQuestions(BaseModel):
        questions: list[BareQuestion]

    app = FastAPI()

    @app.post("/v1/rollouts/{rollout}/assignments")
    async def answer_one(rollout: str, body: BareQuestion) -> dict[str, str]:
        return {"key": body.key, "decider": "human", "rollout": rollout}

    @app.post("/many")
    async def many(body: BareQuestions) -> dict[str, list[dict[str, str]]]:
        return {"answers": [{"key": q.key, "decider": "human"} for q in body.questions]}

    return app


class Line:
    """One kept-open connection, without a client library's own cost."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> bytes:
        """Send a request, wait for its answer, and return the body of a 200."""
        self._socket.sendall(request)
        status, length = self._file.readline(), 0
        if not status:
            raise RuntimeError("the connection was closed")
        for header in iter(self._file.readline, b"\r\n"):
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        body = self._file.read(length)
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r} {body!r}")
        return body

    def cpu(self) -> float:
        """Return the serving process' CPU seconds so far."""
        return float(self.ask(b"GET /cpu HTTP/1.1\r\nHost: b\r\n\r\n"))


def request(path: str, body: Any, key: str) -> bytes:
    """Return a request as it goes over the line."""
    return build_post(path, json.dumps(body).encode(), key)


def build_post(path: str, body_text: bytes, key: str) -> bytes:
    """Return a request with a body of JSON as it goes over the line."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body_text)}\r\n\r\n"
    )
    return head.encode() + body_text


def build_question(number: int, version: str = "v1") -> dict[str, Any]:
    """Return a question about one of the sites, now."""
    at = datetime.now(UTC).isoformat()
    site = f"site-{number * 7 % SITES}"
    return {"site": site, "at": at, "key": f"case-{number}", "version": version, "confidence": 0.9}


def build_flag(number: int) -> dict[str, Any]:
    """Return the same question as an OpenFeature client asks it."""
    question = build_question(number)
    return {"context": {"targetingKey": question.pop("key"), **question}}


@contextmanager
def run_server(which: str, url: str) -> Iterator[Line]:
    """Serve in another process, and give a line to it."""
    command = [sys.executable, str(HERE / "assignments.py"), "--serve", which, "--url", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        port = int(process.stdout.readline())
        time.sleep(1)
        yield Line(port)
    finally:
        process.terminate()
        process.wait()


def measure_requests(line: Line, requests: list[bytes]) -> tuple[float, float]:
    """Return the CPU and wall microseconds a request."""
    cpu, wall = line.cpu(), time.perf_counter()
    for request_bytes in requests:
        line.ask(request_bytes)
    wall, cpu = time.perf_counter() - wall, line.cpu() - cpu
    return cpu / len(requests) * 1e6, wall / len(requests) * 1e6


def measure_servers() -> Turns:
    """Return CPU and wall microseconds a request of each kind, in each turn."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        keys = fill(url)
        with run_server("ours", url) as mine, run_server("bare", url) as plain:
            return _measure_lines(mine, plain, keys)


def _measure_lines(mine: Line, plain: Line, keys: list[str]) -> Turns:
    path = f"/v1/rollouts/{NAME}/assignments"
    turns: Turns = {}
    for turn in range(ROUNDS + 1):
        singles = [request(path, build_question(n), keys[n % CALLERS]) for n in range(REQUESTS)]
        flags = [request(FLAG_PATH, build_flag(n), keys[n % CALLERS]) for n in range(REQUESTS)]
        batch = {"questions": [build_question(n, f"v{n % 2 + 1}") for n in range(BATCH)]}
        batches = [request(path, batch, keys[n % CALLERS]) for n in range(BATCHES)]
        many = [request("/many", batch, "-") for _ in range(BATCHES)]
        medians = {
            "bare, one": measure_requests(plain, singles),
            "ours, one": measure_requests(mine, singles),
            "OFREP, one": measure_requests(mine, flags),
            "bare, batch": measure_requests(plain, many),
            "ours, batch": measure_requests(mine, batches),
        }
        if turn:  # the first warms up
            for name, figures in medians.items():
                turns.setdefault(name, []).append(figures)
    _check(mine, path, keys[0])
    return turns


def _report_figures(turns: Turns) -> None:
    """Report the CPU of each turn: requests, their ratios, and each more of a batch."""
    spent = {name: [cpu for cpu, _ in rows] for name, rows in turns.items()}
    for name, values in spent.items():
        report_figure(name, "µs of CPU", values)
    for who in ("ours", "OFREP"):
        pairs = zip(spent[f"{who}, one"], spent["bare, one"], strict=True)
        report_figure(f"one, {who} / bare", "ratio", [own / bare for own, bare in pairs], 1.5)
    for who, goal in (("ours", 5), ("bare", None)):
        pairs = zip(spent[f"{who}, batch"], spent[f"{who}, one"], strict=True)
        each = [(batch - single) / (BATCH - 1) for batch, single in pairs]
        report_figure(f"each more of {BATCH}, {who}", "µs of CPU", each, goal)


def _median(figures: list[tuple[float, float]]) -> tuple[float, float]:
    return median(cpu for cpu, _ in figures), median(wall for _, wall in figures)


def _check(mine: Line, path: str, key: str) -> None:
    """See that what was measured is the model deciding."""
    assignment = json.loads(mine.ask(request(path, build_question(5), key)))
    assert (assignment["decider"], assignment["stage"]) == ("model", "autonomous")  # noqa: S101


def format_table() -> Iterator[str]:
    """Yield the lines of the table."""
    turns = measure_servers()
    _report_figures(turns)
    figures = {name: _median(rows) for name, rows in turns.items()}
    yield f"{'assignments over HTTP (uvicorn)':34}{'CPU µs':>9}{'wall µs':>9}"
    for name, (cpu, wall) in figures.items():
        yield f"{name:34}{cpu:9.0f}{wall:9.0f}"
    for who in ("ours", "OFREP"):
        cpu, wall = (figures[f"{who}, one"][n] / figures["bare, one"][n] for n in (0, 1))
        yield f"one, {who} / bare: CPU {cpu:.2f}, wall {wall:.2f} (limit 1.5)"
    for who in ("ours", "bare"):
        single, batch = figures[f"{who}, one"], figures[f"{who}, batch"]
        cpu, wall = ((batch[n] - single[n]) / (BATCH - 1) for n in (0, 1))
        yield f"each more of {BATCH}, {who}: CPU {cpu:.1f} µs, wall {wall:.1f} µs (limit 5)"


def main() -> None:
    """Print the table, or serve one side of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("ours", "bare"), help="serve one side")
    parser.add_argument("--url", default="", help="the database to serve from")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.url)
        return
    for line in format_table():
        print(line)


if __name__ == "__main__":
    main()

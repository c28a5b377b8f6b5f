"""What `rollout serve` holds: while it only answers, and while it ticks over two simulated hours.

The process is the command's own, on SQLite; nothing runs beside it in its process. *Answering* is
the minute before the first tick: at rest, then after 10,000 questions, half of them OpenFeature's,
and 1,000 cases with their records. *Ticking* has slots of a minute; an hour of 50,000 counted
cases, 10,000 questions, a report and every page that links lead to takes about two minutes, since
the cases of an hour come at once. The second hour is the same again, with new cases.

*Resident* is what the system counts, with the code of libraries, which all processes share and
which can be read again from disk; *own* is what it made itself and nobody else could use. *Both*
is the process that answers with its process of ticks, which ends after an idle minute.

Example:
    python benchmarks/memory.py answering --cases 1000
"""

import argparse
import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent))  # as a script finds it, `python -m` does then too
from assignments import NAME, Line, build_flag, build_post, build_question, fill, request
from reported_figures import report_figure

PATIENCE = 240.0  # seconds for a tick on a busy machine
SETTLING = 3.0
SITES, VERSION = 2, "v1"
CASES, QUESTIONS, BATCH = 50_000, 10_000, 1_000
ANSWERING_CASES = 1_000
MOST_PAGES, MOST_PAGES_ALIKE = 120, 2
DEFAULT_PARTS = ("answering", "ticking")
ANSWERING_GOAL, QUESTIONS_GOAL, TICKING_GOAL, GROWTH_GOAL, BOTH_GOAL = 100, 135, 135, 5, 355  # MiB
PASSWORD = "correct horse battery"  # noqa: S105 - of a benchmark
COMMAND = "from rollout.cli.main import app; app()"
PAGES = (
    *("/", "R", "R/cells/site-0/w0", "R/proposals", "R/stop", "R/stops", "R/narrow", "R/review"),
    *("R/divergences", "R/cases", "R/cases/case-0", "/incidents", "/reports", "R/reports/1/about"),
    *("/ledger", "R/ledger", "/settings", "/settings/users", "/settings/reviewers", "R/settings"),
    *("R/settings/deliveries", "/new", "R/settings/what-if", "/search?q=case-1"),
    "R/cause?site=site-0&window=w0&version=v1",
)
"""Where looking begins; R is the rollout."""
LINK = re.compile(r'href="(/console/[^"#]*)')
SKIPPED = re.compile(r"/(sign-out|static|assets)|\.(css|js|svg|ico)$")
MemoryUse = tuple[float, float]


def measure_answering(cases: int) -> Iterator[tuple[str, MemoryUse, float | None]]:
    """Yield what a replica holds that has not ticked, with the goal."""
    with run_replica(poll_seconds=60) as replica:
        yield "answering, at rest", replica.read_memory(), ANSWERING_GOAL
        replica.ask_questions(QUESTIONS)
        replica.store_cases(min(cases, ANSWERING_CASES))
        yield "answering, after questions and records", replica.read_memory(), QUESTIONS_GOAL


def measure_ticking(cases: int) -> Iterator[tuple[str, MemoryUse, float | None]]:
    """Yield what a replica holds after its first tick and after each of two hours."""
    with run_replica(poll_seconds=1) as replica:
        until(replica.has_ticked)
        time.sleep(SETTLING)
        yield "ticking, after its first tick", replica.read_memory(), TICKING_GOAL
        yield "both, after the first tick", replica.read_both(), BOTH_GOAL
        for hour in ("first", "second"):
            yield from replica.run_hour(hour, cases)


class MeasuredReplica:
    """A running `rollout serve`, and what clients and users do with it."""

    def __init__(
        self, process: int, port: int, database: Path, keys: list[str], user_key: str
    ) -> None:
        """Take the process' number, its port, its file, keys of clients and one of a user."""
        self._process, self._port, self._database, self._keys = process, port, database, keys
        self._stored, self._user_key = 0, user_key
        self._cookies: dict[str, str] = {}

    def read_memory(self) -> MemoryUse:
        """Return what the process that answers holds, and what of it is its own, in MiB."""
        return _read_fields(self._process)

    def read_both(self) -> MemoryUse:
        """Return what it and its process of ticks hold; with none it stands alone."""
        tasks = Path(f"/proc/{self._process}/task").glob("*/children")
        children = [int(child) for task in tasks for child in task.read_text().split()]
        ticking = [
            child
            for child in children
            if b"tick_process" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        uses = [_read_fields(process) for process in (self._process, *ticking)]
        return sum(resident for resident, _ in uses), sum(own for _, own in uses)

    def run_hour(self, hour: str, cases: int) -> Iterator[tuple[str, MemoryUse, float | None]]:
        """Do an hour's work; yield what the process holds after each part of it."""
        self.store_cases(cases)
        until(lambda: self.count_units() >= self._stored)
        time.sleep(SETTLING)
        yield f"ticking, {hour} hour, cases counted", self.read_memory(), TICKING_GOAL
        yield f"both, {hour} hour, cases counted", self.read_both(), BOTH_GOAL
        self.ask_questions(QUESTIONS)
        yield f"ticking, {hour} hour, questions asked", self.read_memory(), TICKING_GOAL
        self._make_report(hour)
        yield f"ticking, {hour} hour, report made", self.read_memory(), TICKING_GOAL
        pages = self._open_pages()
        time.sleep(SETTLING)
        goal = TICKING_GOAL if hour == "first" else None
        yield f"ticking, {hour} hour, {pages} pages opened", self.read_memory(), goal

    def ask_questions(self, count: int) -> None:
        """Ask who decides, every other time as an OpenFeature client does."""
        line = Line(self._port)
        until(lambda: self._ask_decider(line, 0) == "model")  # a moment after its start
        for number in range(1, count):
            decider = self._ask_decider(line, number)
            if decider != "model":
                raise RuntimeError(f"question {number} is answered {decider!r}")

    def _ask_decider(self, line: Line, number: int) -> str:
        key, site = self._keys[number % len(self._keys)], f"site-{number // 2 % SITES}"
        if number % 2:
            flag = build_flag(number)
            flag["context"]["site"] = site
            path = f"/ofrep/v1/evaluate/flags/gate.{NAME}.decider"
            return str(json.loads(line.ask(request(path, flag, key)))["value"])
        path = f"/v1/rollouts/{NAME}/assignments"
        question = {**build_question(number), "site": site}
        return str(json.loads(line.ask(request(path, question, key)))["decider"])

    def store_cases(self, count: int) -> None:
        """Send cases of the last hour, each with a prediction and a blind decision."""
        line, start = Line(self._port), datetime.now(UTC) - timedelta(minutes=70)
        for first in range(0, count, BATCH):
            items: list[dict[str, Any]] = []
            for number in range(first, min(first + BATCH, count)):
                at = start + timedelta(hours=1) * (number / count)
                items += _build_records(self._stored + number, at)
            body = json.dumps({"items": items}).encode()
            key = self._keys[first // BATCH % len(self._keys)]
            line.ask(build_post(f"/v1/rollouts/{NAME}/records", body, key))
        self._stored += count

    def count_units(self) -> int:
        """Return how many units of the gates are counted."""
        return int(self._query("select count(*) from counted_units where track = 'gate'"))

    def has_ticked(self) -> bool:
        """Return whether a slot is done."""
        return bool(self._query("select count(*) from tick_slots where done_at is not null"))

    def _query(self, text: str) -> Any:
        address = f"file:{self._database}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
            return database.execute(text).fetchone()[0]

    def _make_report(self, hour: str) -> None:
        path, body = f"/v1/rollouts/{NAME}/reports", json.dumps({"name": f"{hour} hour"})
        key = {"Authorization": f"Bearer {self._user_key}"}
        status, text = self._ask("POST", path, body, "application/json", key)
        if status != 201:
            raise RuntimeError(f"{status}: {text[:500]}")
        number = json.loads(text)["id"]
        status, text = self._ask("GET", f"{path}/{number}?format=html", headers=key)
        if status != 200:
            raise RuntimeError(f"{status}: {text[:500]}")

    def _open_pages(self) -> int:
        """Open every kind of page that links lead to; return how many were shown."""
        self._sign_in()
        waiting = [f"/console{page}".replace("R", f"/rollouts/{NAME}") for page in PAGES]
        opened: set[str] = set()
        alike: dict[str, int] = {}
        page_count = 0
        while waiting and len(opened) < MOST_PAGES:
            path = waiting.pop(0).replace("&amp;", "&")
            kind = re.sub(r"\d+|site-\w+|w\d", "N", path)
            if path in opened or SKIPPED.search(path) or alike.get(kind, 0) >= MOST_PAGES_ALIKE:
                continue
            opened.add(path)
            alike[kind] = alike.get(kind, 0) + 1
            status, text = self._ask("GET", path)
            if status >= 500:
                raise RuntimeError(f"{path}: {status}")
            page_count += status == 200
            waiting += LINK.findall(text)
        if page_count < len(opened) / 2:  # few lead on to others
            raise RuntimeError(f"of {len(opened)} pages {page_count} are shown")
        return page_count

    def _sign_in(self) -> None:
        form = urlencode({"name": "olga", "password": PASSWORD, "to": ""})
        status, cookie = self._ask(
            "POST", "/console/sign-in", form, "application/x-www-form-urlencoded"
        )
        if status != 303:
            raise RuntimeError(f"{status}: {cookie[:500]}")

    def _ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        kind: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = headers or {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
        if kind:
            headers = {**headers, "Content-Type": kind}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        for cookie in answer.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.split(";")[0].partition("=")
            self._cookies[name] = value
        connection.close()
        return answer.status, text


def _read_fields(process: int) -> MemoryUse:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    resident, own = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return resident, own


def _build_records(number: int, at: datetime) -> list[dict[str, Any]]:
    key, site, text = f"case-{number}", f"site-{number % SITES}", at.isoformat()
    human = {"parcel": "damaged" if number % 20 == 0 else "sound"}
    prediction = {"version": VERSION, "answers": {"parcel": "sound"}, "confidence": 0.93}
    return [
        {"kind": "case", "key": key, "site": site, "occurred_at": text},
        {"kind": "prediction", "key": key, "at": text, **prediction},
        {"kind": "decision", "key": key, "reviewer": f"clerk-{number % 5}", "answers": human}
        | {"exposure": "blind", "submitted_at": text},
    ]


@contextmanager
def run_replica(poll_seconds: float) -> Iterator[MeasuredReplica]:
    """Run `rollout serve` on a new database of a few cells."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        database = Path(folder) / "bench.db"
        keys = fill(f"sqlite:///{database}", SITES, rest=RULES)
        user_key = _create_user(f"sqlite:///{database}")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", COMMAND, "serve", "--port", str(port)],
            env={
                **os.environ,
                "ROLLOUT_DATABASE_URL": f"sqlite:///{database}",
                "ROLLOUT_POLL_INTERVAL": str(poll_seconds),
                "ROLLOUT_LATCH_FOLDER": str(Path(folder) / "stops"),
                "ROLLOUT_SECRET_KEY_FILE": str(Path(folder) / "secret.key"),
            },
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: _answers(port))
            yield MeasuredReplica(process.pid, port, database, keys, user_key)
        finally:
            process.terminate()
            process.wait()


RULES = """
evidence: {unit: case, grace: 2m, outside: blind}
guards: [{measure: agreement, at_least: 60%}]
tick: 1m
"""
"""What lets the cases of an hour count in the next minute."""


def _create_user(url: str) -> str:
    """Create a user who may see everything; return a key."""
    from secrets import token_bytes

    from argon2 import PasswordHasher

    from rollout.data.database.session import Database
    from rollout.engine.decide.permissions import AssignedRole
    from rollout.features.access import keys, users
    from rollout.features.access.sign_in import SignIn
    from rollout.live.clock import SystemClock

    database, clock = Database(url), SystemClock()
    ada = users.load_local_caller(database, "ada")
    roles = tuple(map(AssignedRole, ("admin", "operator", "viewer", "reviewer")))
    users.create_account(database, ada, "olga", at=clock.now(), role_assignments=roles)
    sign_in = SignIn(database, clock, token_bytes, PasswordHasher())
    sign_in.set_password(ada, "olga", PASSWORD, at=clock.now())
    olga = users.load_local_caller(database, "olga")
    key = keys.create_key(database, olga, "olga", at=clock.now(), random_bytes=os.urandom(38))
    database.close()
    return str(key.text)


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it took too long.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > PATIENCE:
            raise TimeoutError(f"it took more than {PATIENCE:.0f} s")
        time.sleep(0.2)


PARTS = {"answering": measure_answering, "ticking": measure_ticking}


def format_figures(part: str, cases: int) -> Iterator[str]:
    """Yield a line for each figure of a part, and after two hours the growth of the second."""
    ends = []
    for what, (resident, own), goal in PARTS[part](cases):
        figure = report_figure(what, "MiB", [resident], goal)
        yield f"{figure}, own {own:.0f}"
        if "pages" in what:
            ends.append(resident)
    if ends:
        growth = ends[1] - ends[0]
        yield str(report_figure("growth in the second hour", "MiB", [growth], GROWTH_GOAL))


def main() -> None:
    """Read the command line, print a line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--cases", type=int, default=CASES, help="counted in each hour")
    options = parser.parse_args()
    for part in options.parts or DEFAULT_PARTS:
        for line in format_figures(part, options.cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()

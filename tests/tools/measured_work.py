"""What one posted case, a widening tick and an approval enter and send: modules, SQL statements.

Each path runs once before it is measured, so that nothing is counted that only the first call does.
`python -m tests.tools.measured_work` lists the modules.
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import event
from starlette.testclient import TestClient

from api.app import create_app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import Widened
from rollout.features.access import keys, users
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker

ROOT = Path(__file__).parents[2]
START = datetime(2027, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = "/v1/rollouts/ramps"
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b]
evidence:
  {unit: case, grace: 1h, outside: blind, sources: {accounts: [{account: desk, reviewers: [cy]}]}}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 60%}]
    minimum: {units: 20, days: 1}
    approvals: [operator, operator]
guards: [{measure: agreement, at_least: 50%, false_alarm_every: 500}]
tick: 1h
"""
CASES = 60
ANSWERS = {"parcel": "sound"}


def main() -> None:
    """Print the modules."""
    with tempfile.TemporaryDirectory() as folder:
        work = measure_paths(Path(folder))
    for path, (modules, statements) in work.items():
        lines = [f"{path}: {len(modules)} own modules entered, {statements} SQL statements"]
        sys.stdout.write("\n    ".join([*lines, *sorted(modules)]) + "\n")


def measure_work() -> dict[str, int]:
    """Return the counts of `[run]` in tools/ratchets.toml."""
    with tempfile.TemporaryDirectory() as folder:
        work = measure_paths(Path(folder))
    counts = {}
    for path, (modules, statements) in work.items():
        counts |= {f"{path}_modules": len(modules), f"{path}_statements": statements}
    return counts


def measure_paths(folder: Path) -> dict[str, tuple[set[str], int]]:
    """Return the modules that each path enters, and how many statements it sends."""
    url = f"sqlite:///{folder / 'rollout.db'}"
    upgrade(url)
    database, clock = Database(url), ManualClock(START)
    apply_policy(
        database, POLICY, Actor("zoe"), START - HOUR, salt=bytes(32), service_salt=bytes(32)
    )
    tokens = create_keys(database)
    service = build_service(database, Authenticator(database, clock), clock, counted_bytes())
    work: dict[str, tuple[set[str], int]] = {}
    recorder = WorkRecorder(database)
    client = TestClient(create_app(service))
    site = MeasuredService(client, tokens, clock, Ticker(database, "ramps", "one"))
    try:
        measure_steps(site, recorder, work, clock)
    finally:
        recorder.close()
    database.close()
    return work


def measure_steps(
    site: "MeasuredService",
    recorder: "WorkRecorder",
    work: dict[str, tuple[set[str], int]],
    clock: ManualClock,
) -> None:
    """Let two cells be widened, the first without being measured."""
    site.send_cases("ramp-a", "ramp-b")
    with recorder.collect(work, "case"):
        site.send(
            "ingest", "records", {"items": build_predicted_case("one", "ramp-a", clock.now())}
        )
    clock.advance(9 * HOUR)
    site.tick()
    first, second = site.list_proposals()
    site.approve("ana", first)
    site.approve("ana", second)
    site.approve("bo", first)
    site.tick()
    with recorder.collect(work, "approval"):
        site.approve("bo", second)
    with recorder.collect(work, "tick"):
        events = site.tick()
    if not any(isinstance(each, Widened) for each in events):
        raise RuntimeError(f"the tick widened nothing: {events}")


class MeasuredService:
    """A service with its users and its clock."""

    def __init__(
        self, client: TestClient, tokens: dict[str, str], clock: ManualClock, ticker: Ticker
    ) -> None:
        self._client, self._tokens, self._clock, self._ticker = client, tokens, clock, ticker

    def send(self, name: str, path: str, body: Any) -> Any:
        """Send a request with somebody's key; return the answer's JSON."""
        headers = {"Authorization": f"Bearer {self._tokens[name]}"}
        answer = self._client.post(f"{PATH}/{path}", json=body, headers=headers)
        if answer.is_error:
            raise RuntimeError(answer.text)
        if '"rejected"' in answer.text:
            raise RuntimeError(answer.text)
        return answer.json()

    def send_cases(self, *sites: str) -> None:
        """Send cases on which the model agrees with a human, three an hour at each site."""
        for number in range(CASES):
            self._clock.advance(HOUR / 3)
            for site in sites:
                key, at = f"{site}-{number}", self._clock.now()
                self.send("ingest", "records", {"items": build_predicted_case(key, site, at)})
                self.send("desk", "records", {"items": [build_decision(key, at)]})

    def list_proposals(self) -> list[dict[str, Any]]:
        """Return the open proposals."""
        headers = {"Authorization": f"Bearer {self._tokens['ana']}"}
        items: list[dict[str, Any]] = self._client.get(f"{PATH}/proposals", headers=headers).json()[
            "items"
        ]
        return items

    def approve(self, name: str, proposal: dict[str, Any]) -> None:
        """Approve a proposal with the hash of its evidence."""
        body = {"evidence_hash": proposal["evidence_hash"]}
        self.send(name, f"proposals/{proposal['id']}/approvals", body)

    def tick(self) -> tuple[Any, ...]:
        """Run the tick of the next slot."""
        self._clock.advance(HOUR)
        return self._ticker.tick(self._clock.now()) or ()


def build_predicted_case(key: str, site: str, at: datetime) -> list[dict[str, Any]]:
    """Return a case with a prediction."""
    case = {"kind": "case", "key": key, "site": site, "occurred_at": at.isoformat()}
    prediction = {"kind": "prediction", "key": key, "version": "v1", "answers": ANSWERS}
    return [case, prediction]


def build_decision(key: str, at: datetime) -> dict[str, Any]:
    """Return the decision of a human in another system: no account may judge what it predicted."""
    decision = {"kind": "decision", "key": key, "reviewer": "cy", "answers": ANSWERS}
    return {**decision, "submitted_at": at.isoformat()}


def create_keys(database: Database) -> dict[str, str]:
    """Create two operators and two service accounts; return a key of each."""
    users.create_first_admin(database, "ada", at=START)
    admin = users.load_local_caller(database, "ada")
    for name in ("ana", "bo"):
        roles = (AssignedRole("operator"), AssignedRole("viewer"))
        users.create_account(database, admin, name, at=START, role_assignments=roles)
    for name in ("ingest", "desk"):
        users.create_account(
            database,
            admin,
            name,
            at=START,
            is_service_account=True,
            role_assignments=(AssignedRole("ingest"),),
        )
    return {
        name: keys.create_key(
            database, admin, name, random_bytes=bytes([number]) * keys.KEY_BYTES, at=START
        ).text
        for number, name in enumerate(("ana", "bo", "ingest", "desk"), start=1)
    }


def counted_bytes() -> Callable[[int], bytes]:
    """Return a source of bytes that are the same in each run."""
    numbers = iter(range(1, 1_000_000))
    return lambda size: next(numbers).to_bytes(8, "big").rjust(size, b"r")


class WorkRecorder:
    """Notes in which files functions are called, in all later threads, and what is sent."""

    def __init__(self, database: Database) -> None:
        self._files: set[str] = set()
        self._statements = 0
        for engine in database.engines:
            event.listen(engine, "before_cursor_execute", self._note_statement)
        threading.setprofile(self._note_call)
        sys.setprofile(self._note_call)

    def close(self) -> None:
        """Note nothing more in this thread and in later ones."""
        threading.setprofile(None)
        sys.setprofile(None)

    def _note_statement(self, *_: object) -> None:
        self._statements += 1

    def _note_call(self, frame: FrameType, kind: str, _argument: object) -> None:
        if kind == "call":
            self._files.add(frame.f_code.co_filename)

    @contextmanager
    def collect(self, work: dict[str, tuple[set[str], int]], path: str) -> Iterator[None]:
        """Write what happens in the block under the name of a path."""
        self._files.clear()
        self._statements = 0
        yield
        files = (Path(file) for file in set(self._files) if file.startswith(str(ROOT)))
        names = {file.relative_to(ROOT).as_posix() for file in files}
        own = {name for name in names if name.startswith(("rollout/", "api/"))}
        work[path] = own, self._statements


if __name__ == "__main__":
    main()

"""The setup of the live demo: a copy of the prepared history, and the service on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from api.live_demo.accounts import create_keys
from api.live_demo.case_records import CaseRecords, JsonObject
from api.live_demo.history_cache import DATABASE_FILE, PreparedHistory
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.services.access.authentication import Authenticator
from rollout.services.engine.service import Service, build_service
from rollout.services.examples.case_pictures import CasePictures
from rollout.services.examples.catalog import ExampleSystem
from rollout.services.support.clock import ManualClock, SystemClock
from rollout.store.database.session import Database


@dataclass(frozen=True, slots=True)
class DemoService:
    """A service in the middle of the story.

    Attributes:
        clock: the story's clock; sign-in and claims use the wall clock.
        keys: API keys by account.
        next_case: index of the first case that is still to come.
        scheduled: items that clients are still to send, by time and number.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    keys: dict[str, str] = field(repr=False)
    next_case: int
    scheduled: Sequence[tuple[datetime, int, JsonObject]] = field(repr=False)


def build_case_records(example: ExampleSystem) -> CaseRecords:
    """Return what the clients of an example send, by its policy and pictures."""
    return CaseRecords(read_policy(example.policy_path), CasePictures(example))


@contextmanager
def open_demo_service(
    history: PreparedHistory, policy: Policy, at: datetime
) -> Iterator[DemoService]:
    """Open the demo's service on a copy of its history, in a temporary folder.

    `at` is the instant at which the story goes on.
    """
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        database = Database(history.copy_database(Path(folder) / DATABASE_FILE))
        try:
            yield _build_demo_service(database, history, policy, at)
        finally:
            database.close()


def _build_demo_service(
    database: Database, history: PreparedHistory, policy: Policy, at: datetime
) -> DemoService:
    clock, wall_clock = ManualClock(at), SystemClock()
    service = build_service(
        database, Authenticator(database, wall_clock), clock, wall_clock=wall_clock
    )
    key_texts = create_keys(database, policy, wall_clock.now())
    next_case, scheduled = history.load_schedule()
    return DemoService(service, clock, policy, key_texts, next_case, scheduled)

"""The setup of the live demo: the service, and a copy of the prepared history under it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.features.demo.accounts import MODEL_CLIENT, create_demo_keys, get_decision_system
from rollout.features.demo.catalog import ExampleSystem
from rollout.features.demo.history_cache import DATABASE_FILE, PreparedHistory
from rollout.features.demo.player import ScheduledItem
from rollout.features.demo.recorded_cases import CasePictures
from rollout.features.demo.simulated_cases import CaseRecords, SiteClients
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.live.clock import ManualClock, SystemClock
from rollout.live.service import Service, build_service


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
    scheduled: Sequence[ScheduledItem] = field(repr=False)


def build_case_records(example: ExampleSystem) -> CaseRecords:
    """Return what the clients of an example send, by its policy and pictures."""
    policy = load_policy(example.policy_path)
    clients = SiteClients(MODEL_CLIENT, get_decision_system(policy))
    return CaseRecords(policy, lambda _site: clients, CasePictures(example).find_media)


@dataclass(frozen=True, slots=True)
class DemoStage:
    """A service whose database isn't there yet: its routes are made while the history is built.

    Attributes:
        clock: stands where the story goes on.
        path: of the database.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    path: Path

    def open_history(self, history: PreparedHistory) -> DemoService:
        """Return the service on a copy of a history."""
        history.copy_database(self.path)
        key_texts = create_demo_keys(
            self.service.database, self.policy, self.service.wall_clock.now()
        )
        next_case, scheduled = history.load_schedule()
        return DemoService(self.service, self.clock, self.policy, key_texts, next_case, scheduled)


@contextmanager
def open_stage(policy: Policy, at: datetime) -> Iterator[DemoStage]:
    """Yield a stage in a temporary folder; `at` is the instant at which the story goes on."""
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        path = Path(folder) / DATABASE_FILE
        database, wall_clock = Database(f"sqlite:///{path}"), SystemClock()
        try:
            service = build_service(
                database,
                Authenticator(database, wall_clock),
                clock := ManualClock(at),
                wall_clock=wall_clock,
            )
            yield DemoStage(service, clock, policy, path)
        finally:
            database.close()

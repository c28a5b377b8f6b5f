"""The setup of the live demo: a copy of the prepared history, and the service on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from api.live_demo.accounts import create_keys
from api.live_demo.history_cache import LIVE_FROM, PreparedHistory
from api.live_demo.letter_records import JsonObject, LetterRecords
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import parse_policy
from rollout.services.access.authentication import Authenticator
from rollout.services.engine.service import Service, build_service
from rollout.services.replay.demo_pictures import load_digit_pictures
from rollout.services.replay.demo_traffic import load_policy_text
from rollout.services.support.clock import ManualClock, SystemClock
from rollout.store.database.session import Database


@dataclass(frozen=True, slots=True)
class DemoService:
    """A service in the middle of the story.

    Attributes:
        clock: the story's clock; sign-in and claims use the wall clock.
        keys: API keys by account.
        next_letter: index of the first letter that is still to come.
        scheduled: items that clients are still to send, by time and number.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    keys: dict[str, str] = field(repr=False)
    next_letter: int
    scheduled: Sequence[tuple[datetime, int, JsonObject]] = field(repr=False)


def build_letter_records() -> LetterRecords:
    """Return what scanners and clerks send, by the shipped policy and digits."""
    return LetterRecords(parse_policy(load_policy_text()), load_digit_pictures())


@contextmanager
def open_demo_service(history: PreparedHistory, policy: Policy) -> Iterator[DemoService]:
    """Open the demo's service on a copy of its history, in a temporary folder."""
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        database = Database(history.copy_database(Path(folder) / "mail-room.db"))
        try:
            yield _build_demo_service(database, history, policy)
        finally:
            database.close()


def _build_demo_service(
    database: Database, history: PreparedHistory, policy: Policy
) -> DemoService:
    clock, wall_clock = ManualClock(LIVE_FROM), SystemClock()
    service = build_service(
        database, Authenticator(database, wall_clock), clock, wall_clock=wall_clock
    )
    key_texts = create_keys(database, wall_clock.now())
    next_letter, scheduled = history.load_schedule()
    return DemoService(service, clock, policy, key_texts, next_letter, scheduled)

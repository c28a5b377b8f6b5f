"""The setup of the live demo: the service, and a copy of the prepared history under it.

The prepared history: built once, kept beside the demo's report, copied for each run.
"""

import gc
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from inspect import getsource
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

from rollout.data.database.migrations import find_head_revision, upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.features.access.authentication import Authenticator
from rollout.features.demo import accounts, history, recorded_cases, simulated_cases
from rollout.features.demo.accounts import (
    MODEL_CLIENT,
    SiteClients,
    create_demo_keys,
    get_decision_system,
)
from rollout.features.demo.catalog import (
    DESCRIPTION_FILE,
    HISTORY_PREFIX,
    ExampleSystem,
    find_history_folders,
)
from rollout.features.demo.player import ScheduledItem
from rollout.features.demo.recorded_cases import CasePictures
from rollout.features.demo.simulated_cases import CaseRecords, ExampleCase
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.live.clock import ManualClock, SystemClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import Service, build_service

SALT: Final = bytes(32)  # the replay's, so that the same cases are sampled
UNFINISHED_PREFIX: Final = "unfinished-history-"
UNFINISHED_SECONDS: Final = 3600.0
"""Age from which an unfinished history is left over: a build takes half a minute."""
PAGE_BYTES: Final = 8192
DATABASE_FILE, SCHEDULE_FILE = "history.db", "schedule.json"


@dataclass(frozen=True, slots=True)
class PreparedHistory:
    """A folder with the history's database and what clients send after it."""

    folder: Path

    @property
    def is_complete(self) -> bool:
        """Return whether both files are there."""
        return all((self.folder / name).is_file() for name in (DATABASE_FILE, SCHEDULE_FILE))

    def copy_database(self, target: Path) -> None:
        """Copy the database to a path."""
        shutil.copyfile(self.folder / DATABASE_FILE, target)

    def load_schedule(self) -> tuple[int, list[ScheduledItem]]:
        """Return the index of the next case, and the items that were not sent yet."""
        content = json.loads((self.folder / SCHEDULE_FILE).read_text(encoding="utf-8"))
        items = [(datetime.fromisoformat(at), *rest) for at, *rest in content["items"]]
        return content["next_case"], items


def prepare_history(
    parent: Path,
    example: ExampleSystem,
    records: CaseRecords,
    cases: Sequence[ExampleCase],
    report_start: Callable[[], None],
) -> PreparedHistory:
    """Return the history in a folder of `parent`; build it if it isn't there.

    A history of other records, another policy or another program has another name and is removed.
    `report_start` is called before a build. Several processes may build at once: each in a folder
    of its own, and the first that is ready counts for all.
    """
    history = PreparedHistory(
        parent / f"{HISTORY_PREFIX}{example.name}-{compute_fingerprint(example)}"
    )
    if history.is_complete:
        return history
    report_start()
    parent.mkdir(parents=True, exist_ok=True)
    _remove_old_folders(parent, example, history)
    unfinished = Path(mkdtemp(prefix=UNFINISHED_PREFIX, dir=parent))
    try:
        with _pause_collections():
            _build_history(unfinished, example, records, cases)
        _move_into_place(unfinished, history)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return history


def _remove_old_folders(parent: Path, example: ExampleSystem, history: PreparedHistory) -> None:
    """Remove histories of other content, and what interrupted builds left."""
    for folder in find_history_folders(parent, example.name):
        if not (folder == history.folder and history.is_complete):  # another process may be done
            shutil.rmtree(folder, ignore_errors=True)
    for folder in list(parent.glob(f"{UNFINISHED_PREFIX}*")):
        with suppress(FileNotFoundError):  # another process is removing it
            if time.time() - folder.stat().st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(unfinished: Path, history: PreparedHistory) -> None:
    """Rename a finished folder, unless another process was faster."""
    try:
        unfinished.replace(history.folder)
    except OSError:  # a folder with content is never replaced
        if not history.is_complete:
            raise


def compute_fingerprint(example: ExampleSystem) -> str:
    """Return a text that changes with the records, the policy, the tables or the builder."""
    digest = sha256(find_head_revision().encode())
    for module in (accounts, recorded_cases, history, simulated_cases):
        digest.update(getsource(module).encode())
    paths = [example.policy_path, example.folder / DESCRIPTION_FILE]
    for path in [*paths, *sorted(example.records_folder.rglob("*"))]:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _pause_collections() -> Iterator[None]:
    """Collect no garbage in the block: it was a tenth of a build, which leaves little."""
    gc.freeze()  # also later collections need not walk through all cases
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _create_file(path: Path) -> None:
    """Create a database whose pages each hold several cases with pictures.

    SQLite keeps a fifth of a page of a case and gives each longer one a page of its own.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma page_size = {PAGE_BYTES}")
        connection.execute("pragma journal_mode = wal")  # writes the size


def _build_history(
    folder: Path, example: ExampleSystem, records: CaseRecords, cases: Sequence[ExampleCase]
) -> None:
    path = folder / DATABASE_FILE
    _create_file(path)
    url = f"sqlite:///{path}"
    upgrade(url)
    # waits for the disk took a tenth of a build
    with closing(Database(url, is_draft=True)) as database:
        policy_text = example.policy_path.read_text(encoding="utf-8")
        starts_at = history.find_first_slot(records.policy, cases) - records.policy.tick
        accounts.create_demo_accounts(database, records.policy, starts_at)
        apply_policy(
            database,
            policy_text,
            Actor(accounts.ADMIN_NAME),
            starts_at,
            salt=SALT,
            service_salt=SALT,
        )
        writer = history.HistoryWriter(
            database, example, records, cases, accounts.DEMO_OPERATORS[::-1]
        )
        writer.write()
    schedule = {
        "next_case": writer.next_case,
        "items": [(at.isoformat(), *rest) for at, *rest in writer.scheduled],
    }
    (folder / SCHEDULE_FILE).write_text(json.dumps(schedule), encoding="utf-8")
    for name in (DATABASE_FILE, SCHEDULE_FILE):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())  # so that a finished history survives a power failure


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
        path, wall_clock = Path(folder) / DATABASE_FILE, SystemClock()
        with closing(Database(f"sqlite:///{path}")) as database:
            service = build_service(
                database,
                Authenticator(database, wall_clock),
                clock := ManualClock(at),
                wall_clock=wall_clock,
            )
            yield DemoStage(service, clock, policy, path)

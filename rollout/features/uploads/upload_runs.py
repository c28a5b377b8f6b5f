"""Uploaded files: their private folder, the request, the runs over them, and the result.

Each run has a process of its own. Files are deleted when their run ends or is cancelled. If the
user keeps them, they are deleted after seven days, on request, or when the replica ends.

The folder of a replica lies in the folder for temporary files, which `TMPDIR` names and no backup
holds. A replica holds a lock on its folder, which ends with its process: the next start of any
replica deletes folders without one.

A request is two files, how they are written, and perhaps a policy. The module loads little, since
each replica that shows results imports it.
"""

import logging
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from threading import Lock, Timer
from typing import IO, Final

from pydantic_core import to_jsonable_python

from rollout.kernel.errors import RefusalError
from rollout.live.work.user_runs import (
    LONG_LIFETIME,
    MAX_WORKING,
    ProcessRuns,
    ProcessWork,
    UserRun,
)

PRIVATE_MODE: Final = 0o700
LOCK_SUFFIX: Final = ".lock"
ROOT_LOCK: Final = "root" + LOCK_SUFFIX
NOT_PRIVATE_TEXT: Final = (
    "{} in the folder for temporary files is not private to the service; an admin of the machine"
    " can delete it, or start the service with another TMPDIR"
)
log = logging.getLogger("rollout.uploads")


class UploadFolder:
    """The folder of one replica, made when the first upload needs it."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = build_default_root() if root is None else root
        self._path: Path | None = None
        self._lock = Lock()

    def open(self) -> Path:
        """Return the folder, made at the first call and when something else deleted it.

        Many machines delete what lies in their folder for temporary files unused for days.

        Raises:
            RefusalError: another user of this machine owns it, or can open it.
        """
        with self._lock:
            if self._path is None or not self._path.is_dir():
                self._path = self._open_folder()
            return self._path

    def create_upload(self) -> Path:
        """Return a new folder for the files of one upload, which only the service can open.

        Raises:
            RefusalError: as of `open`.
            OSError: the disk is full, or fails.
        """
        return Path(tempfile.mkdtemp(dir=self.open()))

    def _open_folder(self) -> Path:
        self._root.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
        if not _is_private(self._root):
            raise RefusalError(NOT_PRIVATE_TEXT.format(self._root.name))
        with _hold_lock(self._root / ROOT_LOCK):
            path = Path(tempfile.mkdtemp(prefix="replica-", dir=self._root))
            lock_file = _get_lock_path(path).open("w", encoding="utf-8")
            _lock_file(lock_file, waits=False)
        weakref.finalize(self, _delete_folder, path, lock_file)
        return path


def _delete_folder(path: Path, lock_file: IO[str]) -> None:
    """Delete a folder and its lock; called at the latest when the process exits."""
    rmtree(path, ignore_errors=True)
    _get_lock_path(path).unlink(missing_ok=True)
    lock_file.close()


def delete_abandoned_uploads(root: Path | None = None) -> int:
    """Delete the folders of replicas that have ended; return their number.

    A start goes on whatever happens here: uploads are refused until the folder can be used.
    """
    root = build_default_root() if root is None else root
    try:
        return _delete_unlocked(root) if os.path.lexists(root) and _is_private(root) else 0
    except OSError as error:
        log.warning("uploaded files of an ended replica may remain in %s: %s", root, error)
        return 0


def _delete_unlocked(root: Path) -> int:
    count = 0
    with _hold_lock(root / ROOT_LOCK):
        for path in [path for path in root.iterdir() if path.is_dir()]:
            with _get_lock_path(path).open("a", encoding="utf-8") as lock_file:
                if not _lock_file(lock_file, waits=False):
                    continue  # its replica lives
                rmtree(path)
                _get_lock_path(path).unlink()
                count += 1
    return count


def build_default_root() -> Path:
    """Return the folder of all replicas that this user of the machine runs."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"rollout-uploads-{user}"


def _get_lock_path(path: Path) -> Path:
    return path.with_name(path.name + LOCK_SUFFIX)


def _is_private(root: Path) -> bool:
    """Return whether the folder is ours alone: its name can be guessed."""
    status = root.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not stat.S_IMODE(status.st_mode) & ~PRIVATE_MODE
    )


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    with path.open("a", encoding="utf-8") as file:
        _lock_file(file, waits=True)
        yield


def _lock_file(file: IO[str], *, waits: bool) -> bool:
    """Lock a file until it is closed; return whether it is locked."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


PREDICTIONS_FILE: Final = "predictions.csv"
DECISIONS_FILE: Final = "decisions.csv"
FILE_NAMES: Final = (PREDICTIONS_FILE, DECISIONS_FILE)
"""Names of uploaded files; those that a browser sends are not used."""
MAX_FILE_BYTES: Final = 20_000_000
MAX_ROWS: Final = 200_000
MAX_INFLATION: Final = 10
MAX_MINUTES: Final = 5
COMMANDS_TEXT: Final = (
    "`rollout init predictions.csv decisions.csv > policy.yaml`, then `rollout replay policy.yaml"
    " --predictions predictions.csv --decisions decisions.csv --out replay`"
)
ADVICE: Final = f"on a computer of your own {COMMANDS_TEXT}"


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """Options of `init`, or the policy that is used instead of a draft.

    Attributes:
        rollout: name of the rollout in the draft.
        timezone: of times without offset.
        exposure: what reviewers had seen, where the decisions don't say; "": unknown.
        readings: options of `rollout init` on how both files are written, with their values.
        policy_text: "" drafts one.
    """

    rollout: str = "my-rollout"
    timezone: str = "UTC"
    exposure: str = ""
    readings: tuple[tuple[str, str], ...] = ()
    policy_text: str = ""


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """Uploaded files and what to do with them; `keeps_files` for seven days."""

    folder: Path
    options: UploadOptions
    keeps_files: bool = False


STEPS: Final = (
    "reading the files",
    "drafting the policy",
    "planning",
    "replaying",
    "writing the report",
)
"""What a run does, in this order."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file, unpacked, and the rows that were read of it."""

    name: str
    sha256: str
    rows: int
    used: int


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What came of two uploaded files.

    Attributes:
        policy_text: the draft, or the policy that was uploaded with them.
        is_drafted: whether it is a draft.
        reading: how the files were read, a line each; empty without a draft.
        plan: the text of `rollout plan`.
        summary: the text of `rollout replay`.
        report: its report, an HTML page.
        first, last: the replayed span.
        salt: SHA-256 of the salt of the sampling values.
    """

    policy_text: str
    policy_hash: str
    is_drafted: bool
    files: tuple[UploadedFile, ...]
    reading: tuple[str, ...]
    plan: str
    summary: str
    report: str
    first: datetime
    last: datetime
    salt: str


COMMAND: Final = (sys.executable, "-P", "-m", "rollout.features.uploads.uploaded_files")
"""`-P` keeps modules of the working directory out."""
BROKEN_TEXT: Final = (
    f"it ended without a result: it may need more than 1 GiB of memory or {MAX_MINUTES} minutes;"
    f" run {ADVICE}"
)
MAX_HELD: Final = 20
"""Users whose last run is held in memory; the oldest without files is forgotten."""
MAX_KEPT: Final = 10
"""Users whose files are kept."""
DISK_RESERVE: Final = 256 * 2**20
"""Bytes that stay free where the files lie: the database may be on the same disk."""
UploadRun = UserRun[UploadRequest, UploadResult]


class UploadRuns(ProcessRuns[UploadRequest, UploadResult]):
    """The last run of each user, with the files that are received and kept."""

    def __init__(
        self,
        folder: UploadFolder,
        command: Sequence[str] = COMMAND,
        *,
        longest_seconds: float = MAX_MINUTES * 60.0,
        kept_seconds: float = LONG_LIFETIME.total_seconds(),
    ) -> None:
        work = ProcessWork(command, longest_seconds, broken_text=BROKEN_TEXT)
        super().__init__(work, UploadResult)
        self._folder, self._kept_seconds = folder, kept_seconds
        self._receiving: set[str] = set()
        self._timers: dict[Path, Timer] = {}

    def open_folder(self) -> None:
        """Make the replica's folder, which may wait for another replica that deletes old ones.

        Raises:
            RefusalError: another user of this machine owns the folder, or can open it.
        """
        self._folder.open()

    @contextmanager
    def receive(self, user: str) -> Iterator[Path]:
        """Hold a place for the user's run, and a folder that is deleted unless a run has it.

        Raises:
            RefusalError: the user has a running one, the replica has as many as it may, or the
                disk is nearly full.
        """
        with self._lock:
            self._check_free(user)
            self._receiving.add(user)
        folder: Path | None = None
        try:
            folder = self._folder.create_upload()
            needed = len(FILE_NAMES) * MAX_FILE_BYTES * MAX_INFLATION + DISK_RESERVE
            if shutil.disk_usage(folder).free < needed:
                raise RefusalError(f"the disk of the service is nearly full; run {ADVICE}")
            yield folder
        finally:
            with self._lock:
                self._receiving.discard(user)
                folders = [run.subject.folder for run in self._runs.get(user, ())]
            if folder is not None and folder not in folders:
                rmtree(folder, ignore_errors=True)

    def _check_free(self, user: str) -> None:
        """Raise RefusalError if the user or the replica has enough runs; under the lock."""
        busy = self._receiving | {run.user for run in self._list_newest() if run.is_running}
        if user in busy:
            raise RefusalError(f"a run of yours is not done; wait, cancel it, or run {ADVICE}")
        if len(busy) >= MAX_WORKING:
            raise RefusalError(
                f"{MAX_WORKING} users have runs now; wait until one is done, or run {ADVICE}"
            )

    def run_files(self, user: str, request: UploadRequest, *, at: datetime) -> UploadRun:
        """Start a run over received or kept files, and return at once.

        Raises:
            RefusalError: the user has a running one, or as many users as may keep files.
        """
        self._make_room(user, request)
        with self._lock:
            self._receiving.discard(user)  # the place is the run's from here on
        values = {
            "folder": str(request.folder),
            "options": to_jsonable_python(request.options),
        }
        return self.start_process(user, request, values, advice=ADVICE, at=at)

    def start_again(self, user: str, options: UploadOptions, *, at: datetime) -> UploadRun:
        """Start a run over the files that the user's last run kept.

        Raises:
            RefusalError: the files are deleted, or as of `run_files`.
        """
        run = self.find_run(user, at=at)
        if run is None or not has_files(run):
            raise RefusalError("the files are deleted; choose them again")
        return self.run_files(user, replace(run.subject, options=options), at=at)

    def _make_room(self, user: str, request: UploadRequest) -> None:
        with self._lock:
            others = [run for run in self._list_newest() if run.user != user]
        keeping = [run for run in others if run.subject.keeps_files]
        if request.keeps_files and len(keeping) >= MAX_KEPT:
            raise RefusalError(
                f"{MAX_KEPT} users keep files here, as many as may; run without keeping them, or"
                f" run {ADVICE}"
            )
        ended = [run for run in others if not run.is_running and not run.subject.keeps_files]
        if len(others) >= MAX_HELD and ended:
            self.cancel(min(ended, key=lambda run: run.started_at).user)

    def _end(self, run: UploadRun) -> None:
        folder = run.subject.folder
        if not run.subject.keeps_files or run.is_cancelled:
            self._delete_files(folder)
        elif folder not in self._timers:
            timer = self._timers[folder] = Timer(self._kept_seconds, self._delete_files, (folder,))
            timer.daemon = True
            timer.start()

    def _drop(self, run: UploadRun, next_run: UploadRun | None) -> None:
        if next_run is None or next_run.subject.folder != run.subject.folder:
            self._delete_files(run.subject.folder)

    def _delete_files(self, folder: Path) -> None:
        timer = self._timers.pop(folder, None)
        if timer is not None:
            timer.cancel()
        rmtree(folder, ignore_errors=True)


def has_files(run: UploadRun) -> bool:
    """Return whether the files of a run are kept and not yet deleted."""
    return run.subject.keeps_files and all(
        (run.subject.folder / name).exists() for name in FILE_NAMES
    )

"""Runs over uploaded files, each in a process of its own, and the deletion of the files.

Files are deleted when their run ends or is cancelled. If the user keeps them, they are deleted
after seven days, on request, or when the replica ends.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from threading import Timer
from typing import Final

from pydantic_core import to_jsonable_python

from rollout.core.errors import RefusalError
from rollout.services.support.process_runs import LIFETIME, ProcessRun, ProcessRuns, RunKind
from rollout.services.uploads.upload_folder import UploadFolder
from rollout.services.uploads.upload_request import (
    ADVICE,
    FILE_NAMES,
    MAX_FILE_BYTES,
    MAX_INFLATION,
    MAX_MINUTES,
    UploadOptions,
    UploadRequest,
)
from rollout.services.uploads.upload_result import UploadResult

COMMAND: Final = (sys.executable, "-P", "-m", "rollout.services.uploads.upload_process")
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
UploadRun = ProcessRun[UploadRequest, UploadResult]


class UploadRuns(ProcessRuns[UploadRequest, UploadResult]):
    """The last run of each user, with the files that are received and kept."""

    def __init__(
        self,
        folder: UploadFolder,
        command: Sequence[str] = COMMAND,
        *,
        longest_seconds: float = MAX_MINUTES * 60.0,
        kept_seconds: float = LIFETIME.total_seconds(),
    ) -> None:
        super().__init__(RunKind(tuple(command), UploadResult, longest_seconds, BROKEN_TEXT))
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
            self._check_free(user, ADVICE)
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
                run = self._runs.get(user)
            if folder is not None and (run is None or run.request.folder != folder):
                rmtree(folder, ignore_errors=True)

    def start(self, user: str, request: UploadRequest, *, at: datetime) -> UploadRun:
        """Start a run over received or kept files, and return at once.

        Raises:
            RefusalError: the user has a running one, the replica has as many as it may, or as many
                users as may keep files.
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
            RefusalError: the files are deleted, or as of `start`.
        """
        run = self.find_run(user, at=at)
        if run is None or not has_files(run):
            raise RefusalError("the files are deleted; choose them again")
        return self.start(user, replace(run.request, options=options), at=at)

    def _make_room(self, user: str, request: UploadRequest) -> None:
        with self._lock:
            others = {name: run for name, run in self._runs.items() if name != user}
        keeping = [name for name, run in others.items() if run.request.keeps_files]
        if request.keeps_files and len(keeping) >= MAX_KEPT:
            raise RefusalError(
                f"{MAX_KEPT} users keep files here, as many as may; run without keeping them, or"
                f" run {ADVICE}"
            )
        ended = [
            (run.started_at, name)
            for name, run in others.items()
            if not run.is_running and not run.request.keeps_files
        ]
        if len(others) >= MAX_HELD and ended:
            self.cancel(min(ended)[1])

    def _list_busy_users(self) -> set[str]:
        return super()._list_busy_users() | self._receiving

    def _end(self, run: UploadRun) -> None:
        folder = run.request.folder
        if not run.request.keeps_files or run.is_cancelled:
            self._delete_files(folder)
        elif folder not in self._timers:
            timer = self._timers[folder] = Timer(self._kept_seconds, self._delete_files, (folder,))
            timer.daemon = True
            timer.start()

    def _forget(self, run: UploadRun, next_run: UploadRun | None = None) -> None:
        if next_run is None or next_run.request.folder != run.request.folder:
            self._delete_files(run.request.folder)

    def _delete_files(self, folder: Path) -> None:
        timer = self._timers.pop(folder, None)
        if timer is not None:
            timer.cancel()
        rmtree(folder, ignore_errors=True)


def has_files(run: UploadRun) -> bool:
    """Return whether the files of a run are kept and not yet deleted."""
    return run.request.keeps_files and all(
        (run.request.folder / name).exists() for name in FILE_NAMES
    )

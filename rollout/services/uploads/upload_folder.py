"""The private folder of a replica for uploaded files, deleted with it.

It lies in the folder for temporary files, which `TMPDIR` names and no backup holds. A replica holds
a lock on its folder, which ends with its process: the next start of any replica deletes folders
without one.
"""

import logging
import os
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import IO, Final

from rollout.core.errors import RefusalError

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

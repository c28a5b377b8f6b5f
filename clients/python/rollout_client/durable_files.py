"""Files that outlast a loss of power, and are never seen half-written."""

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, and let it appear at once; if that fails, nothing is left behind.

    Raises:
        OSError: it can't be written, such as on a full disk.
    """
    new_path = path.with_suffix(path.suffix + ".new")
    try:
        with new_path.open("wb") as file:
            write_through(file.fileno(), content)
        new_path.replace(path)
    except OSError:
        with suppress(OSError):
            new_path.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_to_file(path: Path, content: bytes) -> None:
    """Append to a file; if that fails, the file is as before.

    Raises:
        OSError: it can't be written, such as on a full disk.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        try:
            write_through(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def write_through(descriptor: int, content: bytes) -> None:
    """Write all of it, down to the disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

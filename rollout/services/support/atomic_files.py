"""Files written whole or not at all: a name never stands for half a file."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Refuse a folder into which nothing could be written, before work is spent on it.

    Raises:
        ValueError: it, or a folder above it, is a file or may not be written into.
    """
    existing_path = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing_path.is_dir():
        raise ValueError(f"{existing_path}: is a file; name a folder to write into")
    if not os.access(existing_path, os.W_OK | os.X_OK):
        raise ValueError(f"{existing_path}: may not be written into; name another folder")


def write_whole(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write `files` into `folder`, which is made if need be; all of them appear, or none.

    Each is written beside its place first and moved there when every one is complete, so that
    Ctrl-C or a full disk leaves what stood there before.

    Raises:
        ValueError: nothing can be written there.
        OSError: the disk is full, or fails.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial_paths = {folder / name: folder / f".{name}.{os.getpid()}.part" for name in files}
    try:
        for partial_path, content in zip(partial_paths.values(), files.values(), strict=True):
            _write(partial_path, content)
        with _no_interrupt():
            for final_path, partial_path in partial_paths.items():
                partial_path.replace(final_path)
    finally:
        for partial_path in partial_paths.values():
            with suppress(FileNotFoundError):
                partial_path.unlink()
    return tuple(partial_paths)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Let Ctrl-C pass unheard for the moment in which some files are new and some are old."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears of Ctrl-C
        yield
        return
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

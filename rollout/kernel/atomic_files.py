"""Files that are written completely or not at all, and the folders of the product's data files.

Data files are found in a checkout and in an installed package.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import rollout


def check_folder(folder: Path) -> None:
    """Raise if a folder can't be written; call it before long work.

    Raises:
        ValueError: it, or a folder above it, is a file or not writable.
    """
    existing_path = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing_path.is_dir():
        raise ValueError(f"{existing_path}: is a file; name a folder to write into")
    if not os.access(existing_path, os.W_OK | os.X_OK):
        raise ValueError(f"{existing_path}: may not be written into; name another folder")


def write_files_atomically(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write `files` into `folder`, creating it; all of them or none.

    They are written beside their place and moved when all are complete, so that Ctrl-C or a full
    disk leaves the previous files.

    Raises:
        ValueError: the folder is not writable.
        OSError: the disk is full, or fails.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial_paths = {folder / name: folder / f".{name}.{os.getpid()}.part" for name in files}
    try:
        for partial_path, content in zip(partial_paths.values(), files.values(), strict=True):
            _write_file(partial_path, content)
        with _block_interrupts():
            for final_path, partial_path in partial_paths.items():
                partial_path.replace(final_path)
    finally:
        for partial_path in partial_paths.values():
            with suppress(FileNotFoundError):
                partial_path.unlink()
    return tuple(partial_paths)


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C while some files are new and some old."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


PACKAGE_FOLDER = Path(rollout.__file__).parent
DATA_FOLDERS = {  # name: (folder in a checkout, folder in an installed package)
    "config": ("config", "_config"),
    "examples": ("examples", "_examples"),
}


def find_package_data(data_name: str) -> Path:
    """Return the folder of `data_name`, a key of `DATA_FOLDERS`.

    Raises:
        FileNotFoundError: the installation is incomplete; the text has the remedy.
    """
    checkout_path, installed_path = DATA_FOLDERS[data_name]
    for folder in (PACKAGE_FOLDER / installed_path, PACKAGE_FOLDER.parent / checkout_path):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{data_name} is missing from this installation; install it again")

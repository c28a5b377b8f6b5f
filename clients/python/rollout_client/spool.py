"""Records on disk until the service has them: a bounded folder of NDJSON files.

Each `add` is one file, written beside, flushed to the disk and renamed, so that a record whose
`add` has returned is sent at least once, whatever is killed. The service stores a record once.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import RLock
from typing import Any, Final, NamedTuple

from rollout_client.durable_files import append_to_file, replace_file
from rollout_client.folder_claims import FolderClaim

DEFAULT_MAX_BYTES: Final = 50 * 2**20
REFUSED_NAME: Final = "refused.ndjson"


class SpoolFullError(Exception):
    """The spool is full: nothing was added, and nothing was dropped."""


class SpooledBatch(NamedTuple):
    """The oldest records, and the files that hold them."""

    paths: tuple[Path, ...]
    lines: tuple[bytes, ...]


class RecordSpool:
    """A bounded folder of records; one process at a time may use it.

    Args:
        folder: it is made if it is missing.
        max_bytes: of all files in it, with those of refused records.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._folder, self._max_bytes, self._lock = folder, max_bytes, RLock()
        folder.mkdir(parents=True, exist_ok=True)
        self._claim = FolderClaim(folder)
        for path in folder.glob("*.ndjson.new"):
            _recover(path)
        _cut_half_line(folder / REFUSED_NAME)
        numbers = [int(path.stem) for path in self._list_files()]
        self._next_number = max(numbers, default=0)
        self._size = sum(path.stat().st_size for path in folder.iterdir())

    def close(self) -> None:
        """Let another spool use the folder."""
        self._claim.release()

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return self._size

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Store records durably, all or none.

        Raises:
            SpoolFullError: they don't fit.
            OSError: the disk is full, or can't be written. Nothing was added.
            ValueError: a record can't be written as JSON, such as one with NaN.
            TypeError: one record came instead of a list, whose names would be taken for records.
        """
        if isinstance(records, (Mapping, str)):
            raise TypeError("add takes a list of records; write add([record])")
        lines = [_encode(record) for record in records]
        if not lines:
            return
        with self._lock:
            needed = sum(map(len, lines)) + len(lines)
            if self._size + needed > self._max_bytes:
                raise SpoolFullError(
                    f"{self._folder} has {self._size} of {self._max_bytes} bytes: {needed} more"
                    " don't fit; upload them, or clear refused records"
                )
            self._write(self._take_path(), lines)

    def read_batch(self, max_records: int = 1_000) -> SpooledBatch:
        """Return the oldest records, those of whole `add`s; it may be more than `max_records`."""
        paths: list[Path] = []
        lines: list[bytes] = []
        with self._lock:
            for path in self._list_files():
                added = _read_lines(path)
                if lines and len(lines) + len(added) > max_records:
                    break
                paths.append(path)
                lines += added
        return SpooledBatch(tuple(paths), tuple(lines))

    def settle(
        self, batch: SpooledBatch, refused: Mapping[int, str], unsent: Iterable[int] = ()
    ) -> None:
        """Remove a batch, but keep refused records with their reason, and unsent ones to send.

        Both are named by their place in the batch.
        """
        with self._lock:
            self._claim.check()
            if refused:
                rows = [
                    _encode({"reason": reason, "record": _decode(batch.lines[place])})
                    for place, reason in refused.items()
                ]
                content = _join(rows)
                append_to_file(self._folder / REFUSED_NAME, content)
                self._size += len(content)
            remaining, paths = [batch.lines[place] for place in unsent], batch.paths
            if remaining:
                former_size = paths[0].stat().st_size
                self._write(paths[0], remaining)
                self._size -= former_size
                paths = paths[1:]
            for path in paths:
                self._remove(path)

    def list_refused(self) -> list[dict[str, Any]]:
        """Return the refused records, each with its `reason`."""
        path = self._folder / REFUSED_NAME
        rows = [_decode(line) for line in _read_lines(path)] if path.exists() else []
        return [row for row in rows if isinstance(row, dict)]

    def requeue_refused(self) -> int:
        """Send the refused records again, once the cause is mended; return their number."""
        with self._lock:
            rows = self.list_refused()
            if rows:
                self._write(self._take_path(), [_encode(row["record"]) for row in rows])
                self.clear_refused()
            return len(rows)

    def clear_refused(self) -> None:
        """Delete the refused records."""
        path = self._folder / REFUSED_NAME
        with self._lock:
            if path.exists():
                self._remove(path)

    def _take_path(self) -> Path:
        """Return the path of the newest file."""
        self._next_number += 1
        return self._folder / f"{self._next_number:012}.ndjson"

    def _write(self, path: Path, lines: list[bytes]) -> None:
        """Write a file whole, and let it appear at once."""
        content = _join(lines)
        self._claim.check()
        replace_file(path, content)
        self._size += len(content)

    def _remove(self, path: Path) -> None:
        self._claim.check()
        self._size -= path.stat().st_size
        path.unlink()

    def _list_files(self) -> list[Path]:
        return sorted(p for p in self._folder.glob("*.ndjson") if p.stem.isdecimal())


def _encode(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _decode(line: bytes) -> Any:
    """Return a record, or the text of one that was damaged on the disk."""
    try:
        return json.loads(line, parse_constant=str)
    except (RecursionError, ValueError):
        return line.decode(errors="replace")


def _join(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _read_lines(path: Path) -> list[bytes]:
    """Return a file's lines; the service gives no result for an empty one."""
    return [line for line in path.read_bytes().splitlines() if line.strip()]


def _recover(path: Path) -> None:
    """Keep the whole lines of a file that was being written, as far as they can be read."""
    lines, target = list(filter(_is_whole, _read_lines(path))), path.with_suffix("")
    if target.exists() or not lines:  # what was being shortened is sent again
        path.unlink()
        return
    replace_file(target, _join(lines))


def _cut_half_line(path: Path) -> None:
    """Cut off what a killed append has left: its records are still to be sent."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        replace_file(path, whole)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

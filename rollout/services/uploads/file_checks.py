"""Checks of an uploaded file before it is read: packed, of another kind, too many rows."""

import gzip
import zlib
from pathlib import Path
from typing import Final

from rollout.services.uploads.upload_request import ADVICE, MAX_INFLATION, MAX_ROWS

GZIP_MARK: Final = b"\x1f\x8b"
OTHER_KINDS: Final = {
    b"PK\x03\x04": "a zip file or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
"""First bytes of files that are sent by mistake, with what they are."""
MAX_LINES_A_ROW: Final = 10
"""More lines than this for each allowed row are refused unread: cells may span lines."""
_CHUNK_BYTES: Final = 2**20


def prepare_file(path: Path) -> None:
    """Unpack a file in place and refuse what can't be a CSV file of the allowed size.

    Raises:
        ValueError: the text says what to do instead.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(GZIP_MARK):
        try:
            _unpack_gzip(path)
        finally:
            _get_unpacked_path(path).unlink(missing_ok=True)  # kept files would keep it too
        with path.open("rb") as file:
            start = file.read(4)
    if not start:
        raise ValueError(f"{path.name} is empty; choose the file again")
    if start in OTHER_KINDS:
        raise ValueError(
            f"{path.name} is {OTHER_KINDS[start]}; export it as CSV, or run {ADVICE} with its"
            " right name"
        )
    _check_lines(path)


def _unpack_gzip(path: Path) -> None:
    """Replace a gzip file by its content, which is at most ten times as large."""
    limit, size = path.stat().st_size * MAX_INFLATION, 0
    unpacked_path = _get_unpacked_path(path)
    try:
        with gzip.open(path) as source, unpacked_path.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                if not size and chunk.startswith(GZIP_MARK):  # a run over kept files unpacks again
                    raise ValueError(f"{path.name} is packed twice; pack it once")
                size += len(chunk)
                if size > limit:
                    raise ValueError(
                        f"{path.name} unpacks to more than {MAX_INFLATION} times its size; send it"
                        f" unpacked, or run {ADVICE}"
                    )
                target.write(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}; pack it again") from error
    except OSError as error:
        raise ValueError(
            f"{path.name} could not be unpacked: the service's disk is full or fails; tell who runs"
            f" it, or run {ADVICE}"
        ) from error
    unpacked_path.replace(path)


def _get_unpacked_path(path: Path) -> Path:
    return path.with_name(path.name + ".unpacked")


def _check_lines(path: Path) -> None:
    """Refuse a file of so many lines that reading them would take minutes."""
    with path.open("rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))
    if lines > MAX_ROWS * MAX_LINES_A_ROW:
        raise ValueError(f"{path.name} has {lines:,} lines; {describe_row_limit()}")


def check_rows(file: str, rows: int) -> None:
    """Raise ValueError if a file has too many rows."""
    if rows > MAX_ROWS:
        raise ValueError(f"{file} has {rows:,} rows; {describe_row_limit()}")


def describe_row_limit() -> str:
    """Return the limit of rows and what to do instead."""
    return f"at most {MAX_ROWS:,} are run here; run {ADVICE}"

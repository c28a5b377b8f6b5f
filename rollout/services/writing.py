"""Files written whole or not at all: a name never stands for half a file."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_whole(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write `files` into `folder`, which is made if need be; all of them appear, or none.

    Each is written beside its place first and moved there when every one is complete, so that
    Ctrl-C or a full disk leaves what stood there before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / name: folder / f".{name}.{os.getpid()}.part" for name in files}
    try:
        for part, content in zip(parts.values(), files.values(), strict=True):
            _write(part, content)
        for place, part in parts.items():
            part.replace(place)
    finally:
        for part in parts.values():
            with suppress(FileNotFoundError):
                part.unlink()
    return tuple(parts)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

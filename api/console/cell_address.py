"""The cell that an address names: its two names may hold anything, even strokes."""

from urllib.parse import unquote

from fastapi import Request

from rollout.core.errors import UnknownCell
from rollout.core.places import Cell


def cell_named(request: Request, decoded: str) -> Cell:
    """Return the cell whose names end the address, as they were written there.

    Args:
        request: with the address before its escapes were taken away.
        decoded: the same part without them: what a proxy has undone can be split there alone.

    Raises:
        UnknownCell: there are no two names.
    """
    raw = bytes(request.scope.get("raw_path") or b"").decode("ascii", "replace").partition("?")[0]
    parts = raw.rpartition("/cells/")[2].split("/")
    if len(parts) != 2:
        parts = decoded.split("/")
    if len(parts) != 2:
        raise UnknownCell("an address of a cell ends with its site and its window")
    site, window = map(unquote, parts)
    return Cell(site, window)

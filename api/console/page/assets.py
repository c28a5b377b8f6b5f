"""The style sheet and the one script, each under the hash of what it holds: kept for a year."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, HTTPException, Response

from api.console.page.page_context import HOME

router = APIRouter()
TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
NAMES: Final = ("console.css", "live.js", "review.js")
FOREVER: Final = "public, max-age=31536000, immutable"
ASKED_AGAIN: Final = "no-cache"


@router.get("/assets/{name}")
def asset(name: str, of: str = "") -> Response:
    """Return a file of the console's own.

    Raises:
        HTTPException: there is none of that name.
    """
    if name not in NAMES:
        raise HTTPException(404)
    cache_control = FOREVER if of == _hash(name) else ASKED_AGAIN
    media_type = TYPES[name.rpartition(".")[2]]
    return Response(_read(name), media_type=media_type, headers={"Cache-Control": cache_control})


def address(name: str) -> str:
    """Return where a page finds a file, under the hash of its content."""
    return f"{HOME}/assets/{name}?of={_hash(name)}"


def text(name: str) -> str:
    """Return what a file holds, for a page that carries it in itself."""
    return _read(name).decode()


@cache
def _read(name: str) -> bytes:
    return files("api.console").joinpath("assets", name).read_bytes()


@cache
def _hash(name: str) -> str:
    return sha256(_read(name)).hexdigest()[:16]

"""Style sheet and scripts, cached for a year under the hash of their content."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, HTTPException, Response

from api.console.page.page_context import HOME
from rollout.reports.pages.page_templates import load_tokens

router = APIRouter()
MEDIA_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
STYLE_SHEET: Final = "console.css"  # served behind the tokens that reports have too
ASSET_NAMES: Final = (STYLE_SHEET, "live.js", "review.js")
IMMUTABLE_CACHE: Final = "public, max-age=31536000, immutable"
REVALIDATED_CACHE: Final = "no-cache"


@router.get("/assets/{name}")
def send_asset(name: str, of: str = "") -> Response:
    """Return one of the console's files.

    Raises:
        HTTPException: unknown name.
    """
    if name not in ASSET_NAMES:
        raise HTTPException(404)
    cache_control = IMMUTABLE_CACHE if of == _compute_hash(name) else REVALIDATED_CACHE
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(
        _read_asset(name), media_type=media_type, headers={"Cache-Control": cache_control}
    )


def build_asset_url(name: str) -> str:
    """Return the URL of a file, with the hash of its content."""
    return f"{HOME}/assets/{name}?of={_compute_hash(name)}"


@cache
def _read_asset(name: str) -> bytes:
    content = (files("api.console") / "assets" / name).read_bytes()
    return load_tokens().encode() + content if name == STYLE_SHEET else content


@cache
def _compute_hash(name: str) -> str:
    return sha256(_read_asset(name)).hexdigest()[:16]

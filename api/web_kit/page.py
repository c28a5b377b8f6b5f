"""Rendering of templates with navigation, live region and security headers.

Style sheet and scripts, cached for a year under the hash of their content.

Browser settings (single keys, timezone) and the tokens of key forms.

Content-Security-Policy of a sealed report.

A sealed page can't change, so its policy lists the hashes of its style sheet and style attributes.
Scripts, forms and external resources are forbidden.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from zoneinfo import available_timezones

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from api.priority_threads import NARROWING_PAGES
from api.web_kit import text
from api.web_kit.page_context import HOME, TOKEN_FIELD, Visitor
from rollout.data.database.append_failures import StoreError
from rollout.engine.decide.permissions import Permission
from rollout.engine.words import formatting
from rollout.engine.words.formatting import OPENING_NOTE
from rollout.features.access.keys import KEY_BYTES, PREFIX_BYTES, ApiKey
from rollout.features.reports.pages.page_templates import load_templates, load_tokens
from rollout.features.reviews.reviews import count_pending_reviews

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
    content = (files("api.web_kit") / "assets" / name).read_bytes()
    return load_tokens().encode() + content if name == STYLE_SHEET else content


@cache
def _compute_hash(name: str) -> str:
    return sha256(_read_asset(name)).hexdigest()[:16]


FORM_TOKEN_BYTES: Final = 16
"""Random bytes that tell two openings of the same form apart."""
ALREADY_CREATED_TEXT: Final = (
    "this key was already created and shown once; if nobody saved it, revoke {} and create another"
)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A listed key; `state` is valid, revoked or over."""

    key: ApiKey
    state: str


def list_key_states(keys: tuple[ApiKey, ...], at: datetime) -> tuple[KeyState, ...]:
    """Return keys with their state, valid ones first, then newest first."""
    key_states = [KeyState(key, _get_state(key, at)) for key in reversed(keys)]
    return tuple(sorted(key_states, key=lambda key_state: key_state.state != "valid"))


def create_form_token(entropy: Callable[[int], bytes]) -> str:
    """Return a form token, so that resending the form creates no second key."""
    return entropy(FORM_TOKEN_BYTES).hex()


def compute_prefix(form_token: str, holder: str) -> bytes:
    """Return the prefix of the key for a form token, always the same."""
    return sha256(f"{holder}\n{form_token}".encode()).digest()[:PREFIX_BYTES]


def compute_key_entropy(form_token: str, holder: str, entropy: Callable[[int], bytes]) -> bytes:
    """Return a source of entropy: the form's prefix, then a new secret."""
    return compute_prefix(form_token, holder) + entropy(KEY_BYTES - PREFIX_BYTES)


def explain_existing_key(form_token: str, holder: str, keys: tuple[ApiKey, ...]) -> str:
    """Return the error if the form has already created its key, else ""."""
    prefix = compute_prefix(form_token, holder).hex()
    return ALREADY_CREATED_TEXT.format(prefix) if any(key.prefix == prefix for key in keys) else ""


def _get_state(key: ApiKey, at: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "over" if key.expires_at is not None and key.expires_at <= at else "valid"


KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"
YEAR_SECONDS: Final = 365 * 86_400
"""How long a browser keeps a setting, in seconds."""


def store_single_keys(response: Response, choice: str) -> None:
    """Store in the browser whether single keys are on; only `off` disables them."""
    value = OFF if choice == OFF else "on"
    response.set_cookie(KEYS_COOKIE, value, YEAR_SECONDS, path=HOME, httponly=True, samesite="lax")


def find_timezone(typed: str) -> str:
    """Return the IANA name of a timezone, ignoring case; "" if unknown.

    >>> find_timezone(" europe/vienna "), find_timezone("Vienna")
    ('Europe/Vienna', '')
    """
    name = typed.strip().casefold()
    return next((timezone for timezone in available_timezones() if timezone.casefold() == name), "")


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One entry; `current` on its own page, `waiting` the pending count or None."""

    name: str
    href: str
    current: bool
    waiting: int | None = None


def _can_read(visitor: Visitor) -> bool:
    return visitor.has_permission_somewhere(Permission.READ)


def _can_review(visitor: Visitor) -> bool:
    return visitor.has_permission_somewhere(Permission.REVIEW)


def _allow_all(_visitor: Visitor) -> bool:
    return True


def _count_reviews(visitor: Visitor) -> int:
    return sum(count_pending_reviews(visitor.service, visitor.caller, visitor.at).values())


def _count_open_incidents(visitor: Visitor) -> int:
    """Return the number of open incidents that the visitor may read."""
    count = 0
    for cached_rollout in visitor.service.state_cache.load_all():
        rollout_name = cached_rollout.state.rollout.name
        for incident in cached_rollout.state.scope.open_incidents.values():
            if incident.cell is None:
                count += visitor.caller.has_permission_somewhere(Permission.READ, rollout_name)
            else:
                count += visitor.has_permission(Permission.READ, rollout_name, incident.cell.site)
    return count


PENDING_COUNTERS: Final[Mapping[str, Callable[[Visitor], int]]] = {
    "Review": _count_reviews,
    "Incidents": _count_open_incidents,
}
ENTRY_RULES: Final[tuple[tuple[str, str, Callable[[Visitor], bool]], ...]] = (
    ("Overview", "/", _allow_all),
    ("Review", "/review", _can_review),
    ("Divergences", "/divergences", _can_read),
    ("Incidents", "/incidents", _can_read),
    ("Reports", "/reports", _can_read),
    ("Ledger", "/ledger", _can_read),
    ("Settings", "/settings", _allow_all),
)


EXTRA_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "/review": ("/adjudication",),
    "/divergences": ("/cause",),
}
"""Paths that belong to an entry with another name."""


def build_navigation(visitor: Visitor, path: str) -> tuple[NavigationEntry, ...]:
    """Return the entries of the pages that the visitor may open."""
    return tuple(
        NavigationEntry(
            name,
            HOME + entry_path,
            current=_is_current(entry_path, path),
            waiting=_count_pending(name, visitor, path),
        )
        for name, entry_path, is_allowed in ENTRY_RULES
        if is_allowed(visitor)
    )


def _count_pending(name: str, visitor: Visitor, path: str) -> int | None:
    """Return the pending count of an entry, or None.

    Pages for stopping load no counts, and a database failure never breaks a page.
    """
    count_pending = PENDING_COUNTERS.get(name)
    if count_pending is None or path.endswith(NARROWING_PAGES):
        return None
    try:
        return count_pending(visitor) or None
    except StoreError:
        return None


def _is_current(entry_path: str, path: str) -> bool:
    if entry_path == "/":
        is_rollout_page = path.startswith(f"{HOME}/rollouts")
        return path == f"{HOME}/" or (
            is_rollout_page
            and not any(_is_current(entry_path, path) for _, entry_path, _ in ENTRY_RULES[1:])
        )
    return path.startswith(HOME + entry_path) or any(
        f"{prefix}/" in f"{path}/" for prefix in (entry_path, *EXTRA_PATHS.get(entry_path, ()))
    )


CONTENT_POLICY: Final = (
    "default-src 'self'; img-src 'self' data: https:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS: Final = {"Content-Security-Policy": CONTENT_POLICY, "Cache-Control": "no-store"}
SEE_OTHER: Final = 303
RUN_STARTED: Final = "started"
"""Query of a page after a long run was started: a replica that has no such run says so."""


def render_page(
    request: Request, visitor: Visitor | None, template: str, status: int = 200, **context: Any
) -> HTMLResponse:
    """Render a page.

    Args:
        request: the request.
        visitor: the signed-in user; None renders no navigation.
        template: its name, as `overview`.
        status: 422 if a form is shown again with errors.
        context: variables of the template.
    """
    html = render_html(request, visitor, template, **context)
    return HTMLResponse(html, status, HEADERS)


def render_html(request: Request, visitor: Visitor | None, template: str, **context: Any) -> str:
    """Return the text of a page, or of a part of one."""
    path = request.url.path
    base_context: dict[str, Any] = {
        "visitor": visitor,
        "page_token": "" if visitor is None else visitor.page_token,
        "token_name": TOKEN_FIELD,
        "nav": () if visitor is None else build_navigation(visitor, path),
        "path": path,
        "demo": getattr(request.app.state, "demo", None),
        "rollout": None,
        "live": None,
        "is_answer": request.method == "POST",
        "errors": {},
        "typed": {},
        "has_started_run": RUN_STARTED in request.query_params,
        "single_keys": request.cookies.get(KEYS_COOKIE) != OFF,
    }
    html = (
        create_environment().get_template(f"{template}.html.j2").render({**base_context, **context})
    )
    return text.keep_first_viewer_times(text.join_percent_signs(html))


def redirect_to(path: str) -> RedirectResponse:
    """Redirect to a console page after a form, so that reloading repeats nothing."""
    return RedirectResponse(HOME + path, SEE_OTHER, {"Cache-Control": "no-store"})


@cache
def create_environment() -> Environment:
    """Return the template environment with all filters and globals."""
    folders = {path.parent.name for path in Path(__file__).parents[1].glob("*/*.html.j2")}
    templates = load_templates("api", *sorted(folders))
    templates.filters.update(
        several=formatting.format_quantity,
        listed=formatting.join_words,
        **text.FILTERS,
    )
    templates.globals.update(
        home=HOME,
        asset=build_asset_url,
        opening_note=OPENING_NOTE,
    )
    return templates


CLOSED_POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def build_content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a self-contained page.

    >>> build_content_policy("<style>p{}</style><p>well")[:60]
    "style-src 'unsafe-hashes' 'sha256-gG2yISYereRMiG2lMXrbiUgi0U"
    """
    parser = _StyleParser()
    parser.feed(page)
    hash_sources = " ".join(f"'sha256-{_hash_text(text)}'" for text in dict.fromkeys(parser.texts))
    return (
        f"style-src 'unsafe-hashes' {hash_sources}; {CLOSED_POLICY}"
        if hash_sources
        else CLOSED_POLICY
    )


def _hash_text(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()


class _StyleParser(HTMLParser):
    """Collects the first style sheet and the style attributes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._sheets = 0
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [value for name, value in attrs if name == "style" and value]
        if tag == "style":
            self._sheets += 1
            self._inside = self._sheets == 1

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._inside = False

"""Rendering of templates with navigation, live region and security headers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from api.console.page import assets, text, time_format
from api.console.page.form import TOKEN_FIELD
from api.console.page.own_settings import has_single_keys
from api.console.page.page_context import HOME, Visitor
from api.priority_threads import NARROWING_PAGES
from rollout.core.scope.permissions import Permission
from rollout.reports.pages.page_templates import load_templates
from rollout.reports.text import formatting
from rollout.reports.text.value_text import OPENING_NOTE
from rollout.services.reviews.review_queue import count_pending_reviews
from rollout.store.database.errors import StoreError


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
        return path == f"{HOME}/" or (is_rollout_page and not _belongs_elsewhere(path))
    return path.startswith(HOME + entry_path) or any(
        f"{prefix}/" in f"{path}/" for prefix in (entry_path, *EXTRA_PATHS.get(entry_path, ()))
    )


def _belongs_elsewhere(path: str) -> bool:
    return any(_is_current(entry_path, path) for _, entry_path, _ in ENTRY_RULES[1:])


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
        "single_keys": has_single_keys(request),
    }
    html = (
        create_environment().get_template(f"{template}.html.j2").render({**base_context, **context})
    )
    return time_format.keep_first_viewer_times(text.join_percent_signs(html))


def redirect_to(path: str) -> RedirectResponse:
    """Redirect to a console page after a form, so that reloading repeats nothing."""
    return RedirectResponse(HOME + path, SEE_OTHER, {"Cache-Control": "no-store"})


@cache
def create_environment() -> Environment:
    """Return the template environment with all filters and globals."""
    templates = load_templates("api.console")
    templates.filters.update(
        several=formatting.format_quantity,
        listed=formatting.join_words,
        **time_format.FILTERS,
        **text.FILTERS,
    )
    templates.globals.update(
        home=HOME,
        asset=assets.build_asset_url,
        opening_note=OPENING_NOTE,
    )
    return templates

"""Rendering of templates with navigation, live region and security headers."""

from functools import cache
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from api.console.page import assets, text, time_format
from api.console.page.form import TOKEN_FIELD
from api.console.page.navigation import build_navigation
from api.console.page.own_settings import has_single_keys
from api.console.page.page_context import HOME, Visitor
from rollout.reports.pages.page_templates import load_templates
from rollout.reports.text import formatting
from rollout.reports.text.bound_text import FORGETTING_NOTE, OPENING_NOTE

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
        "errors": {},
        "typed": {},
        "kept": "",
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
        forgetting_note=FORGETTING_NOTE,
    )
    return templates

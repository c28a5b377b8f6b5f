"""A page: a template with what every page shows around it, under the strict policy."""

from functools import cache
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from api.console.page import assets, text, time_format
from api.console.page.form import TOKEN
from api.console.page.navigation import navigation
from api.console.page.page_context import HOME, Visitor
from rollout.reports.pages.page_templates import page_templates
from rollout.reports.text import formatting

POLICY: Final = (
    "default-src 'self'; img-src 'self' data: https:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS: Final = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
SEE_OTHER: Final = 303


def page(
    request: Request, visitor: Visitor | None, template: str, status: int = 200, **shown: Any
) -> HTMLResponse:
    """Return a page.

    Args:
        request: what was asked.
        visitor: who looks; None before anybody is known, then it has no navigation.
        template: its name, as `overview`.
        status: 422 where a form comes back with what is wrong with it.
        shown: what the template shows.
    """
    path = request.url.path
    base_context: dict[str, Any] = {
        "visitor": visitor,
        "page_token": "" if visitor is None else visitor.page_token,
        "token_name": TOKEN,
        "nav": () if visitor is None else navigation(visitor, path),
        "path": path,
        "rollout": None,
        "live": None,
        "errors": {},
        "typed": {},
    }
    html = environment().get_template(f"{template}.html.j2").render({**base_context, **shown})
    return HTMLResponse(text.unbroken(html), status, HEADERS)


def to(path: str) -> RedirectResponse:
    """Go on to a page of the console after something was done: reloading does it not again."""
    return RedirectResponse(HOME + path, SEE_OTHER, {"Cache-Control": "no-store"})


@cache
def environment() -> Environment:
    """Return the templates with the filters and words that all of them use."""
    templates = page_templates("api.console")
    templates.filters.update(
        several=formatting.several,
        listed=formatting.listed,
        **time_format.FILTERS,
        **text.FILTERS,
    )
    templates.globals.update(home=HOME, asset=assets.address)
    return templates

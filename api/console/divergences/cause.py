"""The page of a cause: in which cases a version differs, in a cell or a filter of divergences."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from api.console.divergences.divergence_filter import parse_divergence_search
from api.console.ledger.cause_text import CauseView, build_cause_view
from api.console.page.page import render_page
from api.console.page.page_context import HOME, CurrentVisitor, Visitor
from api.console.page.text import ATTRIBUTE_PREFIX, encode_segment
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission, may_be_asked_blind, require_permission
from rollout.reports.text.formatting import format_cell_name
from rollout.services.incidents.cause_runs import RELOAD_SECONDS, CauseSearch
from rollout.services.incidents.cell_causes import CauseQuery, load_cause

router = APIRouter()
CELL_FIELDS = ("version", "site", "window")
DAY_FIELDS = ("since", "until")


@router.get("/rollouts/{rollout}/cause")
def show_cause(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Show where a version differs more than elsewhere, in the cases of the URL's fields."""
    require_permission(visitor.caller, Permission.READ, rollout)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    search = parse_divergence_search(dict(request.query_params), policy.timezone)
    criteria = search.criteria
    errors = {"": "; ".join(search.errors.values())} if search.errors else {}
    query = CauseQuery(
        version=criteria.version or "",
        site=criteria.site or "",
        window=criteria.window or "",
        since=criteria.since,
        until=criteria.until,
        attributes=criteria.slices,
    )
    view: CauseView | None = None
    cause_search = CauseSearch()
    version = query.version
    if not errors:
        try:
            load = partial(
                load_cause, visitor.service, visitor.caller, rollout, query, at=visitor.at
            )
            cause_search = request.app.state.cause_runs.find(
                visitor.caller, (rollout, query), load, at=visitor.at
            )
            if cause_search.loaded is not None:
                view = build_cause_view(cause_search.loaded, policy, visitor)
                version = cause_search.loaded.version
        except RefusalError as error:
            if type(error) is not RefusalError:
                raise  # a page of its own tells of what is unknown or not allowed
            errors[""] = str(error)
    response = render_page(
        request,
        visitor,
        "cause",
        422 if errors else 200,
        rollout=rollout,
        cause=view,
        run=cause_search.run,
        version=version,
        place=format_cell_name(query.site, query.window),
        attributes=[f"{name} = {value}" for name, value in query.attributes.items()],
        errors=errors,
        own_query=urlencode(search.typed),
    )
    if cause_search.run is not None:
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


def build_cause_path(visitor: Visitor, rollout: str, fields: Mapping[str, str]) -> str:
    """Return the address of the cause for a filter, without what the visitor may not choose."""
    sites = (fields["site"],) if fields.get("site") else ()
    is_asked = may_be_asked_blind(visitor.caller, rollout, sites)
    chosen = {
        name: value
        for name, value in fields.items()
        if name in CELL_FIELDS
        or (not is_asked and (name in DAY_FIELDS or name.startswith(ATTRIBUTE_PREFIX)))
    }
    path = f"{HOME}/rollouts/{encode_segment(rollout)}/cause"
    return f"{path}?{urlencode(chosen)}" if chosen else path

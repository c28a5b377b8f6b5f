"""Case pages: newest cases, search by key, explanation of one case."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.console.page.day_field import parse_day
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from api.console.reviews import case_text
from api.console.reviews.case_text import build_case_path, fits_in_path
from api.console.reviews.pictures import find_first_picture, list_pictures
from api.paging import decode_number, encode_cursor
from rollout.core.policy.policy import Policy
from rollout.core.records.reviews import UnknownCaseError
from rollout.core.scope.permissions import Permission, require_permission
from rollout.services.divergences.case_explanation import load_case_explanation
from rollout.services.divergences.cases import CaseFilter, find_cases

router = APIRouter()
MAX_KEY_LENGTH = 200
PAGE_SIZE = 25
FILTER_FIELDS: Final = ("site", "window", "since", "until", "answers")
DIFFERING: Final = "differ"
CaseKeyQuery = Annotated[str, Query(max_length=2_000)]
CursorQuery = Annotated[str | None, Query(max_length=500)]


@router.get("/rollouts/{rollout}/cases")
def find_case(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    key: CaseKeyQuery = "",
    after: CursorQuery = None,
) -> Response:
    """Find a case by its key, or show the newest cases."""
    if key and not fits_in_path(key):
        return _render_case(request, rollout, visitor, key)
    key_text = key.strip()
    return (
        redirect_to(build_case_path(rollout, key_text))
        if key_text
        else _render_newest_cases(request, rollout, visitor, after)
    )


def _parse_filter(
    request: Request, policy: Policy
) -> tuple[CaseFilter, dict[str, str], dict[str, str]]:
    """Return the filter of a URL, its fields as typed and errors; invalid ones don't filter."""
    typed = {
        name: value
        for name in FILTER_FIELDS
        if (value := request.query_params.get(name, "").strip()[:MAX_KEY_LENGTH])
    }
    errors: dict[str, str] = {}
    return (
        CaseFilter(
            sites={typed["site"]} if "site" in typed else None,
            window=typed.get("window"),
            since=parse_day(typed, "since", policy.timezone, errors),
            until=parse_day(typed, "until", policy.timezone, errors, is_end=True),
            differs=typed.get("answers") == DIFFERING,
        ),
        typed,
        errors,
    )


@router.get("/rollouts/{rollout}/cases/{key:path}")
def show_case(request: Request, rollout: str, key: str, visitor: CurrentVisitor) -> Response:
    """Explain one case: decider, permit, answers, use as evidence."""
    return _render_case(request, rollout, visitor, key)


def _render_newest_cases(
    request: Request, rollout: str, visitor: Visitor, after: str | None
) -> Response:
    require_permission(visitor.caller, Permission.READ_CASES, rollout)
    database, before = visitor.service.database, decode_number(after)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    case_filter, typed, errors = _parse_filter(request, policy)
    case_page = find_cases(
        database, visitor.caller, rollout, case_filter, visitor.at, before=before, limit=PAGE_SIZE
    )
    cases_path = f"/rollouts/{encode_segment(rollout)}/cases"
    query = urlencode(typed)
    cursor = f"after={encode_cursor(str(case_page.next))}" if case_page.next else ""
    return render_page(
        request,
        visitor,
        "cases",
        422 if errors else 200,
        rollout=rollout,
        here=cases_path,
        cases=case_page.items,
        zones=_list_timezones(policy),
        further=f"{cases_path}?{'&'.join(part for part in (query, cursor) if part)}"
        if cursor
        else "",
        start=cases_path + (f"?{query}" if query else "") if after else "",
        typed=typed,
        errors=errors,
        sites=visitor.list_permitted_sites(Permission.READ_CASES, rollout, policy),
        windows=list(dict.fromkeys(cell.window for cell in policy.cells)),
        picture=find_first_picture,
        missing="",
        case_address=build_case_path,
    )


def _list_timezones(policy: Policy) -> dict[str, str]:
    """Return the timezone of each site, and of the policy under ""."""
    return {site.id: site.timezone for site in policy.sites} | {"": policy.timezone}


def _render_case(request: Request, rollout: str, visitor: Visitor, key: str) -> Response:
    require_permission(visitor.caller, Permission.READ_CASES, rollout)
    if not 0 < len(key) <= MAX_KEY_LENGTH or "\0" in key:  # no stored case has such a key
        return _render_unknown_case(request, rollout, visitor, key)
    try:
        story = load_case_explanation(
            visitor.service.database, visitor.caller, rollout, key, visitor.at
        )
    except UnknownCaseError:
        return _render_unknown_case(request, rollout, visitor, key)
    return render_page(
        request,
        visitor,
        "case",
        rollout=rollout,
        case=story.case_details.case,
        explained=story.case_details,
        story=story,
        open=story.closes_at > visitor.at,
        words=case_text,
        pictures=list_pictures(story.media),
        history=case_text.list_case_events(story),
    )


def _render_unknown_case(request: Request, rollout: str, visitor: Visitor, key: str) -> Response:
    """Show that the case doesn't exist, with the search form and nothing else."""
    cases_path = f"/rollouts/{encode_segment(rollout)}/cases"
    context = {
        "cases": (),
        "zones": {},
        "further": "",
        "start": cases_path,
        "missing": key[:MAX_KEY_LENGTH],
    }
    return render_page(
        request,
        visitor,
        "cases",
        404,
        rollout=rollout,
        here=cases_path,
        case_address=build_case_path,
        typed={"key": key[:MAX_KEY_LENGTH]},
        **context,
    )

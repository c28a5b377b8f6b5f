"""Cases: the newest of a rollout, one found by its key, one explained."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.text import segment
from api.console.reviews import case_text
from api.console.reviews.case_text import case_address, in_path
from api.console.reviews.pictures import pictures
from api.paging import cursor, number_of
from rollout.core.records.reviews import UnknownCase
from rollout.core.scope.permissions import Act, require
from rollout.services.divergences.case_explanation import Filter, case_story, cases_of

router = APIRouter()
LONGEST = 200
PAGE = 25
Key = Annotated[str, Query(max_length=2_000)]
After = Annotated[str | None, Query(max_length=500)]


@router.get("/rollouts/{rollout}/cases")
def search(
    request: Request, rollout: str, visitor: Visiting, key: Key = "", after: After = None
) -> Response:
    """Find a case by its key, or show the newest."""
    if key and not in_path(key):
        return _explained(request, rollout, visitor, key)
    key_text = key.strip()
    return (
        to(case_address(rollout, key_text))
        if key_text
        else _newest(request, rollout, visitor, after)
    )


@router.get("/rollouts/{rollout}/cases/{key:path}")
def read(request: Request, rollout: str, key: str, visitor: Visiting) -> Response:
    """Explain one case: who decided, by what permission, what was said, where it was counted."""
    return _explained(request, rollout, visitor, key)


def _newest(request: Request, rollout: str, visitor: Visitor, after: str | None) -> Response:
    require(visitor.caller, Act.EXPLAIN, rollout)
    database, before = visitor.service.database, number_of(after)
    case_page = cases_of(
        database, visitor.caller, rollout, Filter(), visitor.at, before=before, limit=PAGE
    )
    cases_path = f"/rollouts/{segment(rollout)}/cases"
    return page(
        request,
        visitor,
        "cases",
        rollout=rollout,
        here=cases_path,
        cases=case_page.items,
        zones=_zones(visitor, rollout),
        further=f"{cases_path}?after={cursor(str(case_page.next))}" if case_page.next else "",
        start=cases_path if after else "",
        missing="",
        case_address=case_address,
    )


def _zones(visitor: Visitor, rollout: str) -> dict[str, str]:
    """Return the zone of each site, under "" the policy's."""
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    return {site.id: site.timezone for site in policy.sites} | {"": policy.timezone}


def _explained(request: Request, rollout: str, visitor: Visitor, key: str) -> Response:
    require(visitor.caller, Act.EXPLAIN, rollout)
    if not 0 < len(key) <= LONGEST or "\0" in key:  # no case has such a key
        return _unknown(request, rollout, visitor, key)
    try:
        story = case_story(visitor.service.database, visitor.caller, rollout, key, visitor.at)
    except UnknownCase:
        return _unknown(request, rollout, visitor, key)
    return page(
        request,
        visitor,
        "case",
        rollout=rollout,
        case=story.explained.case,
        explained=story.explained,
        story=story,
        open=story.closes > visitor.at,
        words=case_text,
        pictures=pictures(story.media),
        history=case_text.history(story),
    )


def _unknown(request: Request, rollout: str, visitor: Visitor, key: str) -> Response:
    """Say that there is no such case, with the search beside it: nothing else is shown."""
    cases_path = f"/rollouts/{segment(rollout)}/cases"
    context = {
        "cases": (),
        "zones": {},
        "further": "",
        "start": cases_path,
        "missing": key[:LONGEST],
    }
    return page(
        request,
        visitor,
        "cases",
        404,
        rollout=rollout,
        here=cases_path,
        case_address=case_address,
        typed={"key": key[:LONGEST]},
        **context,
    )

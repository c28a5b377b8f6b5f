"""Adjudication: cases on which people differ, settled by somebody who had no seat there.

What was said stands side by side without names. It is for reports and training, never evidence.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.text import segment
from api.console.reviews.review import brought_back
from api.console.reviews.review_case import sheet_of
from api.console.reviews.review_form import SAYS, Around, judge, judging_page, standing_for
from rollout.core.errors import UnknownVersion
from rollout.core.records.reviews import StillOpen, UnknownCase
from rollout.core.scope.permissions import Act
from rollout.services.engine.rollout_state import Standing
from rollout.services.reviews.review_queue import Desk, conflicts
from rollout.services.reviews.reviews import ask_adjudication, claim, mine

router = APIRouter()
Number = Annotated[int, Path(ge=1, lt=2**53)]
Word = Annotated[str, Query(max_length=1_000)]
SETTLED = "settled"
ASKED = "Somebody who has not judged it is asked to settle it."
DONE = "No conflict waits for you any more."
FIELD = {UnknownCase: "case", StillOpen: "case", UnknownVersion: "version"}


@router.get("/rollouts/{rollout}/adjudication")
def listed(
    request: Request, visitor: Visiting, rollout: str, case: Word = "", after: Word = ""
) -> Response:
    """Show how many conflicts wait for the visitor, and to operators which there are."""
    return _list(request, visitor, rollout, after=after, typed={"case": case})


@router.post("/rollouts/{rollout}/adjudication")
def ask(request: Request, form: Signed, visitor: Visiting, rollout: str) -> Response:
    """Have a case settled that people have judged, or that nobody judges blind any more."""
    state = _standing(visitor, rollout)
    key, version = form.one("case"), form.one("version")
    try:
        ask_adjudication(
            visitor.service.database, visitor.caller, state, key, version or None, visitor.at
        )
    except tuple(FIELD) as error:
        errors = {FIELD[type(error)]: _mended(error, form)}
        typed = {"case": key, "version": version}
        return _list(request, visitor, rollout, typed=typed, errors=errors)
    return to(f"/rollouts/{segment(rollout)}/adjudication?after=asked")


@router.get("/rollouts/{rollout}/adjudication/next")
def next_conflict(request: Request, visitor: Visiting, rollout: str, after: Word = "") -> Response:
    """Show the conflict that the visitor holds, or take the next one."""
    state = standing_for(visitor, rollout)
    database, caller = visitor.service.database, visitor.caller
    own_tasks = claim(database, caller, state, visitor.at, kind="adjudicate")
    task = next((task for task in own_tasks.tasks if task.kind == "adjudicate"), None)
    if task is None:
        return to(f"/rollouts/{segment(rollout)}/adjudication?after={after or SETTLED}")
    context = Around(says=SAYS.get(after, ""), to_go=_to_settle(own_tasks))
    return judging_page(request, visitor, state, sheet_of(task, state, visitor.at), context)


@router.get("/rollouts/{rollout}/adjudication/{number}")
def again(request: Request, visitor: Visiting, rollout: str, number: Number) -> Response:
    """Bring back a case that the visitor has settled, if it may still be settled otherwise."""
    return brought_back(request, visitor, standing_for(visitor, rollout), number)


@router.post("/rollouts/{rollout}/adjudication/{number}")
def settle(
    request: Request, form: Signed, visitor: Visiting, rollout: str, number: Number
) -> Response:
    """Keep what settles a case, and go on to the next conflict."""
    return judge(request, form, visitor, rollout, number, "adjudication")


def _list(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    after: str = "",
    typed: dict[str, str],
    errors: dict[str, str] | None = None,
) -> Response:
    service, caller = visitor.service, visitor.caller
    state = _standing(visitor, rollout)
    can_review = caller.may_somewhere(Act.REVIEW, rollout)
    can_operate = caller.may_somewhere(Act.OPERATE, rollout)
    own_tasks = mine(service.database, caller, state, visitor.at) if can_review else None
    open_conflicts = conflicts(service.database, caller, state, visitor.at) if can_operate else ()
    return page(
        request,
        visitor,
        "adjudication",
        422 if errors else 200,
        rollout=rollout,
        reviews=can_review,
        operates=can_operate,
        waits=0 if own_tasks is None else _to_settle(own_tasks),
        conflicts=[
            (conflict, state.policy.zone_of(conflict.case.site)) for conflict in open_conflicts
        ],
        versions=sorted(state.scope.versions),
        says={"asked": ASKED, SETTLED: DONE, **SAYS}.get(after, ""),
        typed=typed,
        errors=errors or {},
    )


def _standing(visitor: Visitor, rollout: str) -> Standing:
    """Return how a rollout stands, to whoever reviews or operates in it; others are refused."""
    if visitor.caller.may_somewhere(Act.OPERATE, rollout):
        return visitor.service.watch.rollout(rollout).standing
    return standing_for(visitor, rollout)


def _to_settle(desk: Desk) -> int:
    claimed_count = sum(task.kind == "adjudicate" for task in desk.tasks)
    return claimed_count + desk.waiting["adjudicate"]


def _mended(refused: Exception, form: Form) -> str:
    """Say what is wrong with the case or the version that was asked for."""
    case, version = form.one("case"), form.one("version")
    if isinstance(refused, UnknownVersion):
        return f"{version} said nothing of this case; leave the version out, or take another"
    if isinstance(refused, StillOpen):
        return "People are still to judge this case blind; ask again once they have"
    if not case:
        return "Write the case's key, as it stands on its page"
    return f"There is no case {case}; copy the key from its page"

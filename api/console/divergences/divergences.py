"""The divergences: where a version and people differ, what it cost, what training does with it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.console.divergences.divergence_filter import ABOUT, Sought, sought
from api.console.divergences.divergence_text import (
    WHO_JUDGES,
    cost,
    lede,
    nothing_says,
    reach,
    unit_of,
    version_choices,
)
from api.console.divergences.matrix_table import action_table, label_table
from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.text import segment
from api.console.reviews.case_text import case_address
from api.console.reviews.cleaning_form import Answered, Typed, answered, handle, wishes
from api.console.reviews.pictures import picture
from api.routers.training import Form as FileForm
from api.routers.training import TrainingManifest, export_training_rows
from rollout.core.errors import Refusal, UnknownVersion
from rollout.core.scope.permissions import Act, require
from rollout.reports.figures.comparison import Comparison
from rollout.reports.figures.label_sources import PEOPLES
from rollout.reports.figures.training import plain_manifest
from rollout.services.cells.overview import rollouts_of
from rollout.services.divergences.divergence_list import (
    Asked,
    DivergenceList,
    divergence_list,
    divergence_table,
)
from rollout.services.divergences.matrices import matrix_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.versions import versions_of
from rollout.services.reports.inputs import NothingToReport
from rollout.services.training.cleaning import choose
from rollout.services.training.training import Wanted, training

router = APIRouter()
After = Annotated[str, Query(max_length=100)]
Saved = Annotated[int, Query(ge=0, le=1_000)]
PAGE = 25
NO_TYPED = Typed()


@router.get("/divergences")
def choose_rollout(request: Request, visitor: Visiting) -> Response:
    """Lead to the rollout's divergences; where there are several, ask which."""
    found = [one.name for one in rollouts_of(visitor.service.database, visitor.caller)]
    if len(found) == 1:
        return to(f"/rollouts/{segment(found[0])}/divergences")
    return page(request, visitor, "divergences_of", names=found)


@router.get("/rollouts/{rollout}/divergences")
def read(
    request: Request, rollout: str, visitor: Visiting, after: After = "", saved: Saved = 0
) -> Response:
    """Show divergences, the dearest first, and the form that judges them."""
    return _shown(request, visitor, rollout, after, Answered(kept=saved))


@router.post("/rollouts/{rollout}/divergences")
def judge(
    request: Request, rollout: str, form: Signed, visitor: Visiting, after: After = ""
) -> Response:
    """Keep what was chosen in the rows; what is refused comes back with all that was typed."""
    require(visitor.caller, Act.OPERATE, rollout)
    done = _judged(rollout, form, visitor)
    if done.refused:
        return _shown(request, visitor, rollout, after, done)
    query = _sought(request, visitor, rollout).query(after=after, saved=str(done.kept))
    return to(f"/rollouts/{segment(rollout)}/divergences{query}")


@router.get("/rollouts/{rollout}/divergences.csv")
def table(request: Request, rollout: str, visitor: Visiting) -> Response:
    """Send every divergence of the filter, in the form of a report's divergences.csv."""
    found = _sought(request, visitor, rollout)
    if found.errors:
        raise Refusal("; ".join(found.errors.values()))
    database, at = visitor.service.database, visitor.at
    text = divergence_table(database, visitor.caller, rollout, found.asked, at)
    headers = {
        "Content-Disposition": 'attachment; filename="divergences.csv"',
        "Cache-Control": "no-store",
    }
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/rollouts/{rollout}/training")
def rows(rollout: str, visitor: Visiting, form: FileForm = "jsonl") -> StreamingResponse:
    """Send the rows to train on: the same file as the API's."""
    found = training(visitor.service.database, visitor.caller, rollout, Wanted(PEOPLES), visitor.at)
    return export_training_rows(found, form)


@router.get("/rollouts/{rollout}/training/manifest")
def manifest(rollout: str, visitor: Visiting) -> TrainingManifest:
    """Send what the rows to train on are, as the API does."""
    found = training(visitor.service.database, visitor.caller, rollout, Wanted(PEOPLES), visitor.at)
    return TrainingManifest.model_validate(plain_manifest(found.manifest))


def _judged(rollout: str, form: Form, visitor: Visitor) -> Answered:
    try:
        wished = wishes(form, form.one("version"), form.one("lever"))
    except Refusal as refusal:
        return Answered(whole=str(refusal))
    database, at = visitor.service.database, visitor.at
    answers = choose(database, visitor.caller, rollout, wished, at) if wished else ()
    return answered(wished, answers)


def _standing(visitor: Visitor, rollout: str) -> Standing:
    require(visitor.caller, Act.READ, rollout)
    return visitor.service.watch.confirmed(rollout).standing


def _sought(request: Request, visitor: Visitor, rollout: str) -> Sought:
    zone = _standing(visitor, rollout).policy.timezone
    return sought(dict(request.query_params), zone)


def _found(
    visitor: Visitor, rollout: str, wanted: Sought, after: str
) -> tuple[DivergenceList, dict[str, str]]:
    """Return the list, and what is wrong with what was asked for: then it is of the last days."""
    database, caller, at = visitor.service.database, visitor.caller, visitor.at
    try:
        found = divergence_list(
            database, caller, rollout, wanted.asked, at, after=after, limit=PAGE
        )
    except NothingToReport as refusal:
        whole = Asked(version=wanted.asked.version, lever=wanted.asked.lever)
        found = divergence_list(database, caller, rollout, whole, at, limit=PAGE)
        return found, {"since": str(refusal)}
    return found, dict(wanted.errors)


def _shown(
    request: Request, visitor: Visitor, rollout: str, after: str, done: Answered
) -> Response:
    wanted = _sought(request, visitor, rollout)
    found, errors = _found(visitor, rollout, wanted, after)
    errors |= _faults(found, done)
    return page(
        request,
        visitor,
        "divergences",
        422 if errors else 200,
        rollout=rollout,
        here=f"/rollouts/{segment(rollout)}/divergences",
        found=found,
        errors=errors,
        sought=wanted,
        typed=wanted.typed,
        done=done,
        lede=lede(found),
        reach=reach(found),
        nothing=nothing_says(found, narrowed=wanted.narrowed),
        cost=cost,
        **_filter(visitor, rollout, found),
        **_figures(visitor, rollout, found),
        **_list(visitor, rollout, found, done),
        **_pages(rollout, wanted, found, after),
    )


def _faults(found: DivergenceList, done: Answered) -> dict[str, str]:
    """Return why rows of the form were refused, by their places; those elsewhere together."""
    places = {row.divergence.case_key: n for n, row in enumerate(found.rows)}
    told = {f"row-{places[key]}": says for key, says in done.errors.items() if key in places}
    elsewhere = [says for key, says in done.errors.items() if key not in places]
    whole = "; ".join([*elsewhere, *([done.whole] if done.whole else [])])
    return told | ({"list": whole} if whole else {})


def _filter(visitor: Visitor, rollout: str, found: DivergenceList) -> dict[str, Any]:
    known = versions_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    return {
        "versions": version_choices(known, found.version),
        "levers": [lever.id for lever in found.policy.levers],
        "costs": [cost(value) for value in found.offered.costs],
        "about": ABOUT,
    }


def _figures(visitor: Visitor, rollout: str, found: DivergenceList) -> dict[str, Any]:
    return {
        "labels": None if found.labels is None else label_table(found.labels),
        "actions": None if found.actions is None else action_table(found.actions),
        "evidence": _evidence(visitor, rollout, found),
        "cost_in": found.policy.charter.cost_in,
    }


def _list(visitor: Visitor, rollout: str, found: DivergenceList, done: Answered) -> dict[str, Any]:
    lever, rows = found.policy.lever[found.lever], found.rows
    return {
        "lever": lever,
        "unit": unit_of(lever),
        "judged": {row.name: _may_judge(visitor, rollout, row.divergence.site) for row in rows},
        "operates": visitor.caller.may_somewhere(Act.OPERATE, rollout),
        "who_judges": WHO_JUDGES,
        "row_typed": {row.name: done.typed.get(row.divergence.case_key, NO_TYPED) for row in rows},
        "zone_of": {site.id: site.timezone for site in found.policy.sites},
        "zone": found.policy.timezone,
        "picture": picture,
        "handle": handle,
        "case_address": case_address,
    }


def _pages(rollout: str, wanted: Sought, found: DivergenceList, after: str) -> dict[str, str]:
    """Return the addresses of this page of the list, of the next one, and of the first."""
    here = f"/rollouts/{segment(rollout)}/divergences"
    return {
        "query": wanted.query(after=after if found.first > 1 else ""),
        "further": here + wanted.query(after=found.next) if found.next else "",
        "start": here + wanted.query() if found.first > 1 else "",
    }


def _may_judge(visitor: Visitor, rollout: str, site: str) -> bool:
    return visitor.may(Act.OPERATE, rollout, site)


def _evidence(visitor: Visitor, rollout: str, found: DivergenceList) -> Comparison | None:
    """Return what gates counted of the version on the lever; None where they counted nothing."""
    try:
        whole = matrix_of(visitor.service, visitor.caller, rollout, found.version)
    except UnknownVersion:
        return None
    own = (item for item in whole.items if item.lever == found.lever)
    return next(own, None)

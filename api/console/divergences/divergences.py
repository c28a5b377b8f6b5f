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
    rollout_names = [
        rollout_item.name for rollout_item in rollouts_of(visitor.service.database, visitor.caller)
    ]
    if len(rollout_names) == 1:
        return to(f"/rollouts/{segment(rollout_names[0])}/divergences")
    return page(request, visitor, "divergences_of", names=rollout_names)


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
    result = _judged(rollout, form, visitor)
    if result.refused:
        return _shown(request, visitor, rollout, after, result)
    query = _sought(request, visitor, rollout).query(after=after, saved=str(result.kept))
    return to(f"/rollouts/{segment(rollout)}/divergences{query}")


@router.get("/rollouts/{rollout}/divergences.csv")
def table(request: Request, rollout: str, visitor: Visiting) -> Response:
    """Send every divergence of the filter, in the form of a report's divergences.csv."""
    search = _sought(request, visitor, rollout)
    if search.errors:
        raise Refusal("; ".join(search.errors.values()))
    database, at = visitor.service.database, visitor.at
    text = divergence_table(database, visitor.caller, rollout, search.asked, at)
    headers = {
        "Content-Disposition": 'attachment; filename="divergences.csv"',
        "Cache-Control": "no-store",
    }
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/rollouts/{rollout}/training")
def rows(rollout: str, visitor: Visiting, form: FileForm = "jsonl") -> StreamingResponse:
    """Send the rows to train on: the same file as the API's."""
    training_export = training(
        visitor.service.database, visitor.caller, rollout, Wanted(PEOPLES), visitor.at
    )
    return export_training_rows(training_export, form)


@router.get("/rollouts/{rollout}/training/manifest")
def manifest(rollout: str, visitor: Visiting) -> TrainingManifest:
    """Send what the rows to train on are, as the API does."""
    training_export = training(
        visitor.service.database, visitor.caller, rollout, Wanted(PEOPLES), visitor.at
    )
    return TrainingManifest.model_validate(plain_manifest(training_export.manifest))


def _judged(rollout: str, form: Form, visitor: Visitor) -> Answered:
    try:
        requests = wishes(form, form.one("version"), form.one("lever"))
    except Refusal as error:
        return Answered(whole=str(error))
    database, at = visitor.service.database, visitor.at
    results = choose(database, visitor.caller, rollout, requests, at) if requests else ()
    return answered(requests, results)


def _standing(visitor: Visitor, rollout: str) -> Standing:
    require(visitor.caller, Act.READ, rollout)
    return visitor.service.watch.confirmed(rollout).standing


def _sought(request: Request, visitor: Visitor, rollout: str) -> Sought:
    timezone = _standing(visitor, rollout).policy.timezone
    return sought(dict(request.query_params), timezone)


def _found(
    visitor: Visitor, rollout: str, wanted: Sought, after: str
) -> tuple[DivergenceList, dict[str, str]]:
    """Return the list, and what is wrong with what was asked for: then it is of the last days."""
    database, caller, at = visitor.service.database, visitor.caller, visitor.at
    try:
        divergences = divergence_list(
            database, caller, rollout, wanted.asked, at, after=after, limit=PAGE
        )
    except NothingToReport as error:
        default_query = Asked(version=wanted.asked.version, lever=wanted.asked.lever)
        divergences = divergence_list(database, caller, rollout, default_query, at, limit=PAGE)
        return divergences, {"since": str(error)}
    return divergences, dict(wanted.errors)


def _shown(
    request: Request, visitor: Visitor, rollout: str, after: str, done: Answered
) -> Response:
    search = _sought(request, visitor, rollout)
    divergences, errors = _found(visitor, rollout, search, after)
    errors |= _faults(divergences, done)
    return page(
        request,
        visitor,
        "divergences",
        422 if errors else 200,
        rollout=rollout,
        here=f"/rollouts/{segment(rollout)}/divergences",
        found=divergences,
        errors=errors,
        sought=search,
        typed=search.typed,
        done=done,
        lede=lede(divergences),
        reach=reach(divergences),
        nothing=nothing_says(divergences, narrowed=search.narrowed),
        cost=cost,
        **_filter(visitor, rollout, divergences),
        **_figures(visitor, rollout, divergences),
        **_list(visitor, rollout, divergences, done),
        **_pages(rollout, search, divergences, after),
    )


def _faults(found: DivergenceList, done: Answered) -> dict[str, str]:
    """Return why rows of the form were refused, by their places; those elsewhere together."""
    row_numbers = {row.divergence.case_key: index for index, row in enumerate(found.rows)}
    row_errors = {
        f"row-{row_numbers[key]}": text for key, text in done.errors.items() if key in row_numbers
    }
    other_errors = [text for key, text in done.errors.items() if key not in row_numbers]
    form_error = "; ".join([*other_errors, *([done.whole] if done.whole else [])])
    return row_errors | ({"list": form_error} if form_error else {})


def _filter(visitor: Visitor, rollout: str, found: DivergenceList) -> dict[str, Any]:
    statuses = versions_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    return {
        "versions": version_choices(statuses, found.version),
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
    page_path = f"/rollouts/{segment(rollout)}/divergences"
    return {
        "query": wanted.query(after=after if found.first > 1 else ""),
        "further": page_path + wanted.query(after=found.next) if found.next else "",
        "start": page_path + wanted.query() if found.first > 1 else "",
    }


def _may_judge(visitor: Visitor, rollout: str, site: str) -> bool:
    return visitor.may(Act.OPERATE, rollout, site)


def _evidence(visitor: Visitor, rollout: str, found: DivergenceList) -> Comparison | None:
    """Return what gates counted of the version on the lever; None where they counted nothing."""
    try:
        matrices = matrix_of(visitor.service, visitor.caller, rollout, found.version)
    except UnknownVersion:
        return None
    lever_comparisons = (item for item in matrices.items if item.lever == found.lever)
    return next(lever_comparisons, None)

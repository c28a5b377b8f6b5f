"""Divergences pages: where model and humans differ, its cost and cause, choices for training.

A cause says in which cases a version differs, in a cell or a filter of divergences.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.divergences.divergence_text import (
    CLEANING_PERMISSION_TEXT,
    build_action_table,
    build_label_table,
    build_version_choices,
    describe_coverage,
    describe_divergences,
    explain_empty_list,
    format_unit,
)
from api.incidents.cause_text import CauseView, build_cause_view
from api.records.case_text import build_case_path
from api.records.pages import build_picture
from api.schema_forms import encode_cursor
from api.web_kit.page import (
    ATTRIBUTE_PREFIX,
    encode_segment,
    parse_day,
    redirect_to,
    render_page,
    say_refusal,
)
from api.web_kit.page_context import HOME, CurrentVisitor, Visitor
from rollout.engine.decide.permissions import Permission, may_be_asked_blind, require_permission
from rollout.engine.words.formatting import format_cell_name, format_value, to_sentence
from rollout.features.cells.cells import load_gains
from rollout.features.cells.overview import load_rollouts
from rollout.features.divergences.closed_units import load_version_confusion
from rollout.features.divergences.divergence_list import (
    DivergencePage,
    DivergenceQuery,
    export_divergences_csv,
    load_divergence_page,
)
from rollout.features.incidents.incident_causes import load_cause
from rollout.features.incidents.incidents import RELOAD_SECONDS, CauseSearch
from rollout.features.reports.builder import NothingToReportError
from rollout.features.reports.figures.comparison import Comparison
from rollout.features.reports.inputs.divergence_columns import select_titled_columns
from rollout.features.reports.pages.summary import summarize_gains
from rollout.kernel.errors import RefusalError, UnknownVersionError
from rollout.live.rollout_state import RolloutState
from rollout.live.versions import load_versions

FIELD_NAMES: Final = (
    "version",
    "lever",
    "site",
    "window",
    "human",
    "model",
    "cost",
    "since",
    "until",
)
HAS_CHOICE_BY_WORK: Final = {"open": False, "done": True}
REVERSED_DAYS_TEXT: Final = "Choose a first day that is not after the last day"
INVALID_COST_TEXT: Final = "Write a cost as a number, such as 20, or leave it empty"


@dataclass(frozen=True, slots=True)
class DivergenceSearch:
    """Values typed into the filter form, parsed query and errors.

    Attributes:
        typed: by field, as typed; empty fields are dropped.
        criteria: the query, without invalid fields.
        errors: messages by field.
    """

    typed: Mapping[str, str]
    criteria: DivergenceQuery
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_narrowed(self) -> bool:
        """Return whether a filter besides version, lever and days is set."""
        return bool(self.typed.keys() - {"version", "lever", "since", "until"})

    def to_query(self, **changes: str) -> str:
        """Return the URL query with some fields changed, without empty fields.

        >>> DivergenceSearch({"site": "creek & lake"}, DivergenceQuery()).to_query(after="9f")
        '?site=creek+%26+lake&after=9f'
        """
        filled = {name: value for name, value in {**self.typed, **changes}.items() if value}
        return f"?{urlencode(filled)}" if filled else ""


def parse_divergence_search(fields: Mapping[str, str], timezone: str) -> DivergenceSearch:
    """Parse the filter from the fields of a URL.

    Args:
        fields: the fields of the URL.
        timezone: of the policy; days begin in it.
    """
    names = [
        field_name
        for field_name in fields
        if field_name in {*FIELD_NAMES, "work"} or field_name.startswith(ATTRIBUTE_PREFIX)
    ]
    typed = {name: fields[name] for name in names if fields[name]}
    errors: dict[str, str] = {}
    since = parse_day(typed, "since", timezone, errors)
    until = parse_day(typed, "until", timezone, errors, is_end=True)
    if since is not None and until is not None and since >= until:
        errors["since"] = REVERSED_DAYS_TEXT
    criteria = DivergenceQuery(
        **{name: typed.get(name) for name in ("version", "lever", "site", "window")},
        human=typed.get("human"),
        model=typed.get("model"),
        min_cost=_parse_cost(typed, errors),
        attributes={
            field_name.removeprefix(ATTRIBUTE_PREFIX): value
            for field_name, value in typed.items()
            if field_name.startswith(ATTRIBUTE_PREFIX)
        },
        since=None if errors else since,
        until=None if errors else until,
        has_choice=HAS_CHOICE_BY_WORK.get(typed.get("work", "")),
    )
    return DivergenceSearch(typed, criteria, errors)


def _parse_cost(typed: Mapping[str, str], errors: dict[str, str]) -> float | None:
    try:
        return float(typed["cost"]) if "cost" in typed else None
    except ValueError:
        errors["cost"] = INVALID_COST_TEXT
        return None


@dataclass(frozen=True, slots=True)
class TypedChoice:
    """Values typed in one row."""

    choice: str = ""
    label: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CleaningFormResult:
    """Result of a submitted form.

    Attributes:
        stored_count: number of new choices.
        typed: typed values of refused rows, by case key.
        errors: messages by case key.
        form_error: message about the whole form, or "".
    """

    stored_count: int = 0
    typed: Mapping[str, TypedChoice] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    form_error: str = ""

    @property
    def has_errors(self) -> bool:
        """Return whether the form has to be shown again."""
        return bool(self.errors or self.form_error)


router = APIRouter()
CELL_FIELDS = ("version", "site", "window")
DAY_FIELDS = ("since", "until")


@router.get("/rollouts/{rollout}/cause")
def show_cause(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Show where a version differs more than elsewhere, in the cases of the URL's fields."""
    policy = _load_state(visitor, rollout).policy
    search = parse_divergence_search(dict(request.query_params), policy.timezone)
    criteria = search.criteria
    errors = {"": "; ".join(search.errors.values())} if search.errors else {}
    view: CauseView | None = None
    cause_search = CauseSearch()
    version = criteria.version or ""
    if not errors:
        try:
            load = partial(
                load_cause, visitor.service, visitor.caller, rollout, criteria, at=visitor.at
            )
            cause_search = request.app.state.cause_runs.find(
                visitor.caller, (rollout, criteria), load, at=visitor.at
            )
            if cause_search.loaded is not None:
                view = build_cause_view(cause_search.loaded, policy, visitor)
                version = cause_search.loaded.version
        except RefusalError as error:
            if type(error) is not RefusalError:
                raise  # a page of its own tells of what is unknown or not allowed
            errors[""] = say_refusal(error)
    response = render_page(
        request,
        visitor,
        "cause",
        422 if errors else 200,
        rollout=rollout,
        cause=view,
        run=cause_search.run,
        version=version,
        place=format_cell_name(criteria.site or "", criteria.window or ""),
        attributes=[f"{name} = {value}" for name, value in criteria.attributes.items()],
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


CursorQuery = Annotated[str, Query(max_length=100)]
SavedCount = Annotated[int, Query(ge=0, le=1_000)]
PAGE_SIZE = 25
EMPTY_CHOICE = TypedChoice()


@router.get("/divergences")
def show_rollout_choice(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the only rollout's divergences, or a choice of rollouts."""
    rollout_names = [
        rollout_item.name
        for rollout_item in load_rollouts(visitor.service.database, visitor.caller)
    ]
    if len(rollout_names) == 1:
        return redirect_to(f"/rollouts/{encode_segment(rollout_names[0])}/divergences")
    return render_page(request, visitor, "divergences_of", names=rollout_names)


@router.get("/rollouts/{rollout}/divergences")
def show_divergences(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    after: CursorQuery = "",
    saved: SavedCount = 0,
) -> Response:
    """Show divergences, costliest first, and the form for training choices."""
    return render_divergences(
        request, visitor, rollout, after, CleaningFormResult(stored_count=saved)
    )


@router.get("/rollouts/{rollout}/divergences.csv")
def send_divergences_csv(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Send all divergences of the filter, in the format of a report's divergences.csv."""
    search = parse_search(request, visitor, rollout)
    if search.errors:
        raise RefusalError("; ".join(search.errors.values()))
    database, at = visitor.service.database, visitor.at
    text = export_divergences_csv(database, visitor.caller, rollout, search.criteria, at)
    headers = {
        "Content-Disposition": 'attachment; filename="divergences.csv"',
        "Cache-Control": "no-store",
    }
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def _load_state(visitor: Visitor, rollout: str) -> RolloutState:
    require_permission(visitor.caller, Permission.READ, rollout)
    return visitor.service.state_cache.reload_rollout(rollout).state


def parse_search(request: Request, visitor: Visitor, rollout: str) -> DivergenceSearch:
    """Parse the filter from the URL of a request."""
    timezone = _load_state(visitor, rollout).policy.timezone
    return parse_divergence_search(dict(request.query_params), timezone)


def _load_divergences(
    visitor: Visitor, rollout: str, search: DivergenceSearch, after: str
) -> tuple[DivergencePage, dict[str, str]]:
    """Return the list and the errors of the filter; with errors, the default period."""
    database, caller, at = visitor.service.database, visitor.caller, visitor.at
    try:
        divergences = load_divergence_page(
            database, caller, rollout, search.criteria, at, after=after, limit=PAGE_SIZE
        )
    except NothingToReportError as error:
        default_query = DivergenceQuery(
            version=search.criteria.version, lever=search.criteria.lever
        )
        divergences = load_divergence_page(
            database, caller, rollout, default_query, at, limit=PAGE_SIZE
        )
        return divergences, {"since": say_refusal(error)}
    return divergences, dict(search.errors)


def render_divergences(
    request: Request, visitor: Visitor, rollout: str, after: str, result: CleaningFormResult
) -> Response:
    """Render the list, with what became of a form of choices."""
    search = parse_search(request, visitor, rollout)
    divergences, errors = _load_divergences(visitor, rollout, search, after)
    errors |= _list_row_errors(divergences, result)
    brought = _describe_gains(visitor, rollout, search, divergences.version)
    return render_page(
        request,
        visitor,
        "divergences",
        422 if errors else 200,
        rollout=rollout,
        here=f"/rollouts/{encode_segment(rollout)}/divergences",
        divergences=divergences,
        errors=errors,
        search=search,
        typed=search.typed,
        result=result,
        lede=" ".join([*brought, describe_divergences(divergences)]),
        coverage=describe_coverage(divergences),
        nothing=explain_empty_list(divergences, is_narrowed=search.is_narrowed),
        written=format_value,
        cause_path=build_cause_path(
            visitor, rollout, {**search.typed, "version": divergences.version}
        ),
        **_build_filter_context(visitor, rollout, divergences),
        **_build_figures_context(visitor, rollout, divergences),
        **_build_list_context(visitor, rollout, divergences, result),
        **_build_paging_context(rollout, search, divergences, after),
    )


def _describe_gains(
    visitor: Visitor, rollout: str, search: DivergenceSearch, version: str
) -> Iterator[str]:
    """Yield what the version brought in the listed cells: it tells whether differing is worse."""
    state, criteria = _load_state(visitor, rollout), search.criteria
    keys = [
        (cell, version)
        for cell in state.policy.cells
        if criteria.site in {None, cell.site}
        and criteria.window in {None, cell.window}
        and visitor.caller.has_permission(Permission.READ, rollout, cell.site)
    ]
    gains = load_gains(visitor.service.database, state, keys).values()
    yield from map(to_sentence, summarize_gains(chain.from_iterable(gains)))


def _list_row_errors(divergences: DivergencePage, result: CleaningFormResult) -> dict[str, str]:
    """Return errors of rows by their position; errors of other rows together."""
    row_numbers = {row.divergence.case_key: index for index, row in enumerate(divergences.rows)}
    row_errors = {
        f"row-{row_numbers[key]}": text for key, text in result.errors.items() if key in row_numbers
    }
    other_errors = [text for key, text in result.errors.items() if key not in row_numbers]
    form_error = "; ".join([*other_errors, *([result.form_error] if result.form_error else [])])
    return row_errors | ({"list": form_error} if form_error else {})


def _build_filter_context(
    visitor: Visitor, rollout: str, divergences: DivergencePage
) -> dict[str, Any]:
    statuses = load_versions(visitor.service, visitor.caller, rollout, at=visitor.at)
    return {
        "versions": build_version_choices(statuses, divergences.version),
        "levers": [lever.id for lever in divergences.policy.levers],
        "costs": [format_value(value) for value in divergences.filter_options.costs],
        "about": ATTRIBUTE_PREFIX,
    }


def _build_figures_context(
    visitor: Visitor, rollout: str, divergences: DivergencePage
) -> dict[str, Any]:
    return {
        "labels": None
        if divergences.label_matrix is None
        else build_label_table(divergences.label_matrix),
        "actions": None
        if divergences.action_matrix is None
        else build_action_table(divergences.action_matrix),
        "evidence": _find_comparison(visitor, rollout, divergences),
        "cost_in": divergences.policy.charter.cost_in,
    }


def _build_list_context(
    visitor: Visitor, rollout: str, divergences: DivergencePage, result: CleaningFormResult
) -> dict[str, Any]:
    lever, rows = divergences.policy.levers_by_id[divergences.lever], divergences.rows
    return {
        "lever": lever,
        "unit": format_unit(lever),
        "titled_columns": select_titled_columns(row.divergence for row in rows),
        "judged": {
            row.divergence_id: visitor.has_permission(
                Permission.OPERATE, rollout, row.divergence.site
            )
            for row in rows
        },
        "operates": visitor.caller.has_permission_somewhere(Permission.OPERATE, rollout),
        "who_judges": CLEANING_PERMISSION_TEXT,
        "row_typed": {
            row.divergence_id: result.typed.get(row.divergence.case_key, EMPTY_CHOICE)
            for row in rows
        },
        "zone_of": {site.id: site.timezone for site in divergences.policy.sites},
        "zone": divergences.policy.timezone,
        "picture": build_picture,
        "handle": encode_cursor,  # browsers change the line ends of a key
        "case_address": build_case_path,
    }


def _build_paging_context(
    rollout: str, search: DivergenceSearch, divergences: DivergencePage, after: str
) -> dict[str, str]:
    """Return the URLs of this page, the next one and the first one."""
    page_path = f"/rollouts/{encode_segment(rollout)}/divergences"
    return {
        "query": search.to_query(after=after if divergences.first_position > 1 else ""),
        "further": page_path + search.to_query(after=divergences.next_id)
        if divergences.next_id
        else "",
        "start": page_path + search.to_query() if divergences.first_position > 1 else "",
    }


def _find_comparison(
    visitor: Visitor, rollout: str, divergences: DivergencePage
) -> Comparison | None:
    """Return the counted comparison of the version on the lever, if there is one."""
    try:
        matrices = load_version_confusion(
            visitor.service, visitor.caller, rollout, divergences.version
        )
    except UnknownVersionError:
        return None
    return next((item for item in matrices.items if item.lever == divergences.lever), None)

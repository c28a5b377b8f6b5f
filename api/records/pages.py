"""Case pages: newest ones, search by key, one case explained; a form for planted cases.

A picture is embedded if the page's policy allows it, else linked.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.records import case_text
from api.records.case_text import build_case_path, fits_in_path
from api.schema_forms import decode_number, encode_cursor
from api.web_kit.page import encode_segment, parse_day, redirect_to, render_page, say_refusal
from api.web_kit.page_context import (
    HOME,
    CurrentVisitor,
    Form,
    SignedForm,
    Visitor,
    find_reason_fault,
)
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.records.reviews import UnknownCaseError
from rollout.features.divergences.case_explanation import CostliestDivergence, load_case_explanation
from rollout.features.divergences.cases import CaseFilter, find_cases
from rollout.features.records.planted_cases import (
    MAX_CASES,
    PlantingRefusedError,
    PlantingRequest,
    PlantingResult,
    declare_planted_cases,
)
from rollout.features.reports.inputs.pictures import find_picture, is_link
from rollout.kernel.policy.policy import Policy
from rollout.kernel.populations import PLANTED_TERMS

HTTPS: Final = "https:"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: `src` to embed it, `href` to link it."""

    src: str | None
    href: str | None


def build_picture(address: str | None) -> Picture | None:
    """Return how a page shows a picture's URL; None without one.

    >>> build_picture("https://pictures.example/7.jpg").src
    'https://pictures.example/7.jpg'
    >>> build_picture("http://pictures.example/7.jpg").src is None
    True
    """
    if address is None:
        return None
    if address.startswith("data:"):
        return Picture(address, None)
    if not is_link(address):
        return None
    return Picture(address if address.lower().startswith(HTTPS) else None, address)


def list_pictures(media: Mapping[str, str]) -> list[tuple[str, Picture]]:
    """Return the pictures of a case with their names, without dead ones."""
    named_pictures = (
        (name, build_picture(find_picture([media[name]], may_embed=True))) for name in sorted(media)
    )
    return [
        (name, picture_item) for name, picture_item in named_pictures if picture_item is not None
    ]


def find_first_picture(attributes: Mapping[str, str], media: Mapping[str, str]) -> Picture | None:
    """Return the first picture of a case, or None."""
    return next((picture for _, picture in list_pictures({**attributes, **media})), None)


EMBEDDED_PREFIX: Final = "data:"
MAX_ATTRIBUTES: Final = 12  # maximum attributes on a card


@dataclass(frozen=True, slots=True)
class DivergenceCard:
    """A case with differing decisions.

    Attributes:
        case: the case.
        differences_text: what the version would have done and what the human did, in
            words.
        picture: name and address, or None.
        attributes: formatted attributes.
        href: path of the case's page.
    """

    case: CostliestDivergence
    differences_text: str
    picture: tuple[str, Picture] | None
    attributes: tuple[tuple[str, str], ...]
    href: str


def build_cards(rollout: str, cases: Iterable[CostliestDivergence]) -> tuple[DivergenceCard, ...]:
    """Return cards of some cases, in their order."""
    return tuple(_build_card(rollout, case) for case in cases)


def _build_card(rollout: str, case: CostliestDivergence) -> DivergenceCard:
    case_pictures = list_pictures({**case.attributes, **case.media})
    attributes = [
        (name, value)
        for name, value in case.attributes.items()
        if not value.startswith(EMBEDDED_PREFIX)
    ]
    return DivergenceCard(
        case=case,
        differences_text="; ".join(_describe_differences(case)),
        picture=case_pictures[0] if case_pictures else None,
        attributes=tuple(attributes[:MAX_ATTRIBUTES]),
        href=HOME + build_case_path(rollout, case.key),
    )


def _describe_differences(case: CostliestDivergence) -> Iterator[str]:
    for answer in case.differences:
        if answer.model_action and answer.model_action != answer.human_action:
            yield f"{answer.model_action} instead of {answer.human_action or 'nothing known'}"
        else:
            yield f"{answer.lever} answered differently"


router = APIRouter()
MAX_KEY_LENGTH = 200
PAGE_SIZE = 25
FILTER_FIELDS: Final = ("site", "window", "since", "until", "answers", "outcome")
DIFFERING, HARMED = "differ", "harm"
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
            harmed=typed.get("outcome") == HARMED,
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
        zones={site.id: site.timezone for site in policy.sites} | {"": policy.timezone},
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
        open=story.case_details.case.closes_at > visitor.at,
        words=case_text,
        pictures=list_pictures(story.case_details.case.record.media),
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


@router.get("/rollouts/{rollout}/settings/planted-cases")
def show_planting_form(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Show the form for declaring planted cases."""
    return _render_form(request, visitor, rollout)


@router.post("/rollouts/{rollout}/settings/planted-cases")
def submit_planted_cases(
    request: Request, rollout: str, visitor: CurrentVisitor, form: SignedForm
) -> Response:
    """Declare the form's cases, and show how many are new."""
    keys, reason = _read_keys(form), form.get_text("reason")
    errors = {"keys": _find_keys_fault(keys), "reason": find_reason_fault(reason, "plant")}
    errors = {name: text for name, text in errors.items() if text}
    if errors:
        return _render_form(request, visitor, rollout, form=form, errors=errors)
    try:
        result = declare_planted_cases(
            visitor.service.database,
            visitor.caller,
            rollout,
            PlantingRequest(keys, reason),
            visitor.at,
        )
    except PlantingRefusedError as error:
        errors = {"keys": say_refusal(error)}
        return _render_form(request, visitor, rollout, form=form, errors=errors)
    visitor.service.state_cache.invalidate(rollout)
    return _render_form(request, visitor, rollout, result=result)


def _read_keys(form: Form) -> frozenset[str]:
    """Return the keys, one a line, without the spaces that a copied line often ends with."""
    lines = (line.strip() for line in form.get_raw_text("keys").split("\n"))
    return frozenset(filter(None, lines))


def _find_keys_fault(keys: frozenset[str]) -> str:
    if not keys:
        return "Give the keys that the records will have, one a line"
    if len(keys) > MAX_CASES:
        return f"Declare at most {MAX_CASES:,} cases at once; these are {len(keys):,}"
    return ""


def _render_form(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    form: Form | None = None,
    errors: dict[str, str] | None = None,
    result: PlantingResult | None = None,
) -> Response:
    require_permission(visitor.caller, Permission.ADMINISTER, rollout)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    typed = {}
    if form is not None:
        typed = {"keys": form.get_raw_text("keys"), "reason": form.get_text("reason")}
    return render_page(
        request,
        visitor,
        "planted_cases",
        422 if errors else 200,
        rollout=rollout,
        conditions=list_planted_conditions(policy),
        planted_terms=PLANTED_TERMS,
        max_cases=MAX_CASES,
        errors=errors or {},
        typed=typed,
        result=result,
    )


def list_planted_conditions(policy: Policy) -> list[str]:
    """Return what gates require of planted cases, once each."""
    texts = (
        f"{gate.to}: {condition}"
        for gate in policy.gates
        for condition in gate.require
        if condition.population.is_planted
    )
    return list(dict.fromkeys(texts))

"""Pages of training labels: choices about divergences, and files of training rows."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.divergences.pages import (
    CleaningFormResult,
    CursorQuery,
    TypedChoice,
    parse_search,
    render_divergences,
)
from api.schema_forms import decode_cursor
from api.training.routes import Form as FileForm
from api.training.routes import TrainingManifest, export_training_rows, get_training_manifest
from api.web_kit.page import encode_segment, redirect_to, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.records.reviews import RELABEL, CleaningChoiceRequest
from rollout.features.reports.figures.label_issues import TrainingExport
from rollout.features.reports.figures.label_sources import HUMAN_SOURCES
from rollout.features.training import cleaning
from rollout.features.training.cleaning import REJECTED, SAVED
from rollout.kernel.errors import RefusalError

router = APIRouter()
MAX_ROWS: Final = 200  # maximum rows of one form
NO_CHOICE_TEXT: Final = "Choose keep, relabel or drop for at least one case; nothing was saved"
NO_LABEL_TEXT: Final = "choose the label that it should have"


def _parse_choice_request(form: Form, row_number: int) -> CleaningChoiceRequest:
    key = decode_cursor(form.get_text(f"case-{row_number}"))
    choice = form.get_text(f"choice-{row_number}")
    if not key:
        raise RefusalError("a row of the form names no case; load the page again")
    label = form.get_raw_text(f"label-{row_number}") if choice == RELABEL else ""
    return CleaningChoiceRequest(
        key=key,
        choice=choice,
        lever=form.get_text("lever"),
        label=label or None,
        reason=form.get_text(f"reason-{row_number}"),
        version=form.get_text("version"),
    )


@router.post("/rollouts/{rollout}/divergences")
def submit_choices(
    request: Request,
    rollout: str,
    form: SignedForm,
    visitor: CurrentVisitor,
    after: CursorQuery = "",
) -> Response:
    """Store the choices of the form; show rejected rows again with errors."""
    require_permission(visitor.caller, Permission.OPERATE, rollout)
    result = _store_choices(rollout, form, visitor)
    if result.has_errors:
        return render_divergences(request, visitor, rollout, after, result)
    query = parse_search(request, visitor, rollout).to_query(
        after=after, saved=str(result.stored_count)
    )
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/divergences{query}")


@router.get("/rollouts/{rollout}/training")
def send_training_rows(
    rollout: str, visitor: CurrentVisitor, form: FileForm = "jsonl"
) -> StreamingResponse:
    """Send the training rows, the same file as the API's."""
    return export_training_rows(_build_training_export(visitor, rollout), form)


@router.get("/rollouts/{rollout}/training/manifest")
def send_training_manifest(rollout: str, visitor: CurrentVisitor) -> TrainingManifest:
    """Send the manifest of the training rows, as the API does."""
    return get_training_manifest(_build_training_export(visitor, rollout))


def _build_training_export(visitor: Visitor, rollout: str) -> TrainingExport:
    return cleaning.export_training_rows(
        visitor.service.database,
        visitor.caller,
        rollout,
        cleaning.TrainingOptions(HUMAN_SOURCES),
        visitor.at,
    )


def _store_choices(rollout: str, form: Form, visitor: Visitor) -> CleaningFormResult:
    """Store the choices of a form; one without any choice is an error."""
    try:
        requests = [
            _parse_choice_request(form, row_number)
            for row_number in range(MAX_ROWS)
            if form.get_text(f"choice-{row_number}")
        ]
    except RefusalError as error:
        return CleaningFormResult(form_error=say_refusal(error))
    if not requests:
        return CleaningFormResult(form_error=NO_CHOICE_TEXT)
    results = cleaning.store_choices(
        visitor.service.database, visitor.caller, rollout, requests, visitor.at
    )
    rejected = [
        (request, result)
        for request, result in zip(requests, results, strict=True)
        if result.status == REJECTED
    ]
    return CleaningFormResult(
        stored_count=sum(result.status == SAVED for result in results),
        typed={
            request.key: TypedChoice(request.choice, request.label or "", request.reason)
            for request, _ in rejected
        },
        errors={
            request.key: f"{request.key}: {NO_LABEL_TEXT}"
            if request.choice == RELABEL and not request.label
            else f"{request.key}: {result.reason}"
            for request, result in rejected
        },
    )

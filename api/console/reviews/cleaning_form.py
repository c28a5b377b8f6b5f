"""The form for training choices on divergences, and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from api.console.page.form import Form
from api.paging import decode_cursor, encode_cursor
from rollout.core.errors import RefusalError
from rollout.core.records.label_cleaning import RELABEL, CleaningChoiceRequest, CleaningChoiceResult
from rollout.services.training.cleaning import (
    REJECTED,
    SAVED,
)

MAX_ROWS: Final = 200  # maximum rows of one form
NO_CHOICE_TEXT: Final = "Choose keep, relabel or drop for at least one case; nothing was saved"


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


def encode_case_key(key: str) -> str:
    r"""Encode a case key for a field, safe from line-end changes of browsers.

    >>> decode_cursor(encode_case_key("creek\r\n0412"))
    'creek\r\n0412'
    """
    return encode_cursor(key)


def parse_choice_requests(form: Form, version: str, lever: str) -> list[CleaningChoiceRequest]:
    """Return the choices of a form; empty rows have none.

    Raises:
        RefusalError: a row has an invalid case key.
    """
    row_numbers = [
        row_number for row_number in range(MAX_ROWS) if form.get_text(f"choice-{row_number}")
    ]
    return [_parse_choice_request(form, row_number, version, lever) for row_number in row_numbers]


def _parse_choice_request(
    form: Form, row_number: int, version: str, lever: str
) -> CleaningChoiceRequest:
    key = decode_cursor(form.get_text(f"case-{row_number}"))
    choice = form.get_text(f"choice-{row_number}")
    if not key:
        raise RefusalError("a row of the form names no case; load the page again")
    label = form.get_raw_text(f"label-{row_number}") if choice == RELABEL else ""
    return CleaningChoiceRequest(
        key=key,
        choice=choice,
        lever=lever,
        label=label or None,
        reason=form.get_text(f"reason-{row_number}"),
        version=version,
    )


def build_form_result(
    requests: Sequence[CleaningChoiceRequest], results: Sequence[CleaningChoiceResult]
) -> CleaningFormResult:
    """Return the result of a form; a form without any choice is an error."""
    if not requests:
        return CleaningFormResult(form_error=NO_CHOICE_TEXT)
    pairs = list(zip(requests, results, strict=True))
    rejected = [(request, result) for request, result in pairs if result.status == REJECTED]
    return CleaningFormResult(
        stored_count=sum(result.status == SAVED for result in results),
        typed={
            request_item.key: TypedChoice(
                request_item.choice, request_item.label or "", request_item.reason
            )
            for request_item, _ in rejected
        },
        errors={
            request_item.key: _describe_rejection(request_item, result_item.reason)
            for request_item, result_item in rejected
        },
    )


def _describe_rejection(request: CleaningChoiceRequest, reason: str) -> str:
    if request.choice == RELABEL and not request.label:
        return f"{request.key}: choose the label that it should have"
    return f"{request.key}: {reason}"

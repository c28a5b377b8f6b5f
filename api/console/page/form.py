"""Submitted forms: their fields, after the page token was checked."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from api import session_cookie
from api.auth import FETCH_SITE_HEADER, OWN_SITES
from api.console.page.multipart import NO_FORM_TEXT, MultipartReader
from api.console.page.page_context import (
    CurrentVisitor,
    SignInRequiredError,
    Visitor,
    get_return_path,
)
from api.console.page.page_token import unmask_token
from api.limits import BODY_TIMEOUT, is_upload
from rollout.core.errors import CrossSiteRequestError, RefusalError, UnauthenticatedError

TOKEN_FIELD: Final = "page_token"  # noqa: S105 - a field's name
MAX_FIELDS: Final = 2_000
CROSS_SITE_TEXT: Final = "this form came from another site; open the console itself"
LATE_TEXT: Final = "the form did not arrive in time; send it again"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form; a repeated name has several values."""

    fields: Mapping[str, list[str]]

    def get_text(self, name: str) -> str:
        """Return a field's text without surrounding spaces, "" if missing."""
        return self.fields.get(name, [""])[-1].strip()

    def get_raw_text(self, name: str) -> str:
        """Return a field's text as typed, with line ends normalized."""
        return self.fields.get(name, [""])[-1].replace("\r\n", "\n")

    def get_values(self, name: str) -> tuple[str, ...]:
        """Return all values of a name."""
        return tuple(self.fields.get(name, ()))

    def has_field(self, name: str) -> bool:
        """Return whether a box is ticked or a button was pressed."""
        return name in self.fields


async def read_form(request: Request) -> Form:
    """Read a form that needs no session.

    Raises:
        CrossSiteRequestError: a page of another site sent it.
        RefusalError: the body is no form.
    """
    if request.headers.get(FETCH_SITE_HEADER.decode(), "cross-site") not in OWN_SITES:
        raise CrossSiteRequestError(CROSS_SITE_TEXT)
    if is_upload(request.scope):
        reader = MultipartReader(request.headers["content-type"], request.stream())
        request.state.multipart = reader  # the files stay unread until the token was checked
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return Form(await reader.read_fields())
        except (TimeoutError, ClientDisconnect):
            raise RefusalError(LATE_TEXT) from None
    body = await request.body()
    try:
        text = body.decode("utf-8")
        return Form(parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise RefusalError(NO_FORM_TEXT) from error


PostedForm = Annotated[Form, Depends(read_form)]
"""Annotation of forms without a session: sign-in and set-up."""


async def _check_form_token(request: Request, form: PostedForm, visitor: CurrentVisitor) -> Form:
    """Check that the form comes from a page of this session.

    Raises:
        CrossSiteRequestError: its token is missing or of another session.
        SignInRequiredError: the session is over.
    """
    authenticator, token = visitor.service.authenticator, session_cookie.get_session_token(request)
    try:
        authenticator.check_page_token(token, unmask_token(form.get_text(TOKEN_FIELD)))
    except UnauthenticatedError as error:
        raise SignInRequiredError(get_return_path(request)) from error
    return form


SignedForm = Annotated[Form, Depends(_check_form_token)]
"""Annotation of forms of signed-in users."""

__all__ = ["TOKEN_FIELD", "Form", "PostedForm", "SignedForm", "Visitor"]


MAX_REASON_LENGTH: Final = 2_000
"""Maximum characters of a stored reason."""

PURPOSES: Final = {
    "approve": "it is kept with your approval",
    "reject": "it is kept with your rejection",
    "plant": "the ledger keeps it with the declaration",
}


def find_reason_fault(reason: str, decision: str) -> str:
    """Return the error of a reason for a decision, "" if valid.

    >>> find_reason_fault("", "approve"), find_reason_fault("two cubs", "reject")
    ('Write a reason: it is kept with your approval', '')
    """
    if not reason:
        return f"Write a reason: {PURPOSES[decision]}"
    if len(reason) > MAX_REASON_LENGTH:
        return f"Shorten the reason to {MAX_REASON_LENGTH:,} characters; it has {len(reason):,}"
    if "\0" in reason:
        return "The reason contains a NUL character, which can't be stored; remove it"
    return ""

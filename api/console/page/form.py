"""What a form sends: its fields, once its page's token was found right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request

from api import session_cookie
from api.auth import FROM, OWN
from api.console.page.page_context import SignInFirst, Visiting, Visitor, wanted
from api.console.page.page_token import unmasked
from rollout.core.errors import CrossSite, Refusal, Unauthenticated

TOKEN: Final = "page_token"  # noqa: S105 - a field's name
MOST_FIELDS: Final = 2_000
ANOTHER: Final = "this form came from another site; open the console itself"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form; a name that was sent twice has two values."""

    fields: Mapping[str, list[str]]

    def one(self, name: str) -> str:
        """Return a field's text without spaces around it, "" where nothing was sent."""
        return self.fields.get(name, [""])[-1].strip()

    def whole(self, name: str) -> str:
        """Return a field's text as it was typed, with the line ends of files."""
        return self.fields.get(name, [""])[-1].replace("\r\n", "\n")

    def every(self, name: str) -> tuple[str, ...]:
        """Return every value of a name."""
        return tuple(self.fields.get(name, ()))

    def has(self, name: str) -> bool:
        """Say whether a box is ticked or a button was pressed."""
        return name in self.fields


async def _form(request: Request) -> Form:
    """Read a form from this site; of nobody in particular.

    Raises:
        CrossSite: a page of another site sent it.
        Refusal: it is no form.
    """
    if request.headers.get(FROM.decode(), "cross-site") not in OWN:
        raise CrossSite(ANOTHER)
    body = await request.body()
    try:
        text = body.decode("utf-8")
        return Form(parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise Refusal("this is no form of the console; go back and load the page again") from error


Posted = Annotated[Form, Depends(_form)]
"""The annotation of a form that strangers may send: sign-in and set-up."""


async def _signed(request: Request, form: Posted, visitor: Visiting) -> Form:
    """Let a form pass that was written on a page of this very session.

    Raises:
        CrossSite: its token is missing or of another session.
        SignInFirst: the session is over.
    """
    authenticator, token = visitor.service.door, session_cookie.of(request)
    try:
        authenticator.check_page_token(token, unmasked(form.one(TOKEN)))
    except Unauthenticated as error:
        raise SignInFirst(wanted(request)) from error
    return form


Signed = Annotated[Form, Depends(_signed)]
"""The annotation of a form that somebody signed in has sent: every other one."""

__all__ = ["TOKEN", "Form", "Posted", "Signed", "Visitor"]


MOST: Final = 2_000
"""Letters of a reason that are kept."""

FOR: Final = {"approve": "it is kept with your approval", "reject": "it is kept with your no"}


def fault(reason: str, act: str) -> str:
    """Say what is wrong with a reason to approve or reject, "" for nothing.

    >>> fault("", "approve"), fault("two cubs", "reject")
    ('Write a reason: it is kept with your approval', '')
    """
    if not reason:
        return f"Write a reason: {FOR[act]}"
    if len(reason) > MOST:
        return f"Say it in at most {MOST:,} letters; these are {len(reason):,}"
    if "\0" in reason:
        return "The reason holds a letter that no database keeps (NUL); write it again"
    return ""

"""What a page knows of its request: visitor, submitted form and page token; live revisions.

The form of a signed-in user is used only after its page token was checked. The token is under a new
mask each time, against BREACH. Pages are sent gzipped: from the compressed length an attacker who
can put text into a page could guess a constant token.

Open pages poll the revision of their data, and its minute, about once a second. A page shows ages,
times left and what is due now: with each minute of the service's clock open pages are loaded again,
so that they say what a reload would.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from email.parser import BytesHeaderParser
from hashlib import sha256
from typing import Annotated, Final
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api import auth
from api.auth import FETCH_SITE_HEADER, OWN_SITES, get_caller
from api.limits import BODY_TIMEOUT, is_upload
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.words.formatting import MINUTE
from rollout.features.access.keys import read_token, write_token
from rollout.kernel.calendar.instants import EPOCH, list_timezones
from rollout.kernel.errors import CrossSiteRequestError, RefusalError, UnauthenticatedError
from rollout.kernel.policy.policy import Policy
from rollout.live.service import Service
from rollout.live.state_cache import RevisionCache


def mask_token(token: str, entropy: Callable[[int], bytes]) -> str:
    """Return a token under a random mask, with the mask before it.

    >>> mask_token("QUJD", bytes), unmask_token(mask_token("QUJD", bytes))
    ('AAAAQUJD', 'QUJD')
    """
    plain = read_token(token)
    mask = entropy(len(plain))
    return write_token(mask + _xor_bytes(plain, mask))


def unmask_token(text: str) -> str:
    """Return the token under its mask; for invalid text, no valid token.

    >>> unmask_token("QUJD"), unmask_token("ä")
    ('', '')
    """
    masked_bytes = read_token(text)
    half, remainder = divmod(len(masked_bytes), 2)
    return "" if remainder else write_token(_xor_bytes(masked_bytes[half:], masked_bytes[:half]))


def _xor_bytes(mask: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(mask, right, strict=True))


HOME: Final = "/console"
ZONE_COOKIE: Final = "rollout-zone"
UTC: Final = "UTC"


class SignInRequiredError(UnauthenticatedError):
    """Nobody is signed in.

    Attributes:
        return_path: the requested path with its query.
    """

    def __init__(self, return_path: str) -> None:
        super().__init__("sign in first")
        self.return_path = return_path


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in user with a page open.

    Attributes:
        caller: the user with current permissions.
        page_token: sent back by forms, against cross-site requests.
        zone: IANA name of their timezone; `UTC` by default.
        service: the replica's service.
        at: time of the request.
    """

    caller: Caller
    page_token: str = field(repr=False)
    zone: str
    service: Service
    at: datetime

    @property
    def name(self) -> str:
        """Name of the user."""
        return self.caller.name

    @property
    def wall_time(self) -> datetime:
        """Wall time of the request: of sessions, keys and review claims."""
        return self.service.find_wall_time(self.at)

    @property
    def roles(self) -> str:
        """Roles in words, for the page header."""
        return ", ".join(
            dict.fromkeys(assignment.role for assignment in self.caller.role_assignments)
        )

    @property
    def can_operate(self) -> bool:
        """Return whether they may stop anything anywhere."""
        return self.has_permission_somewhere(Permission.OPERATE)

    def has_permission(self, permission: Permission, rollout: str = "", site: str = "") -> bool:
        """Return whether they have a permission at a site; without rollout, everywhere."""
        return self.caller.has_permission(permission, rollout, site)

    def list_permitted_sites(
        self, permission: Permission, rollout: str, policy: Policy
    ) -> tuple[str, ...]:
        """Return the sites of a policy at which they have a permission."""
        return tuple(
            site for site in policy.sites_by_id if self.has_permission(permission, rollout, site)
        )

    def has_permission_somewhere(self, permission: Permission) -> bool:
        """Return whether they have a permission anywhere."""
        return any(
            self.caller.has_permission_somewhere(permission, assignment.rollout)
            for assignment in self.caller.role_assignments
        )


async def _get_visitor(request: Request) -> Visitor:
    """Return the visitor without asking the database; the session was just checked.

    Raises:
        SignInRequiredError: no user is signed in, or the caller used a key.
    """
    try:
        return _build_visitor(request)
    except UnauthenticatedError as error:
        raise SignInRequiredError(get_return_path(request)) from error


def find_visitor(request: Request) -> Visitor | None:
    """Return the visitor, or None if nobody is signed in or authentication fails."""
    try:
        return _build_visitor(request)
    except Exception:  # noqa: BLE001 - the error page needs no visitor
        return None


def _build_visitor(request: Request) -> Visitor:
    service = get_service(request)
    caller = get_caller(request)
    token = service.authenticator.build_page_token(auth.get_session_token(request))
    page_token = mask_token(token, service.entropy)
    return Visitor(caller, page_token, get_timezone(request), service, service.clock.now())


def get_service(request: Request) -> Service:
    """Return the service of the replica."""
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - `create_console` puts it there
    return service


def build_sign_in_path(path: str) -> str:
    """Return the URL of the sign-in page that leads back to `path`."""
    return f"{HOME}/sign-in" + (f"?to={quote(path, safe='/')}" if path else "")


def get_safe_path(path: str) -> str:
    """Return a path of this console from a link, or the overview.

    >>> get_safe_path("/console/ledger?kind=Stopped"), get_safe_path("//elsewhere.example/console/")
    ('/console/ledger?kind=Stopped', '/console/')
    """
    is_safe = path.startswith(f"{HOME}/") and path.isprintable() and "\\" not in path
    return path if is_safe else f"{HOME}/"


def get_return_path(request: Request) -> str:
    """Return the requested path; for a form, the path of its page."""
    if request.method not in {"GET", "HEAD"}:  # browsers name the page within our own site
        address = urlsplit(request.headers.get("referer", ""))
        return get_safe_path(address.path + (f"?{address.query}" if address.query else ""))
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path, safe="/") + query


def get_timezone(request: Request) -> str:
    """Return the timezone from the browser's cookie, or `UTC`."""
    timezone = request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/")
    return timezone if timezone in list_timezones() else UTC


CurrentVisitor = Annotated[Visitor, Depends(_get_visitor)]
"""Annotation of the signed-in visitor."""


MAX_HEAD_BYTES: Final = 8 * 2**10
MAX_PARTS: Final = 100  # fields before the first file; reading a head costs more than its bytes
MAX_FIELDS_BYTES: Final = 2 * 2**20  # of all fields together, files not counted
NO_FORM_TEXT: Final = "this is not a form of the console; go back and reload the page"
_HEAD_END: Final = b"\r\n\r\n"
_DISPOSITION: Final = "content-disposition"


@dataclass(frozen=True, slots=True)
class FormPart:
    """The head of a part: the field's name, and whether it is a file."""

    name: str
    is_file: bool


class MultipartReader:
    """Reads the parts of one form in turn."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Read `chunks`, the body of a request.

        Raises:
            RefusalError: the content type names no boundary.
        """
        message = Message()
        message["Content-Type"] = content_type
        boundary = _get_parameter(message, "content-type", "boundary")
        if not 0 < len(boundary) <= 70:
            raise RefusalError(NO_FORM_TEXT)
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._chunks = chunks
        self._buffer = b"\r\n"  # so that the first delimiter is found as the others are
        self._part: FormPart | None = None

    async def read_fields(self) -> dict[str, list[str]]:
        """Return the fields before the first file.

        Raises:
            RefusalError: the body is no form, or a field is too long.
        """
        fields: dict[str, list[str]] = {}
        size = count = 0
        await self._skip_delimiter()
        while (part := await self._read_head()) is not None and not part.is_file:
            size += len(part.name)
            count += 1
            if count > MAX_PARTS:
                raise RefusalError(f"the form has more than {MAX_PARTS} fields")
            chunks = []
            async for chunk in self._iterate_content():
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_FIELDS_BYTES:
                    break
            if size > MAX_FIELDS_BYTES:
                raise RefusalError(f"the fields have more than {MAX_FIELDS_BYTES:,} bytes")
            try:
                fields.setdefault(part.name, []).append(b"".join(chunks).decode())
            except UnicodeDecodeError:
                raise RefusalError(NO_FORM_TEXT) from None
        self._part = part
        return fields

    async def iterate_files(self) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """Yield the name of each file field with the content, which has to be read.

        Raises:
            RefusalError: the body is no form, or has a field after a file.
        """
        while self._part is not None:
            if not self._part.is_file:
                raise RefusalError(NO_FORM_TEXT)
            yield self._part.name, self._iterate_content()
            self._part = await self._read_head()

    async def skip_rest(self, limit: int) -> None:
        """Read what is left of the body, so that its sender reads the response."""
        size = 0
        async for chunk in self._chunks:
            size += len(chunk)
            if size > limit:
                return

    async def _iterate_content(self) -> AsyncIterator[bytes]:
        """Yield the content of a part, and go beyond the delimiter after it."""
        while (end := self._buffer.find(self._delimiter)) < 0:
            safe = len(self._buffer) - len(self._delimiter) + 1  # the rest may begin a delimiter
            if safe > 0:
                content, self._buffer = self._buffer[:safe], self._buffer[safe:]
                yield content
            await self._receive()
        content = self._buffer[:end]
        self._buffer = self._buffer[end + len(self._delimiter) :]
        if content:
            yield content

    async def _skip_delimiter(self) -> None:
        """Go beyond the first delimiter; what browsers send begins with it."""
        while len(self._buffer) < len(self._delimiter):
            await self._receive()
        if not self._buffer.startswith(self._delimiter):
            raise RefusalError(NO_FORM_TEXT)
        self._buffer = self._buffer[len(self._delimiter) :]

    async def _read_head(self) -> FormPart | None:
        """Return the head of the next part; None at the end of the form."""
        while len(self._buffer) < 2:
            await self._receive()
        if self._buffer.startswith(b"--"):
            return None
        while (end := self._buffer.find(_HEAD_END)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise RefusalError(NO_FORM_TEXT)
            await self._receive()
        head, self._buffer = self._buffer[:end], self._buffer[end + len(_HEAD_END) :]
        message = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name = _get_parameter(message, _DISPOSITION, "name")
        if not name:
            raise RefusalError(NO_FORM_TEXT)
        return FormPart(name, is_file=message.get_param("filename", None, _DISPOSITION) is not None)

    async def _receive(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise RefusalError("the form did not arrive whole; send it again") from None


def _get_parameter(message: Message, header: str, name: str) -> str:
    """Return a parameter of a header, "" if missing."""
    parameter = message.get_param(name, "", header)
    return parameter if isinstance(parameter, str) else ""


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
    authenticator, token = visitor.service.authenticator, auth.get_session_token(request)
    try:
        authenticator.check_page_token(token, unmask_token(form.get_text(TOKEN_FIELD)))
    except UnauthenticatedError as error:
        raise SignInRequiredError(get_return_path(request)) from error
    return form


SignedForm = Annotated[Form, Depends(_check_form_token)]
"""Annotation of forms of signed-in users."""


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


router = APIRouter()


@dataclass(frozen=True, slots=True)
class LiveRegion:
    """Attributes of a page with live regions.

    Attributes:
        revision: of the data at rendering.
        at: URL of the current revision.
    """

    revision: str
    at: str


@router.get("/revision")
async def check_revision(
    request: Request,
    rollout: Annotated[str, Query(max_length=200)] = "",
    if_none_match: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """Answer 304 if nothing readable changed in this minute; 401 makes the page reload."""
    try:
        caller = get_caller(request)
    except UnauthenticatedError:
        return Response(status_code=401)
    cache = _get_revision_cache(request)
    revisions = cache.find_cached()
    if revisions is None:
        revisions = await run_in_threadpool(cache.load)
    now = get_service(request).clock.now()
    tag = f'"{_compute_page_revision(revisions, caller, rollout, now)}"'
    return Response(
        status_code=304 if if_none_match == tag else 200,
        headers={"ETag": tag, "Cache-Control": "no-store"},
    )


def build_live_region(request: Request, visitor: Visitor, rollout: str = "") -> LiveRegion:
    """Return the live region of a page.

    Call it before loading the page's data, so that no change in between is missed.

    Args:
        request: the request.
        visitor: the visitor.
        rollout: its name; "" for a page of all rollouts.
    """
    query = f"?rollout={quote(rollout, safe='')}" if rollout else ""
    return LiveRegion(
        _compute_page_revision(
            _get_revision_cache(request).load(), visitor.caller, rollout, visitor.at
        ),
        f"{HOME}/revision{query}",
    )


def _get_revision_cache(request: Request) -> RevisionCache:
    cache = request.app.state.revisions
    assert isinstance(cache, RevisionCache)  # noqa: S101 - `create_console` puts it there
    return cache


def _compute_page_revision(
    revisions: Mapping[str, str], caller: Caller, rollout: str, at: datetime
) -> str:
    names = (rollout,) if rollout else sorted(revisions)
    readable = [
        f"{rollout_name} {revisions.get(rollout_name)}"
        for rollout_name in names
        if caller.has_permission_somewhere(Permission.READ, rollout_name)
    ]
    return sha256("\n".join([str((at - EPOCH) // MINUTE), *readable]).encode()).hexdigest()[:24]

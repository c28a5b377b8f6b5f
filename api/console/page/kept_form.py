"""What a user typed while the session ended: kept on the sign-in page, then shown in its form.

Nothing of it is stored: the sign-in page holds it sealed. After the sign-in of the same user its
page is rendered anew and filled; the user reads it and sends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.console.page.form import TOKEN_FIELD, read_form
from api.console.page.page import render_page
from api.console.page.page_context import HOME, get_safe_path, get_service
from api.console.page.page_token import unmask_token
from api.session_cookie import choose_cookie_name
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Caller
from rollout.services.access.kept_forms import NONCE_LENGTH, KeptForm, open_form, seal_form
from rollout.services.engine.service import Service
from rollout.store.database.errors import StoreError

TYPED_INPUTS: Final = frozenset({"text", "search", "number", "date", "datetime-local", "time"})
CHOSEN_INPUTS: Final = frozenset({"checkbox", "radio"})
Attributes = Sequence[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class FilledPage:
    """A page with a filled form.

    Attributes:
        html: the page.
        has_form: whether it has the form at all.
        hidden: values of the form's hidden fields, as the page has them now.
        pressed: text of the button that had been pressed with a value, "" if none.
    """

    html: str
    has_form: bool
    hidden: Mapping[str, str]
    pressed: str


def fill_form(html: str, action: str, fields: Mapping[str, list[str]]) -> FilledPage:
    """Fill the first form of a page that sends to `action`; hidden fields stay as they are.

    >>> page = '<form action="/a"><input type="text" name="x" value="1"></form>'
    >>> fill_form(page, "/a", {"x": ["<b>"]}).html
    '<form action="/a"><input type="text" name="x" value="&lt;b&gt;"></form>'
    """
    filler = _FormFiller(html, action, fields)
    return FilledPage(filler.finish(), filler.has_form, filler.hidden, filler.pressed)


@dataclass
class _OpenForm:
    """A form being read; buttons may send it to another path than its own."""

    actions: set[str]
    id: str = ""
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)
    pressed: str = ""


class _FormFiller(HTMLParser):
    """Collects replacements of tags, so that the rest of the page stays as it is."""

    def __init__(self, html: str, action: str, fields: Mapping[str, list[str]]) -> None:
        super().__init__(convert_charrefs=True)
        self._html, self._action, self._fields = html, action, fields
        self._line_starts = [0]
        for line in html.split("\n"):
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)
        self._form: _OpenForm | None = None
        self._typed_text = ""
        self._select, self._button, self._textarea = "", False, -1
        self._edits: list[tuple[int, int, str]] = []
        self.has_form, self.pressed, self._used_id = False, "", ""
        self.hidden: dict[str, str] = {}

    def finish(self) -> str:
        """Return the page with all replacements made."""
        self.feed(self._html)
        self.close()
        html = self._html
        for start, end, text in sorted(self._edits, reverse=True):
            html = html[:start] + text + html[end:]
        return html

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Replace a field's tag."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = _OpenForm({_get_path(values.get("action", ""))}, values.get("id", ""))
        typed = self._fields.get(values.get("name", ""))
        if self._form is None:
            if (
                tag == "textarea"
                and typed
                and self._used_id
                and values.get("form") == self._used_id
            ):
                self._begin_text(typed[-1])  # a field of the form that stands behind it
            return
        if "formaction" in values:
            self._form.actions.add(_get_path(values["formaction"]))
        if tag == "input":
            self._fill_input(values, typed, attrs)
        elif tag == "select":
            self._select = values.get("name", "")
        elif tag == "option" and self._select in self._fields:
            self._mark(
                "selected", attrs, tag, is_on=values.get("value") in self._fields[self._select]
            )
        elif tag == "textarea" and typed and "hidden" not in values and "readonly" not in values:
            self._begin_text(typed[-1])
        elif tag == "button" and typed and values.get("value") in typed:
            self._button = True

    def handle_data(self, data: str) -> None:
        """Note the text of the button that had been pressed."""
        if self._button and self._form is not None:
            self._form.pressed += data

    def handle_endtag(self, tag: str) -> None:
        """Finish a text, or a form."""
        if tag == "select":
            self._select = ""
        if tag == "button":
            self._button = False
        if tag == "textarea" and self._textarea >= 0:
            text = "\n" + escape(self._typed_text)  # a parser drops the first line break
            edits = self._edits if self._form is None else self._form.edits
            edits.append((self._textarea, self._offset(), text))
            self._textarea = -1
        if tag == "form" and self._form is not None:
            self._use_form(self._form)
            self._form = None

    def _begin_text(self, text: str) -> None:
        self._textarea = self._offset() + len(self.get_starttag_text() or "")
        self._typed_text = text

    def _use_form(self, form: _OpenForm) -> None:
        if self._action in form.actions and not self.has_form:
            self.has_form, self.hidden, self._used_id = True, form.hidden, form.id
            self.pressed = " ".join(form.pressed.split())
            self._edits += form.edits

    def _fill_input(
        self, values: Mapping[str, str], typed: list[str] | None, attrs: Attributes
    ) -> None:
        assert self._form is not None  # noqa: S101 - the caller has looked
        kind = values.get("type", "text")
        if kind == "hidden":
            self._form.hidden[values.get("name", "")] = values.get("value", "")
        elif kind in CHOSEN_INPUTS:
            self._mark("checked", attrs, "input", is_on=values.get("value", "on") in (typed or ()))
        elif kind in TYPED_INPUTS and typed:
            self._replace(
                "input", [pair for pair in attrs if pair[0] != "value"] + [("value", typed[-1])]
            )

    def _mark(self, name: str, attrs: Attributes, tag: str, *, is_on: bool) -> None:
        others = [pair for pair in attrs if pair[0] != name]
        self._replace(tag, [*others, (name, None)] if is_on else others)

    def _replace(self, tag: str, attrs: Attributes) -> None:
        text = "".join(
            f" {name}" if value is None else f' {name}="{escape(value)}"' for name, value in attrs
        )
        start = self._offset()
        end = start + len(self.get_starttag_text() or "")
        if self._form is not None:
            self._form.edits.append((start, end, f"<{tag}{text}>"))

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column


def _get_path(action: str) -> str:
    return unquote(action.partition("?")[0])


KEPT_FIELD: Final = "kept"
KEPT_PATHS: Final = (f"{HOME}/rollouts/", f"{HOME}/new")
"""Paths of forms that are kept. None of them has a password or a code."""
SIGNED_OUT_TEXT: Final = (
    "You are signed out, and nothing was sent. Sign in as the same user within 15 minutes: your"
    " form is then shown as you filled it"
)
FILLED_TEXT: Final = "You were signed out. Below stands what you typed; nothing was sent."
LOST_FORM_TEXT: Final = (
    "You were signed out, and nothing was sent. This page no longer has the form that you filled."
)
CHANGE_TEXTS: Final[Mapping[str, str]] = {
    "evidence": "The evidence has changed since: read it again before you decide.",
    "against": "The policy in force has changed since: read the changes again.",
    "began": "Your time on this case begins anew: look at it again before you answer.",
}
"""By the hidden field whose value may have changed meanwhile."""
TYPED_TEXTS: Final = ("reason", "note")
PASSED_HEADERS: Final = frozenset({b"host", b"user-agent", b"accept-language"})


async def keep_form(request: Request) -> str:
    """Return a form that came without a session, sealed; "" if it can't be kept."""
    action = request.url.path
    if request.method != "POST" or not action.startswith(KEPT_PATHS):
        return ""
    try:
        form = await read_form(request)
        token = unmask_token(form.get_text(TOKEN_FIELD))
        fields = {name: values for name, values in form.fields.items() if name != TOKEN_FIELD}
        kept_form = KeptForm(action, get_form_page(request), fields)
        service = get_service(request)
        now = service.wall_clock.now()
        return await run_in_threadpool(_seal_form, service, token, kept_form, now)
    except (RefusalError, StoreError):
        return ""


def _seal_form(service: Service, token: str, form: KeptForm, at: datetime) -> str:
    secret, nonce = service.permit_signer.load_signing_key().secret, service.entropy(NONCE_LENGTH)
    return seal_form(service.database, secret, nonce, token, form, at=at)


def get_form_page(request: Request) -> str:
    """Return the page on which a form stood; browsers name it within our own site."""
    address = urlsplit(request.headers.get("referer", ""))
    query = f"?{address.query}" if address.query else ""
    return get_safe_path(address.path + query)


def render_sign_in(request: Request, *, to: str, sealed: str) -> Response:
    """Render the sign-in page with a sealed form."""
    context = {"to": to, "kept": sealed, "note": SIGNED_OUT_TEXT}
    has_openid = bool(request.app.state.openid)
    return render_page(request, None, "sign_in", 401, openid=has_openid, **context)


def open_kept_form(request: Request, sealed: str, user_name: str) -> KeptForm | None:
    """Return a sealed form of this user, or None."""
    service = get_service(request)
    now = service.wall_clock.now()
    secrets = service.permit_signer.list_secrets() if sealed else ()
    return open_form(secrets, sealed, user_name, at=now)


class FilledFormResponse(Response):
    """The page of a kept form, rendered for a new session and filled."""

    def __init__(self, form: KeptForm, caller: Caller, token: str = "") -> None:
        """Render for `caller`; `token` is that of a session that begins with this response."""
        super().__init__()
        self._form, self._caller, self._token = form, caller, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Render the page, fill it and send it with this response's cookies."""
        status, headers, body = await self._render_page(scope, receive, self._form.page)
        if status != HTTPStatus.OK:  # the task is done, or the page was the answer to a form
            status, headers, body = await self._render_page(scope, receive, f"{HOME}/")
        page = fill_form(body.decode(), self._form.action, self._form.fields)
        body = _add_notice(page, self._form).encode()
        cookies = [pair for pair in self.raw_headers if pair[0] == b"set-cookie"]
        passed = [pair for pair in headers if pair[0] != b"content-length"]
        length = [(b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [*passed, *cookies, *length]})
        await send({"type": "http.response.body", "body": body})

    async def _render_page(
        self, scope: Scope, receive: Receive, page: str
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        path, _, query = page.partition("?")
        headers = [pair for pair in scope["headers"] if pair[0] in PASSED_HEADERS]
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        if self._token:  # the last of two cookies with the same name is read
            name = choose_cookie_name(scope["scheme"], Headers(scope=scope).get("host", ""))
            cookies.append(f"{name}={self._token}".encode())
        inner_scope: dict[str, Any] = {
            key: scope[key]
            for key in ("type", "asgi", "http_version", "scheme", "root_path", "client", "server")
            if key in scope
        }
        inner_scope |= {
            "method": "GET",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [*headers, (b"cookie", b"; ".join(cookies))],
            "state": {**scope.get("state", {}), "caller": self._caller},
        }
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await scope["app"](inner_scope, receive, collect)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return messages[0]["status"], list(messages[0]["headers"]), body


def _add_notice(page: FilledPage, form: KeptForm) -> str:
    """Return the page with a note at its beginning of what was filled and what changed."""
    notice = "".join(f"<p>{escape(sentence)}</p>" for sentence in _describe_filling(page, form))
    start = page.html.find(">", page.html.find("<main")) + 1
    box = f'<div class="notice notice-warn" role="status">{notice}</div>'
    return page.html[:start] + "\n" + box + page.html[start:]


def _describe_filling(page: FilledPage, form: KeptForm) -> list[str]:
    if not page.has_form:
        texts = [form.fields[name][-1] for name in TYPED_TEXTS if form.fields.get(name)]
        return [LOST_FORM_TEXT, *(f"You typed: “{text}”" for text in texts if text)]
    changes = [
        text
        for name, text in CHANGE_TEXTS.items()
        if name in form.fields and page.hidden.get(name) != form.fields[name][-1]
    ]
    pressed = [f"You had pressed “{page.pressed}”."] if page.pressed else []
    return [FILLED_TEXT, *pressed, *changes]

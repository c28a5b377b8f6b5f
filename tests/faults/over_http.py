"""One request to the application, in process: what a client hears of it, and when."""

import asyncio
import json
from contextlib import suppress

from fastapi import FastAPI

from api.app import add_routes
from api.auth import AuthenticationMiddleware
from api.idempotency import IdempotencyMiddleware
from api.problems import install_handlers
from api.stops import routes
from rollout.kernel.errors import RefusalError
from tests.faults.outgoing import Replied

UNSURE = {"outcome-unknown", "refused"}


class RequestRefusedError(RefusalError):
    """A problem by which a request was answered."""

    def __init__(self, code, detail):
        super().__init__(detail)
        self.code = code


class UnansweredError(Exception):
    """A request got no answer, or one that says that nobody knows."""


def application(service):
    """Return the application with the routes that the script asks."""
    app = FastAPI()
    app.state.service = service
    add_routes(app, routes.router)
    install_handlers(app)
    app.add_middleware(IdempotencyMiddleware, service=service)
    app.add_middleware(AuthenticationMiddleware, service=service)
    return app


def post(app, path, who, key, messages):
    """Ask with an `Idempotency-Key`; return the answer's body.

    Args:
        app: the application.
        path, who, key: what is asked, by whom, under which key.
        heard: is told the `Replied` as its last byte has come, whatever happens afterwards.

    Raises:
        RequestRefusedError: it was answered by a problem.
        UnansweredError: nobody knows what came of it.
    """
    parts, sent_messages = [], []

    async def send(message):
        parts.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            body = b"".join(part.get("body", b"") for part in parts).decode()
            sent_messages.append(Replied(key, parts[0]["status"], body))
            if sent_messages[0].status < 400:
                messages(sent_messages[0])

    with suppress(Exception):  # the client hears of it by what was answered, or was not
        asyncio.run(app(_scope(path, who, key), _nothing, send))
    if not sent_messages or sent_messages[0].status == 500:
        raise UnansweredError(path)
    if sent_messages[0].status >= 400:
        reply_body = json.loads(sent_messages[0].body)
        if reply_body["code"] in UNSURE:
            raise UnansweredError(reply_body["detail"])
        raise RequestRefusedError(reply_body["code"], reply_body["detail"])
    return sent_messages[0]


async def _nothing():
    return {"type": "http.request", "body": b"", "more_body": False}


def _scope(path, who, key):
    headers = {"host": "here", "authorization": f"Bearer {who}", "idempotency-key": key}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("here", 80),
    }

"""The console of a replica, made when somebody first opens it: boxes alone never need it."""

from importlib import import_module
from threading import Lock

from starlette.types import ASGIApp, Receive, Scope, Send

from api.priority_threads import at_once
from rollout.services.engine.service import Service


class LateConsole:
    """The application at `/console`; its pages take 5 MiB, which a replica saves until then."""

    def __init__(self, service: Service, *, openid: bool) -> None:
        """Make nothing yet."""
        self._service, self._openid = service, openid
        self._made: ASGIApp | None = None
        self._lock = Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the console does."""
        console = self._made
        if console is None:
            console = await at_once(self._make)  # a stop may be what opens it
        await console(scope, receive, send)

    def _make(self) -> ASGIApp:
        with self._lock:
            if self._made is None:
                module = import_module("api.console.console")
                self._made = module.create_console(self._service, openid=self._openid)
            return self._made

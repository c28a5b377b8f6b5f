"""The console of a replica, created at its first request."""

from importlib import import_module
from threading import Lock

from starlette.types import ASGIApp, Receive, Scope, Send

from api.console.page.demo_console import DemoConsole
from api.priority_threads import run_with_priority
from rollout.services.engine.service import Service


class LazyConsole:
    """The application at `/console`, created on first use.

    Its pages take 5 MiB, which replicas that serve only clients save.
    """

    def __init__(self, service: Service, *, openid: bool, demo: DemoConsole | None = None) -> None:
        self._service, self._openid, self._demo = service, openid, demo
        self._console: ASGIApp | None = None
        self._lock = Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the console does."""
        console = self._console
        if console is None:
            console = await run_with_priority(
                self._create_console
            )  # the first request may be a stop
        await console(scope, receive, send)

    def _create_console(self) -> ASGIApp:
        with self._lock:
            if self._console is None:
                module = import_module("api.console.console")
                self._console = module.create_console(
                    self._service, has_openid=self._openid, demo=self._demo
                )
            return self._console

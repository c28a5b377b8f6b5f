"""The console of a replica, created at its first request."""

from importlib import import_module

from anyio import CapacityLimiter, to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from api.console.page.demo_console import DemoConsole
from rollout.services.engine.service import Service


class LazyConsole:
    """The application at `/console`, created on first use.

    Its pages take 5 MiB, which replicas that serve only clients save.
    """

    def __init__(self, service: Service, *, openid: bool, demo: DemoConsole | None = None) -> None:
        self._service, self._openid, self._demo = service, openid, demo
        self._console: ASGIApp | None = None
        self._thread = CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the console does."""
        console = self._console
        if console is None:
            # the first request may be a stop: it has a thread, whatever holds up the others
            console = await to_thread.run_sync(self._create_console, limiter=self._thread)
        await console(scope, receive, send)

    def _create_console(self) -> ASGIApp:
        if self._console is None:
            module = import_module("api.console.console")
            self._console = module.create_console(
                self._service, has_openid=self._openid, demo=self._demo
            )
        return self._console

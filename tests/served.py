"""A database served on this machine as `rollout serve` does, but for its ticks."""

import socket
import threading
from contextlib import contextmanager

import uvicorn

from api.app import create_app
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import SystemClock
from rollout.live.service import build_service


@contextmanager
def served(database, authenticator=None):
    """Yield the service's address."""
    clock = SystemClock()
    service = build_service(database, authenticator or Authenticator(database, clock), clock)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)

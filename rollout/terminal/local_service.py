"""A service of the command's own process on the local database, like a replica."""

import os
from pathlib import Path

from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import SystemClock
from rollout.live.service import Service, build_service
from rollout.live.stop_latches import LatchFolder

LATCH_VARIABLE = "ROLLOUT_LATCH_FOLDER"


DEFAULT_LATCH_FOLDER = "rollout-stops"


def build_local_service(database: Database) -> Service:
    """Return a service on the local database, like a replica.

    A stop that the database can't take is left in the folder that replicas look into.
    """
    clock = SystemClock()
    service = build_service(database, Authenticator(database, clock), clock)
    service.autonomy.latches.folder = LatchFolder(
        Path(os.environ.get(LATCH_VARIABLE, DEFAULT_LATCH_FOLDER))
    )
    return service

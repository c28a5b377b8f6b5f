"""Ledger heads that clients return: is this ledger the one that they know?

A head that the ledger holds is no doubt. A head of an earlier era was lost in a restore that people
know of. Any other head that this service gave out proves that the ledger was set back: every cell
is stopped. A head without a right code proves nothing, so humans decide for that client only. From
a caller who only reads, it changes nothing: nobody decides by what they get.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from rollout.core.errors import RefusalError
from rollout.core.scope.commands import OpenIncident, StopAfterRollback
from rollout.core.scope.head_codes import IssuedHead, sign_head
from rollout.core.scope.incident_kinds import LEDGER_ROLLED_BACK
from rollout.core.scope.permissions import Caller, Permission
from rollout.core.scope.scope import FIRST_ERA, format_revision
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import CachedRollout
from rollout.store.access.permit_keys import PermitKey
from rollout.store.database.errors import StoreError

LEDGER_LACKS_HEAD: Final = (
    "the ledger lacks the row that you have seen: it was set back; humans decide"
)


@dataclass(frozen=True, slots=True)
class ClientHead:
    """Revision and hash of the newest ledger entry a client knows.

    `code` came with them from the service, "" from clients that send none.
    """

    revision: int
    hash: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class CodedHead(IssuedHead):
    """A ledger head with its code for the client to return."""

    code: str


NO_HEAD: Final = CodedHead("", FIRST_ERA, 0, "", "")
"""The head of an answer without a confirmed ledger."""


def code_head(cached_rollout: CachedRollout, key: PermitKey) -> CodedHead:
    """Return the rollout's head with a code by `key`."""
    scope, head = cached_rollout.state.scope, cached_rollout.head
    rollout_name = cached_rollout.state.rollout.name
    return _build_head(rollout_name, scope.era, head.revision, head.hash, key.secret, key.number)


@lru_cache(maxsize=1_024)  # heads change less often than clients ask
def _build_head(
    rollout_name: str, era: int, revision: int, row_hash: str, secret: bytes, key_number: int
) -> CodedHead:
    code = sign_head(IssuedHead(rollout_name, era, revision, row_hash), secret, key_number)
    return CodedHead(rollout_name, era, revision, row_hash, code)


def has_client_head(cached_rollout: CachedRollout, client_head: ClientHead | None) -> bool:
    """Return whether the ledger holds the client's head; True without one."""
    return client_head is None or cached_rollout.has_row(client_head.revision, client_head.hash)


def load_confirmed_rollout(
    service: Service, rollout_name: str, client_head: ClientHead | None
) -> CachedRollout:
    """Return the rollout; load it again if it lacks the client's head."""
    cached_rollout = service.state_cache.load_rollout(rollout_name)
    if has_client_head(cached_rollout, client_head):
        return cached_rollout
    return service.state_cache.reload_rollout(rollout_name)


def find_head_doubt(
    service: Service, cached_rollout: CachedRollout, caller: Caller, client_head: ClientHead | None
) -> str:
    """Return why humans decide for this client, or "".

    Opens an incident about a head that the ledger lacks, and stops every cell if this service gave
    it out in the current era or a later one. Callers who only read open none with a head that
    proves nothing.
    """
    if client_head is None or has_client_head(cached_rollout, client_head):
        return ""
    rollout_name, era = cached_rollout.state.rollout.name, None
    with suppress(StoreError):
        era = service.permit_signer.read_head_era(
            client_head.code, rollout_name, client_head.revision, client_head.hash
        )
    if era is not None and era < cached_rollout.state.scope.era:
        return ""
    if era is None and not caller.has_permission_somewhere(
        Permission.REQUEST_ASSIGNMENT, rollout_name
    ):
        return LEDGER_LACKS_HEAD
    at = service.clock.now()
    with suppress(StoreError, RefusalError):  # the answer stays `human`
        if era is None:
            incident = _build_incident(at, caller, client_head)
            service.incident_opener.open_or_count(rollout_name, incident, caller.name)
        else:
            stop = _build_stop(at, caller, client_head, era)
            execute_command(service.database, rollout_name, lambda _: stop)
    if era is not None:
        service.state_cache.invalidate(rollout_name)
    return LEDGER_LACKS_HEAD


def _build_incident(at: datetime, caller: Caller, client_head: ClientHead) -> OpenIncident:
    return OpenIncident(
        at=at,
        kind=LEDGER_ROLLED_BACK.name,
        about=caller.name,
        reason=(
            f"{caller.name} has sent revision {client_head.revision} with a hash that is not "
            "here, and no code of this service proves that it was: humans decide for it; see "
            "where it got the head, and delete its stored head if the restore was wanted"
        ),
    )


def _build_stop(
    at: datetime, caller: Caller, client_head: ClientHead, era: int
) -> StopAfterRollback:
    return StopAfterRollback(
        at=at,
        era=era,
        about=caller.name,
        reason=(
            f"{caller.name} has seen revision {format_revision(era, client_head.revision)}, which "
            "this ledger lost: a backup was restored or a failover lost rows; see what was lost, "
            "stops above all, then resume"
        ),
    )

"""Erasing a user in all rollouts, with warnings of what no user can do any more."""

from dataclasses import replace

from rollout.services.erasure.erasure import ErasureRequest, ErasureResult
from rollout.services.erasure.name_erasure import erase_name
from rollout.services.policies.account_changes import make_change_with_warnings
from rollout.store.database.session import Database


def erase_user(
    database: Database, request: ErasureRequest, name: str, *, requires_second_factor: bool
) -> ErasureResult:
    """Erase a name as `erase_name` does, and warn; nothing is refused for a warning."""
    checked_request = request.check(name)  # only an admin learns who is missing
    result, warnings = make_change_with_warnings(
        database,
        lambda: erase_name(database, checked_request, name),
        at=request.at,
        requires_second_factor=requires_second_factor,
    )
    return replace(result, warnings=warnings)

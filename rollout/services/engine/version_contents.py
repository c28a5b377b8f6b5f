"""Contents of model versions: store each with the first record, and refuse another one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from rollout.core.policy.version_contents import find_content_fault
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.versions import RECORDS_SOURCE
from rollout.store.database.session import Transaction
from rollout.store.ledger.versions import StoredVersion, VersionStore

ContentCheck = Callable[[str, str], str]
"""Returns why a prediction of a version with a declared content ("" for none) is refused, or ""."""


def record_contents(
    transaction: Transaction,
    state: RolloutState,
    sent_versions: Sequence[tuple[str, str]],
    at: datetime,
) -> ContentCheck:
    """Store the contents of versions that have none; return the check of each prediction.

    A record sets the content of a version without earlier predictions. The policy sets it for any
    version without one, because users approved it.

    Args:
        sent_versions: version and declared content ("" for none) of the predictions, in order.
    """
    policy_contents = state.policy.contents_by_version
    first_declared: dict[str, str] = {}
    for version, declared in sent_versions:
        if declared or version in policy_contents:
            first_declared[version] = first_declared.get(version) or declared
    if not first_declared:
        return lambda _version, _declared: ""
    versions = VersionStore(transaction, state.rollout)
    _store_new_contents(versions, first_declared, policy_contents, at)
    contents = {name: stored.info.content for name, stored in versions.list_all().items()}

    def check(version: str, declared: str) -> str:
        return find_content_fault(
            version,
            declared=declared,
            content=contents.get(version, ""),
            by_policy=policy_contents.get(version, ""),
        )

    return check


def _store_new_contents(
    versions: VersionStore,
    first_declared: Mapping[str, str],
    policy_contents: Mapping[str, str],
    at: datetime,
) -> None:
    stored_versions: Mapping[str, StoredVersion] = versions.list_all()
    for version, declared in first_declared.items():
        stored = stored_versions.get(version)
        if stored is None or stored.info.content:
            continue  # too many versions are open, or it is set for ever
        content = policy_contents.get(version) or declared
        has_predictions = stored.info.source == RECORDS_SOURCE or versions.has_predictions(version)
        if version in policy_contents or not has_predictions:
            about = {**stored.info.about, "content": content}
            versions.record_info(replace(stored.info, about=about), at=at)

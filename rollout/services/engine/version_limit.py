"""The limit of open versions: which new names may be used.

A name that continues a version needs no slot, whatever number is open (decision record 0038).
"""

from collections.abc import Mapping

from rollout.core.scope.decider import MAX_OPEN_VERSIONS
from rollout.services.engine.new_versions import find_first_names
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.ledger.versions import StoredVersion


def select_usable_names(
    state: RolloutState,
    stored: Mapping[str, StoredVersion],
    new_names: Mapping[str, StoredVersion],
) -> list[str]:
    """Return the new names within the limit of open versions; those first used come first.

    Args:
        stored: the names that the database has.
        new_names: the others, as they would be stored.
    """
    first_names = find_first_names(state.scope, state.policy, {**stored, **new_names})
    retired = {name for name, version in state.scope.versions.items() if version.retired}
    free_slots = max(MAX_OPEN_VERSIONS - len(stored.keys() - retired - first_names.keys()), 0)
    ordered = sorted(new_names, key=lambda name: (new_names[name].first_seen_at, name))
    usable = [name for name in ordered if name not in first_names][:free_slots]
    continued = {*state.scope.versions, *stored, *usable}
    return usable + [name for name in ordered if first_names.get(name) in continued]

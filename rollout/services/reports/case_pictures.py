"""The pictures of cases, which reports show from the cases' media."""

from collections.abc import Collection, Mapping

from rollout.reports.inputs.pictures import find_picture
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Database
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.newest_records import NewestRecords


def find_case_media(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the media of cases, by media name."""
    with database.begin_read() as transaction:
        case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
        cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    return {
        case.key: tuple(case.media[media_name] for media_name in sorted(case.media))
        for case in cases.values()
        if case.media
    }


def load_pictures(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, str | None]:
    """Return the embedded pictures of cases; purged and erased ones have none."""
    if not keys:
        return {}
    media = find_case_media(database, state, keys)
    return {key: find_picture(references, may_embed=True) for key, references in media.items()}

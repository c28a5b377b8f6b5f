"""Erasing the contents of a case or of an episode's cases, in batches.

A batch is one transaction, with its event. After a failure, repeat the request: it continues.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from rollout import faults
from rollout.core.scope.events import CasesErased
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.erasure.erasure import ErasureRequest, ErasureResult, UnknownSubjectError
from rollout.services.erasure.report_erasure import (
    erase_from_reports,
    match_cases_of,
)
from rollout.store.database.session import Database, Transaction
from rollout.store.erasure.case_contents import CaseContents, EarlierHolders
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.erased_keys import wait_for_batches

CASES_PER_BATCH: Final = 100
CASE, EPISODE = "case", "episode"


def erase_case(database: Database, request: ErasureRequest, key: str) -> ErasureResult:
    """Erase the contents of a case; its counts stay.

    Raises:
        NotAllowedError: the caller is no admin of the whole rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        ErasureRefusedError: there is no reason, or it names the case.
        UnknownSubjectError: no record has this key.
    """
    request = request.check(key)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, request.rollout).rollout
        contents = CaseContents(transaction, rollout)
        is_stored, is_erased = contents.find_cases([key]), contents.find_erased([key])
    if not is_stored and not is_erased:
        raise UnknownSubjectError(
            f"{request.rollout} has no case {key}; check the key, upper and lower case differ"
        )
    if not is_stored:
        return ErasureResult(CASE)
    return erase_case_batch(database, request, [key])


def erase_episode(database: Database, request: ErasureRequest, episode: str) -> ErasureResult:
    """Erase the contents of an episode's cases and its key; the counts stay.

    Raises the errors of `erase_case`.
    """
    request = request.check(episode)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, request.rollout).rollout
        if not CaseContents(transaction, rollout).has_episode(episode):
            raise UnknownSubjectError(
                f"{request.rollout} has no episode {episode}; check the key, upper and lower case"
                " differ"
            )
    result = ErasureResult(EPISODE)
    while True:
        with database.begin_read() as transaction:
            contents = CaseContents(transaction, rollout)
            keys = contents.list_episode_cases(episode, CASES_PER_BATCH)
        if not keys:
            return result
        batch = erase_case_batch(database, request, keys, episode)
        result = replace(
            result,
            cases=result.cases + batch.cases,
            rows=result.rows + batch.rows,
            reports=result.reports + batch.reports,
        )


def erase_case_batch(
    database: Database, request: ErasureRequest, keys: Collection[str], episode: str = ""
) -> ErasureResult:
    """Erase the contents of cases in one transaction, for a request that was checked."""
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, request.rollout)
        contents = CaseContents(transaction, state.rollout)
        earlier = contents.find_value_holders(keys, state.policy.evidence.episode_span)

    def _erase() -> ErasureResult:
        with database.begin_write() as transaction:
            event = erase_contents(transaction, request, keys, earlier, episode)
        return ErasureResult(
            CASE,
            cases=len(event.keys),
            rows=sum(event.counts),
            reports=len(event.reports),
        )

    return retry_on_stale_revision(_erase)


def erase_contents(
    transaction: Transaction,
    request: ErasureRequest,
    keys: Collection[str],
    earlier: EarlierHolders,
    episode: str = "",
) -> CasesErased:
    """Erase the contents of cases, and append the event, which is returned."""
    transaction.tally.announce(request.rollout, CasesErased.__name__)
    state = load_rollout_state(transaction, request.rollout)
    if episode:
        wait_for_batches(transaction, state.rollout)
    contents = CaseContents(transaction, state.rollout)
    span, revision = state.policy.evidence.episode_span, state.scope.revision + 1
    erased = contents.erase(keys, revision=revision, episode_span=span, earlier=earlier)
    reports = erase_from_reports(transaction, state.rollout, match_cases_of(keys))
    faults.reach_point("purge.deleted")
    tables = tuple(sorted(erased.counts))
    event = CasesErased(
        at=request.at,
        by=request.caller.name,
        keys=erased.keys,
        tables=tables,
        counts=tuple(erased.counts[table] for table in tables),
        records_digest=erased.records_digest,
        reports=reports,
        episode=contents.erase_episode_key(episode) if episode else "",
        reason=request.reason,
    )
    Ledger(transaction, state.rollout).append(
        [event], after=state.scope.revision, access_head=request.caller.access_head
    )
    return event

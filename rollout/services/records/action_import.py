"""Import files of actions: each once, authorized as if sent now."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from rollout.core.policy.evidence_sources import build_file_sender
from rollout.core.policy.policy import Policy
from rollout.formats.records.action_rows import read_action_rows
from rollout.formats.records.parse import ActionWithPermit, ItemReader
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.permit_signing import PermitSigner
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.unit_counting import queue_new_cases
from rollout.services.engine.window_lookup import WindowLookup
from rollout.services.records.action_authorization import (
    UNAUTHORIZED,
    authorize_actions,
)
from rollout.services.records.import_vouching import compute_digest
from rollout.services.records.unauthorized_actions import (
    report_clock_ahead,
    report_unauthorized_actions,
)
from rollout.services.support.clock import SystemClock
from rollout.store.database.session import Database
from rollout.store.records.records import RecordStatus, RecordStore

ACTIONS_PER_TRANSACTION = 400  # so that other writers don't wait for a whole file


@dataclass(frozen=True, slots=True)
class ActionFile:
    """The actions of a file; `sender` names the file by its hash."""

    actions: Sequence[ActionWithPermit]
    sender: str


def read_action_file(path: Path, policy: Policy, now: datetime) -> ActionFile:
    """Return the actions of a file.

    Raises:
        RecordError: a column or a row can't be used.
        OSError: the file is missing.
    """
    item_reader = ItemReader(WindowLookup(policy).find_window, now)
    items = read_action_rows(path, item_reader)
    actions = [item for item in items if isinstance(item, ActionWithPermit)]
    return ActionFile(actions, build_file_sender(compute_digest(path).sha256))


def import_actions(
    database: Database, rollout_name: str, action_file: ActionFile, at: datetime
) -> Mapping[str, int]:
    """Store actions of a file; return the number of each status, and of unauthorized ones.

    Import their cases and predictions first. An action of the model without a permit of this
    service is unauthorized and opens an incident, as over HTTP.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    permit_signer = PermitSigner(database, SystemClock(), secrets.token_bytes)
    actions, counts = action_file.actions, Counter[str]()
    for start in range(0, len(actions), ACTIONS_PER_TRANSACTION):
        batch = ActionFile(actions[start : start + ACTIONS_PER_TRANSACTION], action_file.sender)
        store_batch = partial(_import_batch, database, rollout_name, batch, permit_signer, at)
        counts += retry_on_stale_revision(store_batch)
    return counts


def _import_batch(
    database: Database,
    rollout_name: str,
    batch: ActionFile,
    permit_signer: PermitSigner,
    at: datetime,
) -> Counter[str]:
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        store = RecordStore(transaction, state.rollout)
        keys, sender = {item.action.key for item in batch.actions}, batch.sender
        case_ids = store.store((), received_at=at, sender=sender, locked_keys=keys).case_ids
        results = authorize_actions(transaction, state, permit_signer, batch.actions, case_ids, at)
        stored_batch = store.store(
            [result.action for result in results], received_at=at, sender=sender
        )
        accepted = [
            result
            for result, receipt in zip(results, stored_batch.results, strict=True)
            if receipt.status is RecordStatus.ACCEPTED
        ]
        unauthorized = [result for result in accepted if result.action.permission == UNAUTHORIZED]
        queue_new_cases(transaction, state, stored_batch, at)
        report_unauthorized_actions(transaction, state, stored_batch, at, unauthorized=unauthorized)
        report_clock_ahead(transaction, state, sender, (r.action for r in accepted), at)
        counts = Counter(receipt.status.value for receipt in stored_batch.results)
        counts[UNAUTHORIZED] = len(unauthorized)
        return counts

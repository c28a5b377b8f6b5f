"""Decisions in the name of a model: found before they are stored."""

from collections.abc import Iterable, Mapping

from rollout.core.records.records import Decision
from rollout.core.records.reviewer_names import find_reviewer_fault, fold_name
from rollout.core.scope.permissions import Caller, Permission
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Transaction
from rollout.store.ledger.versions import VersionStore
from rollout.store.records.reviewer_names import find_predicting_accounts


class ReviewerCheck:
    """The check of one rollout's decisions by their reviewers."""

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._transaction, self._state = transaction, state

    def find_faults(
        self,
        decisions: Iterable[Decision],
        new_versions: Iterable[str] = (),
        sender: Caller | None = None,
        version_count: int | None = None,
    ) -> Mapping[str, str]:
        """Return the reviewers whose decisions are rejected, with reasons.

        `new_versions` are those of the batch, which may not be stored; `sender` is who sent it;
        `version_count` says how many are stored: more than the state has came after it.
        """
        reviewers = {decision.reviewer for decision in decisions}
        if not reviewers:
            return {}
        state = self._state
        names = {*state.versions, *state.scope.versions, *new_versions}
        if version_count not in {None, len(state.versions)}:
            names |= VersionStore(self._transaction, state.rollout).list_names()
        versions = frozenset(map(fold_name, names))
        access_head = None if sender is None else sender.access_head
        accounts = find_predicting_accounts(self._transaction, state.rollout, access_head)
        if (
            sender is not None
            and sender.is_service_account
            and sender.has_permission_somewhere(Permission.SEND_PREDICTIONS, state.rollout.name)
        ):
            accounts |= {sender.name}
        faults = {name: find_reviewer_fault(name, versions, accounts) for name in reviewers}
        return {name: fault for name, fault in faults.items() if fault}

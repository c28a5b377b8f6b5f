"""Was an action of the model allowed? Judged afterwards, from the permit that it brings back."""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.records.records import CASES, PREDICTIONS, Action, AnyRecord, Case, case_of
from rollout.core.scope.assignment import unit_of
from rollout.core.scope.events import Event
from rollout.core.scope.permits import Permit
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope, acting
from rollout.core.statistics.sampling import draw
from rollout.services.engine.permit_signing import Permitting
from rollout.services.engine.rollout_state import Standing, kept_policy, standing_after
from rollout.services.engine.state_cache import STALE
from rollout.services.engine.window_lookup import LiveWindows
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest

PERMITTED: Final = "authorized"
IN_LEASE: Final = "authorized_within_lease"
UNPERMITTED: Final = "unauthorized"
BY_PERSON: Final = "not_required"
MODEL: Final = "model"
EVERY: Final = 50
"""Rows of a ledger that are folded at once for actions of the past."""
NOT_THEN: Final = "the scope did not allow it then, nor does a lease"
LOCAL: Final = "local"  # of a snapshot's permit: whoever holds it decided by the snapshot


@dataclass(frozen=True, slots=True)
class Judgement:
    """An action with what its permission was; `why` says what was wrong, "" where nothing was."""

    action: Action
    why: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A case with the confidence that each version gave."""

    case: Case
    confidence: Mapping[str, float | None]


def known_by_key(
    transaction: Transaction,
    rollout: Rollout,
    keys: Collection[str],
    records: Iterable[AnyRecord] = (),
) -> Mapping[str, Known]:
    """Return the cases of keys, as stored or as they are in `records`, which aren't yet."""
    case_ids = CallerKeys(transaction, rollout).find(keys)
    newest = Newest(transaction, rollout)
    cases = {case.key: case for case in newest.cases(case_ids.values()).values()}
    confidence: dict[str, dict[str, float | None]] = defaultdict(dict)
    for predictions in newest.predictions(case_ids.values()).values():
        for prediction in predictions.values():
            confidence[prediction.key][prediction.version] = prediction.confidence
    for record in records:
        if isinstance(record, CASES) and record.key in keys:
            cases.setdefault(record.key, case_of(record))
        elif isinstance(record, PREDICTIONS):
            confidence[record.key].setdefault(record.version, record.confidence)
    return {key: Known(cases[key], confidence[key]) for key in keys if key in cases}


def standing_now(transaction: Transaction, stood: Standing) -> Standing:
    """Return the standing of this very instant: a stop may have come since it was watched."""
    if Ledger(transaction, stood.rollout).head().revision == stood.scope.revision:
        return stood
    return standing_after(transaction, stood)


class Afterwards:
    """What the scopes of one rollout allowed, of cases as they are known now.

    Its ledger is read as far as actions ask.
    """

    def __init__(self, transaction: Transaction, stood: Standing) -> None:
        self._transaction = transaction
        self._stood = stood
        self._ledger = Ledger(transaction, stood.rollout)
        self._past = _Past(self._ledger)

    def stands(self, action: Action, known: Known) -> bool:
        """Say whether an action that was found allowed is so in its case, which came later.

        Its permit is gone. When it was answered is not known, so in doubt it was early enough.
        """
        if self._gave(self._at(action.at), action.at, action, known):
            return True
        revision = action.scope_revision or 0
        next_event, scope = self._after(revision), self._past.scope(revision)
        if next_event is None or action.at > next_event.at + self._longest(scope):
            return False
        return self._gave(scope, action.at, action, known)

    def _gave(
        self, scope: Scope, at: datetime, action: Action, known: Known, *, local: bool = False
    ) -> bool:
        """Say whether a scope gave the case, as it is known, to the version that acted.

        A permit is about a key alone: of the site, the burst and the confidence that were named
        in the question nothing is taken on trust once they are recorded.
        """
        policy, case = self._policy(scope), known.case
        # its window under the policy of then: a later one may call the hours otherwise
        window = LiveWindows(policy).at(case.site, case.occurred_at, case.attributes)
        acting_grant = acting(scope, policy, Cell(case.site, window), at)
        if acting_grant is None or acting_grant[0] != action.version:
            return False
        stage = policy.stage(acting_grant[1])
        if not stage.model_decides or self._draw(policy, case) < stage.blind:
            return False
        if not local and action.version not in known.confidence:
            return True  # the floor was in the answer
        return _sure(policy, known.confidence.get(action.version or ""))

    def _draw(self, policy: Policy, case: Case) -> float:
        unit = unit_of(policy, case.key, case.site, case.occurred_at, case.episode)
        return draw(self._stood.rollout.salt, "stage", unit)

    def _after(self, revision: int) -> Event | None:
        """Return what ended a revision, None where it still holds."""
        return next(self._ledger.events(after=revision, until=revision + 1), None)

    def _longest(self, scope: Scope) -> timedelta:
        """Return how long after its end an answer from a scope can be used, at any site."""
        policy = self._policy(scope)
        leases = (site.lease for site in policy.sites if site.lease is not None)
        return timedelta(seconds=STALE) + max((policy.lease, *leases))

    def _at(self, at: datetime) -> Scope:
        current_scope = self._stood.scope
        if current_scope.at is None or at >= current_scope.at:
            return current_scope
        return self._past.scope(self._ledger.revision_at(at))

    def _policy(self, scope: Scope) -> Policy:
        if scope.policy_hash in {"", self._stood.scope.policy_hash}:
            return self._stood.policy
        texts = Policies(self._transaction, self._stood.rollout).texts({scope.policy_hash})
        return kept_policy(texts[scope.policy_hash])


class Permission(Afterwards):
    """What actions of one rollout were worth, by the permits that they bring back."""

    def __init__(self, transaction: Transaction, stood: Standing, permits: Permitting) -> None:
        super().__init__(transaction, stood)
        self._permits = permits

    def judge(self, action: Action, permit: str, known: Known | None) -> Judgement:
        """Say what permission an action had.

        Args:
            action: what was done.
            permit: the text that came with the answer "the model decides", or with the scope.
            known: its case, None where it is not known yet: then the permit must name the case.
        """
        if action.by != MODEL:
            return Judgement(replace(action, permission=BY_PERSON))
        found, is_local = self._read(action, permit, known)
        if found is None:
            return self._wrong(action, None, "no permit of ours names this case and version")
        if found.decider != (LOCAL if is_local else MODEL):
            return self._wrong(action, found, f"its permit says that a {found.decider} decides")
        if self._allowed(action, known, found, local=is_local):
            return _ruled(action, found, PERMITTED)
        if self._in_lease(action, known, found, local=is_local):
            return _ruled(action, found, IN_LEASE)
        return self._wrong(action, found, NOT_THEN)

    def _wrong(self, action: Action, found: Permit | None, why: str) -> Judgement:
        return replace(_ruled(action, found, UNPERMITTED), why=why)

    def _read(self, action: Action, permit: str, known: Known | None) -> tuple[Permit | None, bool]:
        """Return the permit, and whether it is a snapshot's: then the box itself decided."""
        rollout_name, version = self._stood.rollout.name, action.version or ""
        if not permit:
            return None, False
        found = self._permits.read(permit, rollout_name, action.key, version)
        if found is not None or known is None:
            return found, False
        return self._permits.read(permit, rollout_name, known.case.site), True

    def _allowed(self, action: Action, known: Known | None, permit: Permit, *, local: bool) -> bool:
        scope = self._at(action.at)
        if known is None:  # nobody knows the cell: the answer holds as long as its revision
            return scope.revision == permit.revision and action.at < permit.ends_at
        return self._gave(scope, action.at, action, known, local=local)

    def _in_lease(
        self, action: Action, known: Known | None, permit: Permit, *, local: bool
    ) -> bool:
        """Say whether it was answered before the change could be known, and done within its lease.

        Source: every effect under an old scope ends by its change plus staleness plus lease.
        """
        next_event = self._after(permit.revision)
        if next_event is None or action.at > permit.ends_at:
            return False
        if permit.issued_at > next_event.at + timedelta(seconds=STALE):
            return False
        if known is None:
            return not local
        scope = self._past.scope(permit.revision)
        # what of its time could end is in the lease of an answer of ours, but not of a snapshot
        at = action.at if local else permit.issued_at
        return self._gave(scope, at, action, known, local=local)


class _Past:
    """The scopes that a ledger once had: what was folded for one action is gone on from."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._folded: dict[int, Scope] = {}
        self._revisions: list[int] = []

    def scope(self, revision: int) -> Scope:
        """Return the scope at a revision: a box comes back with thousands of actions at once."""
        cached_scope = self._folded.get(revision)
        return self._fold(revision) if cached_scope is None else cached_scope

    def _fold(self, revision: int) -> Scope:
        index = bisect_right(self._revisions, revision)
        if index == 0:
            scope = self._ledger.scope_of(revision // EVERY * EVERY)
        else:
            scope = self._folded[self._revisions[index - 1]]
        self._keep(scope)
        while scope.revision < revision:
            until = min(revision, scope.revision + EVERY)
            scope = fold(self._ledger.events(after=scope.revision, until=until), scope)
            self._keep(scope)
        return scope

    def _keep(self, scope: Scope) -> None:
        if scope.revision not in self._folded:
            self._folded[scope.revision] = scope
            insort(self._revisions, scope.revision)


def _ruled(action: Action, permit: Permit | None, permission: str) -> Judgement:
    revision = None if permit is None else permit.revision
    return Judgement(replace(action, permission=permission, scope_revision=revision))


def _sure(policy: Policy, confidence: float | None) -> bool:
    floor = policy.evidence.confidence_floor
    return floor is None or (confidence is not None and floor <= confidence <= 1)

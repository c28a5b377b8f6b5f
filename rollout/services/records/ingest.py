"""Keep what callers send: each item once, each answered, each queued for when it is counted.

A batch is one transaction: records, due queue, reviews, what is set aside and the incidents that
follow are there together or not at all. Asking again is safe by the callers' keys.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from weakref import WeakKeyDictionary

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.records.records import (
    CASES,
    DECISIONS,
    LIGHT,
    PREDICTIONS,
    Action,
    AnyCase,
    AnyRecord,
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    SentDecision,
    case_of,
)
from rollout.core.records.reviews import ASSISTED, exposure
from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.decider import MOST_OPEN_VERSIONS
from rollout.core.scope.events import UNAUTHORIZED, Event
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.projection import fold
from rollout.formats.records.parse import Acted, Reader, Sent, Unusable
from rollout.services.engine.command_handler import Asked, decided
from rollout.services.engine.count_queue import queue
from rollout.services.engine.revision_retry import retried
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.services.engine.window_lookup import LiveWindows
from rollout.services.records.action_authorization import (
    UNPERMITTED,
    Judgement,
    Known,
    Permission,
    known_by_key,
    standing_now,
)
from rollout.services.records.late_actions import judged_again
from rollout.services.records.review_tasks import answered_elsewhere, open_reviews
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.versions import VersionFacts, Versions
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.incoming_cases import Touched
from rollout.store.records.records import Answer, Kept, Verdict, item_of
from rollout.store.records.records import Records as Store
from rollout.store.records.rejected_records import Item, SetAside

SOURCE = "records"
_known: WeakKeyDictionary[Database, dict[int, frozenset[str]]] = WeakKeyDictionary()
"""By rollout's number the versions that are known to stand in the table: they never leave it."""


def told_of(
    transaction: Transaction,
    database: Database,
    stood: Standing,
    records: Sequence[AnyRecord],
    at: datetime,
) -> Mapping[str, str]:
    """Tell of the versions that are new.

    Args:
        transaction: the writing one.
        database: whose it is.
        stood: how the rollout stands.
        records: that came in together.
        at: now.

    Returns:
        The versions that may not be used, each with its reason: too many are open.
    """
    predicted_versions = {record.version for record in records if isinstance(record, PREDICTIONS)}
    versions_by_rollout = _known.setdefault(database, {})
    if predicted_versions <= stood.versions.keys() or predicted_versions <= versions_by_rollout.get(
        stood.rollout.number, frozenset()
    ):
        return {}
    versions = Versions(transaction, stood.rollout)
    stored_versions = versions.all()
    versions_by_rollout[stood.rollout.number] = frozenset(stored_versions)
    retired = {
        retired_version
        for retired_version, version_state in stood.scope.versions.items()
        if version_state.retired
    }
    free_slots = max(MOST_OPEN_VERSIONS - len(stored_versions.keys() - retired), 0)
    new_versions = sorted(
        _first_said(records, predicted_versions - stored_versions.keys(), at).items(), key=_by_time
    )
    for version, first_seen_at in new_versions[:free_slots]:
        versions.tell(VersionFacts(version, SOURCE), at=first_seen_at)
    fault = f"{MOST_OPEN_VERSIONS} versions are open; retire one before {{}} is used"
    return {version: fault.format(version) for version, _ in new_versions[free_slots:]}


def _first_said(
    records: Sequence[AnyRecord], versions: Collection[str], at: datetime
) -> Mapping[str, datetime]:
    """Return when each version was first heard of, as a replay of these records would say."""
    occurred = {r.key: r.occurred_at for r in records if isinstance(r, CASES)}
    first_use = dict.fromkeys(versions, at)
    for record in records:
        if isinstance(record, PREDICTIONS) and record.version in first_use:
            used_at = record.at or occurred.get(record.key, at)
            first_use[record.version] = min(first_use[record.version], used_at)
    return first_use


def _by_time(told: tuple[str, datetime]) -> tuple[datetime, str]:
    return told[1], told[0]


def noted(answer: Answer, note: str) -> Answer:
    """Return an answer with what else there is to say."""
    return Answer(answer.verdict, "; ".join(filter(None, [answer.reason, note])))


class Notes:
    """What a caller should know of an item that was kept: it may not count as they think."""

    def __init__(self, policy: Policy) -> None:
        self._sites = policy.site
        self._labels = {
            lever.id: None if lever.number is not None else frozenset({*lever.labels, None})
            for lever in policy.levers
        }

    def answers(self, records: Sequence[AnyRecord], kept: Kept) -> Sequence[Answer]:
        """Return what became of records, with what else there is to say of those accepted."""
        if not self._any_on(kept):
            return kept.answers
        record_results = zip(records, kept.answers, strict=True)
        return [
            noted(record_result, self.on(record))
            if record_result.verdict is Verdict.ACCEPTED
            else record_result
            for record, record_result in record_results
        ]

    def _any_on(self, kept: Kept) -> bool:
        """Say whether there is something to say of any of them: mostly not.

        What they answer is looked at once, however many records answer the same.
        """
        sites = {site for _, site in kept.told(Case, "site")}
        if not sites <= self._sites.keys():
            return True
        answer_rows = (
            kept.told(record_type, "answers") for record_type in (Prediction, Decision, Outcome)
        )
        answer_texts = {answers for rows in answer_rows for _, answers in rows}
        return any(self._unlisted(json.loads(answers)) for answers in answer_texts)

    def on(self, record: AnyRecord) -> str:
        """Return what else there is to say of a record that was kept; mostly nothing."""
        if isinstance(record, CASES):
            if record.site in self._sites:
                return ""
            return f"{record.site} is no site of the policy: kept, never evidence"
        return "" if isinstance(record, Action) else "; ".join(self._unlisted(record.answers))

    def _unlisted(self, answers: Mapping[str, str | None]) -> list[str]:
        notes = []
        for lever, answer in answers.items():
            labels = self._labels.get(lever, ())
            if labels == ():
                notes.append(f"the policy has no lever {lever}: kept, not counted")
            elif labels is not None and answer not in labels:
                notes.append(f"{answer} is no label of {lever}: kept, counts as a disagreement")
        return notes


AT_ONCE = 3_000  # items in one transaction: a stop waits for no more than that

RECORDS = (*LIGHT, Case, Prediction, Decision, Outcome)  # first those of which most are
Placed = tuple[int, AnyRecord]


def reader(service: Service, name: str, at: datetime) -> Reader:
    """Return what reads the items of a rollout: its windows, and the present.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    return Reader(LiveWindows(service.watch.rollout(name).standing.policy).at, at)


def receive(
    service: Service, caller: Caller, name: str, sent: Sequence[Sent], at: datetime
) -> list[Answer]:
    """Keep items and answer each, in their order.

    One bad item takes nothing from its neighbours. What can't be used is set aside with its
    reason. Items are kept in transactions of `AT_ONCE`: if one can't be done, those before it are
    kept, and sending all again answers them `duplicate`.

    Args:
        service: the replica.
        caller: who sends; where their right is for some sites, items of other sites are rejected.
        name: of the rollout.
        sent: as `reader` has read them.
        at: now.

    Raises:
        NotAllowed: the caller may send nothing here.
        UnknownRollout: there is none that the caller may see.
        StoreError: the database can't do it.
    """
    require(caller, Act.RECORD, name)
    results: list[Answer] = []
    for start in range(0, len(sent), AT_ONCE):
        results += _receive(service, caller, name, sent[start : start + AT_ONCE], at)
    return results


def _receive(
    service: Service, caller: Caller, name: str, sent: Sequence[Sent], at: datetime
) -> list[Answer]:
    state = service.watch.rollout(name).standing

    def keep() -> list[Answer]:
        with service.database.writing() as transaction:
            return _Batch(transaction, state, service, caller, at).keep(sent)

    return retried(keep)


def keep_asked(
    transaction: Transaction,
    stood: Standing,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    at: datetime,
) -> tuple[Answer, ...]:
    """Keep cases that were asked about, with the predictions that the assignments went with.

    Asking again changes nothing: the first assignment stays on the prediction. Versions are told
    by whoever asks.

    Args:
        transaction: the writing one; whoever opened it commits.
        stood: the rollout's standing that was answered from.
        cases: with their windows.
        predictions: with the assignment that was given.
        at: now.

    Returns:
        What became of each case, then of each prediction.

    Raises:
        StaleRevision: an incident had to be told, and the rollout moved on meanwhile.
    """
    records: tuple[AnyRecord, ...] = (*cases, *predictions)
    stored_batch = Store(transaction, stood.rollout).keep(records, received_at=at)
    queue(transaction, stood, stored_batch, at)
    open_reviews(transaction, stood, cases, at)
    if unauthorized := judged_again(transaction, stood, stored_batch):
        _open_incidents(transaction, stood, unauthorized, at)
    return stored_batch.answers


class _Batch:
    """One transaction's items, on their way to their answers."""

    def __init__(
        self,
        transaction: Transaction,
        stood: Standing,
        service: Service,
        caller: Caller,
        at: datetime,
    ) -> None:
        self._transaction = transaction
        self._stood = stood
        self._service = service
        self._caller = caller
        self._at = at
        self._answers: dict[int, Answer] = {}
        self._aside: list[Item] = []
        self._unsure: set[str] = set()

    def keep(self, sent: Sequence[Sent]) -> list[Answer]:
        """Keep what can be kept, and answer each item."""
        actions: list[tuple[int, Acted]] = []
        heartbeats: list[tuple[int, Heartbeat]] = []
        records: list[Placed] = [
            (position, item) for position, item in enumerate(sent) if isinstance(item, RECORDS)
        ]
        for position, item in enumerate(sent) if len(records) < len(sent) else ():
            match item:
                case Acted():
                    actions.append((position, item))
                case Heartbeat():
                    heartbeats.append((position, item))
                case Unusable():
                    self._reject(position, Item(item.kind, item.key, item.body, item.reason))
        records = self._within_rights(records, actions, heartbeats)
        records = self._of_known_versions(records)
        records = self._as_exposed(records)
        authorizations = self._judged(
            records, [(p, action) for p, action in actions if p not in self._answers]
        )
        records += [(position, authorization.action) for position, authorization in authorizations]
        stored_batch = self._keep(records)
        self._hear([(p, heartbeat) for p, heartbeat in heartbeats if p not in self._answers])
        SetAside(self._transaction, self._stood.rollout).add(self._aside, received_at=self._at)
        self._tell_of(authorizations, stored_batch)
        return [self._answers[position] for position in range(len(sent))]

    def _reject(self, place: int, item: Item) -> None:
        self._answers[place] = Answer(Verdict.REJECTED, item.reason)
        self._aside.append(item)

    # Who may send it

    def _within_rights(
        self,
        records: list[Placed],
        acted: Iterable[tuple[int, Acted]],
        heard: Iterable[tuple[int, Heartbeat]],
    ) -> list[Placed]:
        """Reject what is about sites that the caller has no right to send from."""
        rollout_name = self._stood.rollout.name
        if self._caller.may(Act.RECORD, rollout_name):
            return records
        positioned_records = [*records, *((position, item.action) for position, item in acted)]
        sites = self._sites([record for _, record in positioned_records])
        for position, record in positioned_records:
            if fault := self._forbidden(sites[record.key]):
                self._reject(position, item_of(record, fault))
        for position, heartbeat in heard:
            if fault := self._forbidden({heartbeat.site}):
                self._reject(position, Item("heartbeat", heartbeat.site, str(heartbeat), fault))
        return self._left(records)

    def _forbidden(self, sites: Collection[str]) -> str:
        if not sites:
            return "its case is not known, so neither is its site; send the case first or with it"
        rollout_name = self._stood.rollout.name
        forbidden_sites = sorted(
            site for site in sites if not self._caller.may(Act.RECORD, rollout_name, site)
        )
        return (
            f"{self._caller.name} may not send records of {', '.join(forbidden_sites)}"
            if forbidden_sites
            else ""
        )

    def _sites(self, records: Iterable[AnyRecord]) -> Mapping[str, set[str]]:
        sites_by_key: dict[str, set[str]] = {record.key: set() for record in records}
        for record in records:
            if isinstance(record, CASES):
                sites_by_key[record.key].add(record.site)
        case_ids = CallerKeys(self._transaction, self._stood.rollout).find(sites_by_key)
        stored_sites = Touched(self._transaction, self._stood.rollout).sites(case_ids.values())
        for key, case_id in case_ids.items():
            sites_by_key[key] |= stored_sites.get(case_id, set())
        return sites_by_key

    # What it says

    def _of_known_versions(self, records: list[Placed]) -> list[Placed]:
        """Tell of versions that are new; where too many are open, reject what they said."""
        batch_records = [record for _, record in records]
        refused_versions = told_of(
            self._transaction, self._service.database, self._stood, batch_records, self._at
        )
        for position, record in records if refused_versions else ():
            if isinstance(record, PREDICTIONS) and record.version in refused_versions:
                self._reject(position, item_of(record, refused_versions[record.version]))
        return self._left(records)

    def _left(self, records: list[Placed]) -> list[Placed]:
        """Return those that nothing was answered yet."""
        if not self._answers:
            return records
        return [(position, record) for position, record in records if position not in self._answers]

    def _as_exposed(self, records: list[Placed]) -> list[Placed]:
        """Give each decision the exposure that holds: what was shown here makes a claim worse."""
        has_decisions = any(isinstance(record, DECISIONS) for _, record in records)
        incoming_cases = Touched(self._transaction, self._stood.rollout)
        if not has_decisions or not incoming_cases.anything_shown():
            return records
        keys = {record.key for _, record in records if isinstance(record, DECISIONS)}
        case_ids = CallerKeys(self._transaction, self._stood.rollout).find(keys)
        shown_pages = incoming_cases.shown(case_ids.values())

        def exposed(record: AnyRecord) -> AnyRecord:
            if not isinstance(record, DECISIONS) or record.key not in case_ids:
                return record
            decision_pages = shown_pages.get((case_ids[record.key], record.reviewer), ())
            valid_exposure = exposure(ASSISTED, decision_pages, record.claims)
            if isinstance(record, SentDecision):
                return record._replace(exposure=valid_exposure)
            return replace(record, exposure=valid_exposure)

        return [(position, exposed(record)) for position, record in records]

    def _judged(
        self, records: Iterable[Placed], acted: Sequence[tuple[int, Acted]]
    ) -> list[tuple[int, Judgement]]:
        """Say of each action what permission it had."""
        if not acted:
            return []
        keys, batch_records = (
            {action.action.key for _, action in acted},
            [record for _, record in records],
        )
        cases_by_key = known_by_key(self._transaction, self._stood.rollout, keys, batch_records)
        revision_counts = Counter(
            record.key for record in batch_records if isinstance(record, CASES)
        )
        # somebody may tell of it before this is kept; of several revisions any may be refused
        self._unsure = {key for key in keys if key not in cases_by_key or revision_counts[key] > 1}
        current_state = standing_now(self._transaction, self._stood)
        authorizer = Permission(self._transaction, current_state, self._service.permits)
        return [
            (
                position,
                authorizer.judge(item.action, item.permit, cases_by_key.get(item.action.key)),
            )
            for position, item in acted
        ]

    # What is written

    def _keep(self, placed: Sequence[Placed]) -> Kept:
        positions, records = zip(*placed, strict=True) if placed else ((), ())
        stored_batch = Store(self._transaction, self._stood.rollout).keep(
            records, received_at=self._at
        )
        results = Notes(self._stood.policy).answers(records, stored_batch)
        self._answers.update(zip(positions, results, strict=True))
        queue(self._transaction, self._stood, stored_batch, self._at)
        self._seat(records, stored_batch)
        return stored_batch

    def _seat(self, records: Sequence[AnyRecord], kept: Kept) -> None:
        """Ask people about new cases, save those that came with all the verdicts they need."""
        blind_exposures = (
            {"blind", "unknown"} if self._stood.policy.evidence.outside_blind else {"blind"}
        )
        sites, required_decisions = self._stood.policy.site, self._stood.policy.evidence.verdicts
        decision_exposures = list(kept.told(Decision, "exposure"))
        blind_counts = Counter(
            case_id for case_id, exposure in decision_exposures if exposure in blind_exposures
        )
        case_ids = {case_id for case_id, site in kept.told(Case, "site") if site in sites}
        asked_case_ids = {
            case_id
            for case_id in case_ids
            if blind_counts[case_id] < required_decisions or case_id not in kept.new
        }
        if asked_case_ids:
            self._ask(asked_case_ids, records, kept)
        newly_decided = {case_id for case_id, _ in decision_exposures} - case_ids
        if newly_decided:
            answered_elsewhere(self._transaction, self._stood, newly_decided, self._at)

    def _ask(self, asked: AbstractSet[int], records: Sequence[AnyRecord], kept: Kept) -> None:
        sites, case_ids = self._stood.policy.site, kept.case_ids
        records_by_case: dict[int, AnyCase] = {}
        for record, result in zip(records, kept.answers, strict=True):
            if result.verdict is Verdict.ACCEPTED and isinstance(record, CASES):
                case_id = case_ids[record.key]
                if case_id in asked and record.site in sites:
                    records_by_case[case_id] = record
        cases = [case_of(case) for case in records_by_case.values()]
        open_reviews(self._transaction, self._stood, cases, self._at)

    def _hear(self, heard: Iterable[tuple[int, Heartbeat]]) -> None:
        record_store = Store(self._transaction, self._stood.rollout)
        for position, heartbeat in heard:
            self._answers[position] = record_store.hear(heartbeat, received_at=self._at)

    def _tell_of(self, judged: Iterable[tuple[int, Judgement]], kept: Kept) -> None:
        """Open an incident for each case on which the model acted without permission."""
        unauthorized: list[Judgement] = []
        for position, authorization in judged:
            result, action = self._answers[position], authorization.action
            if result.verdict is Verdict.ACCEPTED and action.permission == UNPERMITTED:
                self._answers[position] = Answer(
                    Verdict.ACCEPTED, f"unpermitted: {authorization.why}"
                )
                unauthorized.append(authorization)
        unauthorized += judged_again(self._transaction, self._stood, kept, self._unsure)
        if unauthorized:
            _open_incidents(self._transaction, self._stood, unauthorized, self._at)


def _open_incidents(
    transaction: Transaction, stood: Standing, wrong: Sequence[Judgement], at: datetime
) -> None:
    """Open them all in one append: who lies thousands of times holds up no stop."""
    cases_by_key = known_by_key(
        transaction, stood.rollout, {authorization.action.key for authorization in wrong}
    )
    current_state, events = standing(transaction, stood.rollout.name), list[Event]()
    last_revision = current_state.scope.revision
    for authorization in wrong:
        incident = _incident(authorization, cases_by_key.get(authorization.action.key), stood, at)
        incident_events = decided(current_state, _asking(incident))
        events += incident_events
        current_state = (
            replace(current_state, scope=fold(incident_events, current_state.scope))
            if incident_events
            else current_state
        )
    Ledger(transaction, current_state.rollout).append(events, after=last_revision)


def _incident(
    judgement: Judgement, known: Known | None, stood: Standing, at: datetime
) -> OpenIncident:
    """Say what is wrong and not what was done: who may still judge the case reads it too."""
    action = judgement.action
    cell = None if known is None else Cell(known.case.site, known.case.window)
    return OpenIncident(
        at=at,
        kind=UNAUTHORIZED,
        reason=f"{action.version} acted on {action.key}: {judgement.why}",
        cell=cell if cell in stood.policy.known else None,
        version=action.version or "",
        about=action.key,
    )


def _asking(incident: OpenIncident) -> Asked:
    return lambda _: incident

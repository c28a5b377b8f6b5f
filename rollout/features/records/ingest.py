"""Ingest what clients send: each item stored once, answered, and queued for counting.

A batch is one transaction: records, count queue, review tasks, rejected records and incidents are
stored together or not at all. Sending again is safe, because clients choose the keys.

Decisions in the name of a model are found before they are stored.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from typing import Final, cast

from msgspec import structs

from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.external_keys import (
    ExternalKeys,
    find_role_holders,
    hold_off_erasures,
)
from rollout.data.records.incoming_cases import IncomingCase, IncomingCases, PlantedCases
from rollout.data.records.record_check import build_basis, list_pages
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import (
    RecordReceipt,
    RecordStatus,
    RecordStore,
    RejectedRecords,
    StoredBatch,
    build_rejected_record,
    load_batch_facts,
)
from rollout.data.records.versions import VersionStore
from rollout.engine.decide.assignment import describe_taken_name
from rollout.engine.decide.permissions import (
    REVIEWER,
    ROLES_BY_PERMISSION,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.files.parse import (
    ActionWithPermit,
    DeclaringPrediction,
    ItemReader,
    PlacedDecision,
    SentItem,
)
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    Record,
    RecordT,
    RejectedItem,
    is_registered,
    mark_unregistered,
    select_kind,
)
from rollout.engine.records.reviews import (
    ASSISTED,
    REVEALING_CONTENT,
    compute_exposure,
    find_reviewer_fault,
    find_worst_exposure,
    fold_name,
)
from rollout.engine.words.evidence_text import describe_late_cases
from rollout.features.records.action_authorization import (
    AuthorizationResult,
    ClaimBatch,
    authorize_actions,
)
from rollout.features.records.decision_places import DecisionPlaces, describe_missing_case
from rollout.features.records.record_notes import (
    RecordNotes,
    add_draws,
    add_note,
    find_late_arrivals,
    open_reviews,
    open_reviews_of_batch,
)
from rollout.features.records.unauthorized_actions import (
    report_clock_ahead,
    report_unauthorized_actions,
)
from rollout.kernel.policy.evidence_sources import UNNAMED
from rollout.kernel.units import describe_unknown_outcome
from rollout.kernel.words import say_cause
from rollout.live.evidence.unit_counting import WindowLookup, load_case_facts, queue_new_cases
from rollout.live.rollout_state import RolloutState, retry_on_stale_revision
from rollout.live.service import PermitSigner, Service
from rollout.live.versions import record_contents, record_new_versions

SPEAKS_FOR_USER: Final = (
    "{0} reviews here, and the policy does not name the account that sent this as a source of {0}'s"
    " decisions (`evidence.sources`): name it, or let {0} decide here"
)


def find_reviewer_faults(
    transaction: Transaction,
    state: RolloutState,
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
    names = {*state.versions, *state.scope.versions, *new_versions}
    if version_count not in {None, len(state.versions)}:
        names |= VersionStore(transaction, state.rollout).list_names()
    versions = frozenset(map(fold_name, names))
    access_head = None if sender is None else sender.access_head
    roles = find_role_holders(transaction, state.rollout, access_head)
    accounts = {name for name, role in roles.items() if role != REVIEWER}
    if (
        sender is not None
        and sender.is_service_account
        and sender.has_permission_somewhere(Permission.SEND_PREDICTIONS, state.rollout.name)
    ):
        accounts |= {sender.name}
    faults = {name: find_reviewer_fault(name, versions, accounts) for name in reviewers}
    if sender is not None:  # who decided a case is not asked: anybody could keep it from them
        people = {*map(fold_name, roles.keys() - accounts - {sender.name})}
        faults |= {
            name: SPEAKS_FOR_USER.format(name)
            for name in reviewers
            if fold_name(name) in people
            and state.policy.evidence.find_account_kind(sender.name, name) == UNNAMED
        }
    return {name: fault for name, fault in faults.items() if fault}


ITEMS_PER_TRANSACTION = 3_000  # which may delay a stop
SILENT_SCHEMAS = frozenset({RECORD_SCHEMAS[Case], RECORD_SCHEMAS[Prediction]})


def build_reader(service: Service, rollout_name: str, at: datetime) -> ItemReader:
    """Return a reader of items, for a rollout's windows and `at`.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    policy = service.state_cache.load_rollout(rollout_name).state.policy
    return ItemReader(WindowLookup(policy).find_window, at, policy.set_labels)


def ingest_items(
    service: Service, caller: Caller, rollout_name: str, items: Sequence[SentItem], at: datetime
) -> list[RecordReceipt]:
    """Store items of `build_reader`; return their receipts in order.

    An invalid item does not affect the others; it is stored as a rejected record. Items of sites
    where the caller has no permission are rejected. If a transaction fails, those before it are
    stored, and their items return `duplicate` when all are sent again. The order of items does not
    matter.

    Raises:
        NotAllowedError: the caller may not send records.
        UnknownRolloutError: the caller sees no such rollout.
        StoreError: the database failed.
    """
    require_permission(caller, Permission.SEND_RECORDS, rollout_name)
    if len(items) <= ITEMS_PER_TRANSACTION:
        return _ingest_chunk(service, caller, rollout_name, items, at)
    receipts: list[RecordReceipt] = []
    # actions last: they are judged by what is stored
    order = sorted(range(len(items)), key=lambda n: isinstance(items[n], ActionWithPermit))
    for start in range(0, len(items), ITEMS_PER_TRANSACTION):
        chunk = [items[index] for index in order[start : start + ITEMS_PER_TRANSACTION]]
        receipts += _ingest_chunk(service, caller, rollout_name, chunk, at)
    receipts_by_index = dict(zip(order, receipts, strict=True))
    return [receipts_by_index[index] for index in range(len(items))]


def _ingest_chunk(
    service: Service, caller: Caller, rollout_name: str, items: Sequence[SentItem], at: datetime
) -> list[RecordReceipt]:
    state = service.state_cache.load_rollout(rollout_name).state

    def _store_chunk() -> list[RecordReceipt]:
        with service.database.begin_write() as transaction:
            hold_off_erasures(transaction, state.rollout)
            facts = load_batch_facts(transaction, state.rollout, caller.name)
            batch = _Batch(transaction, state, items, at)
            batch.mark_cases(caller.name)
            batch.reject_forbidden(caller)
            batch.place_decisions()
            batch.record_versions(service.database)
            batch.check_contents()
            batch.reject_wrong_values()
            batch.reject_model_reviewers(caller, facts.versions)
            batch.set_assignments()
            if facts.has_exposures:  # many review elsewhere
                batch.set_exposures(caller.name)
            batch.set_sources(caller.name)
            sender = facts.sender or Accounts(transaction).add_id(caller.name)
            batch.store(sender, service.permit_signer, facts.erased_kinds)
            return batch.list_receipts()

    return retry_on_stale_revision(_store_chunk)


def store_asked_cases(
    transaction: Transaction,
    state: RolloutState,
    sender_name: str,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    at: datetime,
) -> tuple[RecordReceipt, ...]:
    """Store the cases and predictions of questions; return their receipts, cases first.

    Predictions hold their assignment. Repeating it is safe: the first assignment stays. The caller
    records new versions.

    Raises:
        StaleRevisionError: the ledger moved before an incident was appended.
    """
    sources = state.policy.evidence.sources
    if not sources.registers(sender_name):
        cases = [mark_unregistered(case) for case in cases]
    records: tuple[Record, ...] = (*cases, *predictions)
    sender = Accounts(transaction).add_id(sender_name)
    stored_batch = RecordStore(transaction, state.rollout).store(
        records,
        received_at=at,
        sender=sender,
        vouched=sources.vouched.get(sender_name),
        draw_case=state.draw_case,
    )
    queue_new_cases(transaction, state, stored_batch, at)
    open_reviews(transaction, state, cases, at, stored_batch.new_cases)
    report_unauthorized_actions(transaction, state, stored_batch, at)
    return stored_batch.results


class _Batch:
    """The items of one transaction, on their way to their receipts.

    The steps are called in their order; each passes on the items that it does not reject.
    """

    def __init__(
        self, transaction: Transaction, state: RolloutState, items: Sequence[SentItem], at: datetime
    ) -> None:
        self._transaction, self._state, self._at = transaction, state, at
        self._item_count = len(items)
        self._receipts: dict[int, RecordReceipt] = {}
        self._rejected: list[RejectedItem] = []
        self._records: dict[type[Record], dict[int, Record]] = {kind: {} for kind in RECORD_FIELDS}
        self._actions: list[tuple[int, ActionWithPermit]] = []
        self._heartbeats: list[tuple[int, Heartbeat]] = []
        self._contents: dict[int, str] = {}
        self._placed: dict[str, PlacedDecision] = {}
        self._placed_cases: Sequence[Case] = ()
        self._claims = ClaimBatch()
        self._sender_name = ""
        self._vouched: timedelta | None = None
        self._authorizations: list[tuple[int, AuthorizationResult]] = []
        for position, item in enumerate(items):
            records = self._records.get(type(item))  # type: ignore[arg-type]
            if records is not None:
                records[position] = cast("Record", item)
            else:
                self._add_other_item(position, item)

    def _add_other_item(self, position: int, item: SentItem) -> None:
        match item:
            case ActionWithPermit():
                self._actions.append((position, item))
            case DeclaringPrediction():
                self._records[Prediction][position] = item.prediction
                self._contents |= {position: item.content} if item.content else {}
                self._claims.add(position, item.claim)
            case PlacedDecision():
                self._records[Decision][position] = item.decision
                self._placed.setdefault(item.decision.key, item)
            case Heartbeat():
                self._heartbeats.append((position, item))
            case RejectedItem():
                self._reject(position, item)

    def list_receipts(self) -> list[RecordReceipt]:
        """Return the receipts of all items, in their order."""
        return [self._receipts[position] for position in range(self._item_count)]

    def _reject(self, position: int, item: RejectedItem) -> None:
        self._receipts[position] = RecordReceipt(RecordStatus.REJECTED, item.reason)
        self._rejected.append(item)

    def _drop_rejected(self) -> None:
        done = self._receipts
        if not done:
            return
        for records in self._records.values():
            for position in records.keys() & done.keys():
                del records[position]
        self._actions = [item for item in self._actions if item[0] not in done]
        self._heartbeats = [item for item in self._heartbeats if item[0] not in done]

    @cached_property
    def _stored_case_ids(self) -> Mapping[str, int]:
        """Return the numbers of the cases that were stored before this batch."""
        keys = {record.key for records in self._records.values() for record in records.values()}
        keys |= {item.action.key for _, item in self._actions}
        return ExternalKeys(self._transaction, self._state.rollout).find_ids(keys)

    # Permissions

    def reject_forbidden(self, caller: Caller) -> None:
        """Reject items of sites where the caller may not send records."""
        rollout_name = self._state.rollout.name
        if self._has_all_permissions(caller):
            return
        actions = ((position, item.action) for position, item in self._actions)
        records = [*self._list_records(), *actions]
        sites = self._find_sites([record for _, record in records])
        find_fault = partial(_find_permission_fault, caller, rollout_name)
        for position, record in records:
            if fault := find_fault(record.needs, sites[record.key]):
                self._reject(position, build_rejected_record(record, fault))
        for position, heartbeat in self._heartbeats:
            if fault := find_fault(Permission.SEND_CASES, {heartbeat.site}):
                rejected = RejectedItem("heartbeat", heartbeat.site, str(heartbeat), fault)
                self._reject(position, rejected)
        self._drop_rejected()

    def _has_all_permissions(self, caller: Caller) -> bool:
        """Return whether the caller may send all kinds of the batch at all sites."""
        needed = {kind.needs for kind, records in self._records.items() if records}
        needed |= {Action.needs} if self._actions else set()
        needed |= {Permission.SEND_CASES} if self._heartbeats else set()
        rollout_name = self._state.rollout.name
        return all(caller.has_permission(permission, rollout_name) for permission in needed)

    def _find_sites(self, records: Sequence[Record]) -> Mapping[str, set[str]]:
        """Return the sites of each case, in any revision stored or sent."""
        sites_by_key: dict[str, set[str]] = {record.key: set() for record in records}
        for case in select_kind(records, Case):
            sites_by_key[case.key].add(case.site)
        for key, placed in self._placed.items():
            sites_by_key[key].add(placed.site)
        case_ids = self._stored_case_ids
        stored_sites = IncomingCases(self._transaction, self._state.rollout).load_sites(
            case_ids.values()
        )
        for key, case_id in case_ids.items():
            sites_by_key[key] |= stored_sites.get(case_id, set())
        return sites_by_key

    # Content

    def mark_cases(self, sender_name: str) -> None:
        """Mark cases as unregistered, if the policy in force says so of their sender."""
        if self._state.policy.evidence.sources.registers(sender_name):
            return
        self._change(Case, mark_unregistered)

    def place_decisions(self) -> None:
        """Reject decisions whose case and site nobody knows; keep the places that others name."""
        decided = self._list_decided_keys()
        sent = [case for case in self._select(Case).values() if is_registered(case.revision)]
        unsent = decided.difference([case.key for case in sent])
        if not unsent and not self._placed:
            return
        placing = DecisionPlaces(self._transaction, self._state, self._at)
        case_ids = {k: n for k, n in self._stored_case_ids.items() if k in decided}
        stored = placing.load(case_ids, sent)
        faults = {key: placing.find_fault(placed) for key, placed in self._placed.items()}
        missing = describe_missing_case(self._state.policy.evidence.sources)
        faults |= dict.fromkeys(unsent - stored.keys() - faults.keys(), missing)
        placed_decisions = [placed for key, placed in self._placed.items() if not faults[key]]
        self._placed_cases = placing.list_cases(placed_decisions, stored)
        for position, decision in self._select(Decision).items():
            if fault := faults.get(decision.key):
                self._reject(position, build_rejected_record(decision, fault, is_placeless=True))
        self._drop_rejected()

    def _list_decided_keys(self) -> set[str]:
        return {decision.key for decision in self._select(Decision).values()}

    def _select(self, kind: type[RecordT]) -> Mapping[int, RecordT]:
        """Return the records of one kind by position."""
        return cast("Mapping[int, RecordT]", self._records[kind])

    def _list_records(self) -> list[tuple[int, Record]]:
        """Return all records with their positions, in order."""
        by_position: dict[int, Record] = {}
        for records in self._records.values():
            by_position |= records
        return [(n, by_position[n]) for n in range(self._item_count) if n in by_position]

    def _change(self, kind: type[RecordT], change: Callable[[RecordT], RecordT]) -> None:
        self._records[kind] = {n: change(record) for n, record in self._select(kind).items()}

    def record_versions(self, database: Database) -> None:
        """Record new versions; reject predictions beyond the limit of open versions."""
        records = [*self._select(Case).values(), *self._select(Prediction).values()]
        declared_contents = {
            record.version: content
            for _, record, content in reversed(self._list_predictions())
            if content
        }
        contents = {**declared_contents, **self._state.policy.contents_by_version}
        refused_versions = record_new_versions(
            self._transaction, database, self._state, records, self._at, contents
        )
        if not refused_versions:
            return
        for position, prediction in self._select(Prediction).items():
            if fault := refused_versions.get(prediction.version):
                self._reject(position, build_rejected_record(prediction, fault))
        self._drop_rejected()

    def check_contents(self) -> None:
        """Store the contents of new versions; reject predictions of another content."""
        sent_predictions = self._list_predictions()
        sent_versions = [(record.version, content) for _, record, content in sent_predictions]
        check = record_contents(self._transaction, self._state, sent_versions, self._at)
        for position, record, content in sent_predictions:
            if fault := check(record.version, content):
                self._reject(position, build_rejected_record(record, fault))
        self._drop_rejected()

    def reject_wrong_values(self) -> None:
        """Reject outcomes with a value that the policy has no outcome for, and span names.

        An episode called as a clock span is called would join all cases of its site and time.
        """
        for position, case in self._select(Case).items():
            fault = describe_taken_name(self._state.policy, case.episode)
            if fault:
                self._reject(position, build_rejected_record(case, fault))
        known_ids = [outcome.id for outcome in self._state.policy.outcomes]
        for position, outcome in self._select(Outcome).items():
            if unknown_ids := outcome.values.keys() - set(known_ids):
                fault = describe_unknown_outcome(min(unknown_ids), known_ids)
                self._reject(position, build_rejected_record(outcome, fault))
        self._drop_rejected()

    def reject_model_reviewers(self, caller: Caller, version_count: int) -> None:
        """Reject decisions in the name of a version or of an account that sends predictions."""
        decisions = self._select(Decision)
        if not decisions:
            return
        versions = {prediction.version for prediction in self._select(Prediction).values()}
        faults = find_reviewer_faults(
            self._transaction, self._state, decisions.values(), versions, caller, version_count
        )
        for position, decision in decisions.items() if faults else ():
            if fault := faults.get(decision.reviewer):
                self._reject(position, build_rejected_record(decision, fault))
        self._drop_rejected()

    def _list_predictions(self) -> list[tuple[int, Prediction, str]]:
        """Return position, prediction and declared content ("" for none), if any is declared."""
        if not self._contents and not self._state.policy.contents_by_version:
            return []
        return [
            (position, prediction, self._contents.get(position, ""))
            for position, prediction in self._select(Prediction).items()
        ]

    def set_assignments(self) -> None:
        """Set the assignments that offline clients made, where they were the right ones."""
        self._records[Prediction] |= self._claims.apply(
            self._transaction,
            self._state,
            self._select(Case),
            self._select(Prediction),
            lambda: self._stored_case_ids,
        )

    def set_exposures(self, sender_name: str) -> None:
        """Set each decision's exposure: what was shown here limits the claim.

        Letter case and outer blanks make no other reviewer, as for versions. What its sender was
        shown may have reached the reviewer: it is at least assisted.
        """
        keys = self._list_decided_keys()
        if not keys:
            return
        case_ids = {key: self._stored_case_ids[key] for key in keys & self._stored_case_ids.keys()}
        # who declared a case as planted knows it before it comes
        case_ids |= PlantedCases(self._transaction, self._state.rollout).find(
            keys - case_ids.keys()
        )
        entries = IncomingCases(self._transaction, self._state.rollout).load_exposures(
            case_ids.values()
        )

        def _set_exposure(decision: Decision) -> Decision:
            case_id = case_ids.get(decision.key)
            if case_id is None:
                return decision
            own_entries = entries.get((case_id, fold_name(decision.reviewer)), set())
            exposure = compute_exposure(ASSISTED, list_pages(own_entries), decision.claims)
            sender_entries = entries.get((case_id, fold_name(sender_name)), set())
            if any(entry.content in REVEALING_CONTENT for entry in sender_entries):
                exposure = find_worst_exposure(exposure, ASSISTED)
            basis = build_basis(own_entries | sender_entries)
            return structs.replace(decision, exposure=exposure, basis=basis)

        self._change(Decision, _set_exposure)

    def set_sources(self, sender_name: str) -> None:
        """Set what the policy in force says of the sender.

        That is the kind of each decision's and outcome's source, and how long what it sends counts
        as sent before the decision.
        """
        evidence = self._state.policy.evidence
        self._sender_name = sender_name
        self._vouched = evidence.sources.vouched.get(sender_name)
        find_kind = cache(partial(evidence.find_account_kind, sender_name))
        outcome_kind = evidence.sources.find_outcome_kind(sender_name)
        self._change(Decision, lambda each: each.with_source(find_kind(each.reviewer)))
        self._change(Outcome, lambda each: each.with_source(outcome_kind))

    # Writes

    def store(
        self,
        sender: str,
        permit_signer: PermitSigner,
        erased_kinds: Collection[str] | None = None,
    ) -> None:
        """Store all items of a sender; open their review tasks and incidents."""
        transaction, state, at = self._transaction, self._state, self._at
        record_store = RecordStore(transaction, state.rollout)
        action_keys = {item.action.key for _, item in self._actions}
        listed = self._list_records()
        records = [record for _, record in listed]
        decided_keys = self._list_decided_keys() if self._placed_cases else ()
        placed_cases = [case for case in self._placed_cases if case.key in decided_keys]
        stored_batch = record_store.store(
            [*records, *placed_cases],
            received_at=at,
            sender=sender,
            vouched=self._vouched,
            draw_case=state.draw_case,
            locked_keys=action_keys,
            erased_kinds=erased_kinds,
        )
        stored_batch = replace(stored_batch, results=stored_batch.results[: len(records)])
        if self._actions:  # judged by what is stored now, whatever the order of the items
            self._authorize_actions(permit_signer, stored_batch)
            actions = [result.action for _, result in self._authorizations]
            stored_batch = stored_batch.merge(
                record_store.store(actions, received_at=at, sender=sender)
            )
            records += actions
        positions = [position for position, _ in (*listed, *self._authorizations)]
        notes = RecordNotes(state.policy)
        receipts = notes.add_notes(records, stored_batch)
        if state.policy.samples_by_version:
            case_ids = stored_batch.case_ids.values()
            draws = IncomingCases(transaction, state.rollout).load_draws(case_ids)
            receipts = add_draws(state, records, receipts, stored_batch.case_ids, draws)
        self._receipts.update(zip(positions, receipts, strict=True))
        self._rejected += self._claims.note_faults(self._select(Prediction), self._receipts)
        case_facts = queue_new_cases(transaction, state, stored_batch, at)
        self._note_late_arrivals(positions, records, stored_batch, case_facts)
        open_reviews_of_batch(transaction, state, records, stored_batch, at)
        for position, heartbeat in self._heartbeats:
            self._receipts[position] = record_store.store_heartbeat(
                heartbeat, received_at=at, note=notes.find_note(heartbeat)
            )
        RejectedRecords(transaction, state.rollout).add(self._rejected, received_at=at)
        self._report_actions(stored_batch)

    def _note_late_arrivals(
        self,
        positions: Sequence[int],
        records: Sequence[Record],
        stored_batch: StoredBatch,
        case_facts: Mapping[int, IncomingCase],
    ) -> None:
        """Say on the first record that came after a decision what its sender looks like."""
        if stored_batch.columns.keys().isdisjoint(SILENT_SCHEMAS):
            return
        if not case_facts:  # units that are episodes
            incoming_cases = IncomingCases(self._transaction, self._state.rollout)
            case_facts = load_case_facts(incoming_cases, stored_batch)
        late = find_late_arrivals(
            records, stored_batch, case_facts, (self._sender_name, self._vouched), self._at
        )
        if late is not None:
            position = positions[late[0]]
            note = describe_late_cases(late[1])
            self._receipts[position] = add_note(self._receipts[position], note)

    def _authorize_actions(self, permit_signer: PermitSigner, stored_batch: StoredBatch) -> None:
        positions, items = zip(*self._actions, strict=True)
        results = authorize_actions(
            self._transaction, self._state, permit_signer, items, stored_batch.case_ids, self._at
        )
        self._authorizations = list(zip(positions, results, strict=True))

    def _report_actions(self, stored_batch: StoredBatch) -> None:
        """Open incidents about what was done without authorization, or dated ahead."""
        unauthorized: list[AuthorizationResult] = []
        accepted = [
            (position, result)
            for position, result in self._authorizations
            if self._receipts[position].status is RecordStatus.ACCEPTED
        ]
        for position, result in accepted:
            if result.trigger is not None:
                note = f"unpermitted: {say_cause('', result.trigger)}"
                self._receipts[position] = RecordReceipt(RecordStatus.ACCEPTED, note)
                unauthorized.append(result)
        report_unauthorized_actions(
            self._transaction,
            self._state,
            stored_batch,
            self._at,
            unauthorized=unauthorized,
        )
        actions = [result.action for _, result in accepted]
        report_clock_ahead(self._transaction, self._state, self._sender_name, actions, self._at)


def _find_permission_fault(
    caller: Caller, rollout_name: str, needed: Permission, sites: Collection[str]
) -> str:
    if caller.has_permission(needed, rollout_name):
        return ""
    if not caller.has_permission_somewhere(needed, rollout_name):
        roles = " or ".join(sorted(ROLES_BY_PERMISSION[needed]))
        return f"{caller.name} may not {needed.value}; it needs the role {roles}: ask an admin"
    if not sites:
        return "its case is not known, so neither is its site; send the case first or with it"
    forbidden_sites = sorted(
        site for site in sites if not caller.has_permission(needed, rollout_name, site)
    )
    if not forbidden_sites:
        return ""
    return f"{caller.name} may not {needed.value} of {', '.join(forbidden_sites)}"

"""Who decides a case: asked for each, or taken along as a snapshot for a lease.

Questions are answered from memory if possible; in doubt, humans decide. If a question holds a
prediction, case and prediction are stored before the answer is sent.

Clients return ledger heads, so that the service sees whether its ledger is the one that they know.
A head that the ledger holds is no doubt. A head of an earlier era was lost in a restore that people
know of. Any other head that this service gave out proves that the ledger was set back: every cell
is stopped. A head without a right code proves nothing, so humans decide for that client only. From
a caller who only reads, it changes nothing: nobody decides by what they get.

A snapshot is the scope and policy that clients use to decide locally for a lease. A caller who may
request assignments at all sites of the snapshot also gets the salt, to compute sampling values, and
a permit for each site, to return with actions. A lease is a duration that starts before the request
was sent. Snapshots of the past have neither.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from rollout import faults
from rollout.data.access.tokens import PermitKey
from rollout.data.database.append_failures import StoreError, is_storage_failure
from rollout.data.database.rollouts import PolicyTexts, list_rollout_names
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.records import RecordReceipt
from rollout.data.records.versions import StoredVersion, VersionStore, build_version_info
from rollout.engine.decide.assignment import (
    BOUND,
    UNBOUND,
    Assignment,
    CaseQuestion,
    Permit,
    build_permit_text,
    decide_assignment,
    sign_permits,
)
from rollout.engine.decide.assignment_table import IssuedHead, sign_head
from rollout.engine.decide.commands import OpenIncident, StopAfterRollback
from rollout.engine.decide.incident_kinds import LEDGER_ROLLED_BACK
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.scope import FIRST_ERA, CellState, Scope, format_revision
from rollout.features.assignments.question_records import (
    PeopleDecideError,
    RecordableQuestion,
    find_content_faults,
    find_sampled,
    list_declared_contents,
    load_draws,
    record_questions,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError
from rollout.kernel.facts import LOST_HEAD, UNKNOWN_HEAD, Trigger
from rollout.kernel.policy.policy import Policy
from rollout.live.autonomy import DAMAGED
from rollout.live.rollout_state import (
    NoSuchRolloutError,
    RolloutState,
    execute_command,
    parse_stored_policy,
)
from rollout.live.service import Service
from rollout.live.state_cache import CachedRollout, SharedAssignment
from rollout.live.versions import find_name_faults, select_usable_names

LEDGER_LACKS_HEAD: Final = (
    "the ledger lacks the row that you have seen: it was set back; humans decide"
)


@dataclass(frozen=True, slots=True)
class ClientHead:
    """Revision and hash of the newest ledger entry a client knows.

    `code` came with them from the service, "" from clients that send none.
    """

    revision: int
    hash: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class CodedHead(IssuedHead):
    """A ledger head with its code for the client to return."""

    code: str


NO_HEAD: Final = CodedHead("", FIRST_ERA, 0, "", "")
"""The head of an answer without a confirmed ledger."""


def code_head(cached_rollout: CachedRollout, key: PermitKey) -> CodedHead:
    """Return the rollout's head with a code by `key`."""
    scope, head = cached_rollout.state.scope, cached_rollout.head
    rollout_name = cached_rollout.state.rollout.name
    return _build_head(rollout_name, scope.era, head.revision, head.hash, key.secret, key.number)


@lru_cache(maxsize=1_024)  # heads change less often than clients ask
def _build_head(
    rollout_name: str, era: int, revision: int, row_hash: str, secret: bytes, key_number: int
) -> CodedHead:
    code = sign_head(IssuedHead(rollout_name, era, revision, row_hash), secret, key_number)
    return CodedHead(rollout_name, era, revision, row_hash, code)


def has_client_head(cached_rollout: CachedRollout, client_head: ClientHead | None) -> bool:
    """Return whether the ledger holds the client's head; True without one."""
    return client_head is None or cached_rollout.has_row(client_head.revision, client_head.hash)


def load_confirmed_rollout(
    service: Service, rollout_name: str, client_head: ClientHead | None
) -> CachedRollout:
    """Return the rollout; load it again if it lacks the client's head."""
    cached_rollout = service.state_cache.load_rollout(rollout_name)
    if has_client_head(cached_rollout, client_head):
        return cached_rollout
    return service.state_cache.reload_rollout(rollout_name)


def find_head_doubt(
    service: Service, cached_rollout: CachedRollout, caller: Caller, client_head: ClientHead | None
) -> str:
    """Return why humans decide for this client, or "".

    Opens an incident about a head that the ledger lacks, and stops every cell if this service gave
    it out in the current era or a later one. Callers who only read open none with a head that
    proves nothing.
    """
    if client_head is None or has_client_head(cached_rollout, client_head):
        return ""
    rollout_name, era = cached_rollout.state.rollout.name, None
    with suppress(StoreError):
        era = service.permit_signer.read_head_era(
            client_head.code, rollout_name, client_head.revision, client_head.hash
        )
    if era is not None and era < cached_rollout.state.scope.era:
        return ""
    if era is None and not caller.has_permission_somewhere(
        Permission.REQUEST_ASSIGNMENT, rollout_name
    ):
        return LEDGER_LACKS_HEAD
    at = service.clock.now()
    with suppress(StoreError, RefusalError):  # the answer stays `human`
        if era is None:
            incident = _build_incident(at, caller, client_head)
            service.incident_opener.open_or_count(rollout_name, incident, caller.name)
        else:
            stop = _build_stop(at, caller, client_head, era)
            execute_command(service.database, rollout_name, lambda _: stop)
    if era is not None:
        service.state_cache.invalidate(rollout_name)
    return LEDGER_LACKS_HEAD


def _build_incident(at: datetime, caller: Caller, client_head: ClientHead) -> OpenIncident:
    return OpenIncident(
        at=at,
        kind=LEDGER_ROLLED_BACK.name,
        about=caller.name,
        trigger=Trigger(UNKNOWN_HEAD, {"revision": client_head.revision}),
    )


def _build_stop(
    at: datetime, caller: Caller, client_head: ClientHead, era: int
) -> StopAfterRollback:
    return StopAfterRollback(
        at=at,
        era=era,
        about=caller.name,
        trigger=Trigger(LOST_HEAD, {"revision": format_revision(era, client_head.revision)}),
    )


CLOCK_SKEW: Final = (
    "this replica's clock is too far off the database's: humans decide until it agrees"
)
DATABASE_UNAVAILABLE: Final = "the database can't be asked, so nothing is certain: humans decide"
EMPTY_QUESTION: Final = CaseQuestion("", None, "", "")
TWO_CONFIDENCES: Final = (
    "`confidence` is not that of `prediction`: humans decide; send one, or the same twice"
)
UNKNOWN_ROLLOUT: Final = "no rollout of that name: humans decide"


@dataclass(frozen=True, slots=True)
class AssignmentAnswers:
    """Answers to questions, in their order.

    Attributes:
        permits: what a client returns with the action; None without a confirmed state.
        recorded: the status of case and prediction; None if the question held none.
        draws: whether the sample of the question's version has the case; None if it has none, or
            nobody has drawn it.
        head: the ledger entry that the answers are based on, with its code.
        at: when they were given.
    """

    assignments: Sequence[SharedAssignment]
    permits: Sequence[str | None]
    recorded: Sequence[RecordReceipt | None]
    draws: Sequence[bool | None]
    head: CodedHead
    at: datetime


def answer_from_memory(
    service: Service,
    caller: Caller,
    rollout_name: str,
    questions: Sequence[RecordableQuestion],
    client_head: ClientHead | None,
) -> AssignmentAnswers | None:
    """Answer from the in-memory state; return None if the database is needed.

    Raises:
        UnknownRolloutError: the caller has no permission in the rollout.
        NotAllowedError: the caller may not request assignments for one of the sites.
    """
    _require_ask_permission(caller, rollout_name, questions)
    cached_rollout = service.state_cache.find_cached(rollout_name)
    key = service.permit_signer.find_cached_key()
    if cached_rollout is None or key is None or service.state_cache.is_clock_skewed:
        return None
    if cached_rollout.safety_rows.damages or service.autonomy.find_doubt(rollout_name):
        return None
    if not has_client_head(cached_rollout, client_head):
        return None
    versions = cached_rollout.state.versions
    if not versions.keys() >= {question.version for question in questions}:
        return None
    has_predictions = True in [question.has_prediction for question in questions]
    state = cached_rollout.state
    if has_predictions or find_sampled(state, questions) or find_content_faults(state, questions):
        return None
    now = service.clock.now()
    return _build_answers(
        cached_rollout,
        cached_rollout.assignment_cache.assign_questions(questions, now),
        questions,
        key,
        now,
    )


def answer_questions(
    service: Service,
    caller: Caller,
    rollout_name: str,
    questions: Sequence[RecordableQuestion],
    client_head: ClientHead | None,
) -> AssignmentAnswers:
    """Answer who decides each case, and store the predictions in questions.

    Unknown rollouts get `human`, and so do clients whose head the ledger lacks
    (`rollout.features.assignments.assignments`).

    Raises:
        UnknownRolloutError: the caller has no permission in the rollout.
        NotAllowedError: the caller may not request assignments for one of the sites.
        StoreError: case and prediction could not be stored; there is no answer.
    """
    _require_ask_permission(caller, rollout_name, questions)
    try:
        cached_rollout = _record_new_versions(
            service, load_confirmed_rollout(service, rollout_name, client_head), questions
        )
        key = service.permit_signer.load_signing_key()
    except NoSuchRolloutError:
        return assign_all_to_humans(questions, UNKNOWN_ROLLOUT, service.clock.now())
    except Exception as error:
        if not is_storage_failure(error) or any(question.has_prediction for question in questions):
            raise
        return assign_all_to_humans(questions, DATABASE_UNAVAILABLE, service.clock.now())
    faults.reach_point("assign.read")
    doubt_reason = find_head_doubt(service, cached_rollout, caller, client_head)
    doubt_reason = doubt_reason or find_replica_doubt(service, cached_rollout)
    return _answer_and_store(service, caller, cached_rollout, questions, key, doubt_reason)


def load_rollout_names(service: Service, caller: Caller) -> tuple[str, ...]:
    """Return the rollouts where the caller may request assignments, by name."""
    rollout_names = sorted(list_rollout_names(service.database))
    return tuple(
        rollout_name
        for rollout_name in rollout_names
        if caller.has_permission_somewhere(Permission.REQUEST_ASSIGNMENT, rollout_name)
    )


def _require_ask_permission(
    caller: Caller, rollout_name: str, questions: Sequence[RecordableQuestion]
) -> None:
    # most callers have it at all sites, which is a faster check
    if not caller.has_permission(Permission.REQUEST_ASSIGNMENT, rollout_name):
        require_permission(
            caller,
            Permission.REQUEST_ASSIGNMENT,
            rollout_name,
            tuple({question.site: None for question in questions}),
        )


def find_replica_doubt(service: Service, cached_rollout: CachedRollout) -> str:
    """Return why this replica lets humans decide a rollout's cases, or ""."""
    if service.state_cache.is_clock_skewed:
        return CLOCK_SKEW
    if cached_rollout.safety_rows.damages:
        return DAMAGED
    return service.autonomy.find_doubt(cached_rollout.state.rollout.name)


def _record_new_versions(
    service: Service, cached_rollout: CachedRollout, questions: Sequence[RecordableQuestion]
) -> CachedRollout:
    """Record new versions with their contents, within the limit of open versions.

    Returns the rollout as it is then: writing may have waited while somebody stopped it.
    """
    state = cached_rollout.state
    known_versions = state.versions
    # databases store no text with NUL
    asked_versions = {question.version for question in questions if "\0" not in question.version}
    new_versions = asked_versions - known_versions.keys() - {""}
    if not new_versions:
        return cached_rollout
    contents = list_declared_contents(questions) | dict(state.policy.contents_by_version)
    now = service.clock.now()
    new_names = {
        version: StoredVersion(now, build_version_info(version, "assignment", contents), now)
        for version in new_versions
    }
    usable_names = select_usable_names(state, known_versions, new_names)
    if not usable_names:
        return cached_rollout
    with suppress(StoreError):  # an unknown version decides nothing, and comes again
        with service.database.begin_write() as transaction:
            versions = VersionStore(transaction, state.rollout)
            stored_versions = versions.list_all()  # records may have brought some meanwhile
            unknown_names = [name for name in usable_names if name not in stored_versions]
            refused_names = find_name_faults(transaction, state, unknown_names)
            for version in [name for name in unknown_names if name not in refused_names]:
                versions.record_info(new_names[version].info, at=now)
        service.state_cache.reload_versions(state.rollout.name)
    return service.state_cache.load_rollout(state.rollout.name)


def _answer_and_store(
    service: Service,
    caller: Caller,
    cached_rollout: CachedRollout,
    questions: Sequence[RecordableQuestion],
    key: PermitKey,
    doubt_reason: str,
) -> AssignmentAnswers:
    reasons: Mapping[str, str] = {}
    two_confidences = [n for n, question in enumerate(questions) if question.has_two_confidences]
    faults_by_place = {
        **find_content_faults(cached_rollout.state, questions),
        **dict.fromkeys(two_confidences, TWO_CONFIDENCES),
    }
    draws = load_draws(service, cached_rollout.state, questions)
    while True:
        now = service.clock.now()
        assignments = _assign_questions(
            cached_rollout, questions, doubt_reason, reasons, now, draws
        )
        for place, fault in faults_by_place.items():
            assignments[place] = _assign_to_human(fault, cached_rollout.state, now)
        try:
            shared = [assignment.assignment for assignment in assignments]
            recorded = record_questions(
                service,
                cached_rollout.state,
                caller.name,
                questions,
                shared,
                reasons,
                now,
            )
        except PeopleDecideError as error:
            reasons = {**reasons, **error.reasons}
            # writing may have waited while somebody stopped it
            cached_rollout = service.state_cache.load_rollout(cached_rollout.state.rollout.name)
            continue
        answers = _build_answers(
            cached_rollout, assignments, questions, key, now, recorded.answer_digests
        )
        return replace(answers, recorded=recorded.results, draws=draws)


def _assign_questions(
    cached_rollout: CachedRollout,
    questions: Sequence[RecordableQuestion],
    doubt_reason: str,
    reasons: Mapping[str, str],
    now: datetime,
    draws: Sequence[bool | None],
) -> list[SharedAssignment]:
    assignments = cached_rollout.assignment_cache.assign_questions(questions, now, draws)
    if doubt_reason:
        return [_assign_to_human(doubt_reason, cached_rollout.state, now)] * len(assignments)
    return [
        _assign_to_human(reasons[question.key], cached_rollout.state, now)
        if question.key in reasons
        else assignment
        for question, assignment in zip(questions, assignments, strict=True)
    ]


def _assign_to_human(reason: str, state: RolloutState, now: datetime) -> SharedAssignment:
    """Return an assignment to humans without lease, so that clients ask again."""
    assignment = decide_assignment(
        state.scope, state.policy, b"", EMPTY_QUESTION, now=now, time_left=timedelta(0)
    )
    return SharedAssignment(replace(assignment, reason=reason))


def assign_all_to_humans(
    questions: Sequence[RecordableQuestion], reason: str, now: datetime
) -> AssignmentAnswers:
    """Return answers without state or lease: humans decide all cases."""
    assignment = Assignment("human", "shadow", "blind", 1.0, reason, 0, timedelta(0))
    no_values = [None] * len(questions)
    return AssignmentAnswers(
        [SharedAssignment(assignment)] * len(questions),
        no_values,
        no_values,
        no_values,
        NO_HEAD,
        now,
    )


def _build_answers(
    cached_rollout: CachedRollout,
    assignments: Sequence[SharedAssignment],
    questions: Sequence[RecordableQuestion],
    key: PermitKey,
    now: datetime,
    answer_digests: Sequence[str] = (),
) -> AssignmentAnswers:
    """Return answers with their permits, bound to the answers that have a digest."""
    digests = answer_digests or [""] * len(questions)
    texts = _build_permit_texts(cached_rollout, set(assignments), key, now, UNBOUND)
    case_texts = [texts[assignment] for assignment in assignments]
    if any(answer_digests):
        bound_texts = _build_permit_texts(cached_rollout, set(assignments), key, now, BOUND)
        case_texts = [
            bound_texts[assignment] if digest else texts[assignment]
            for assignment, digest in zip(assignments, digests, strict=True)
        ]
    return AssignmentAnswers(
        assignments=assignments,
        permits=sign_permits(
            key.secret,
            cached_rollout.state.rollout.name,
            case_texts,
            [question.key for question in questions],
            [question.version for question in questions],
            digests,
        ),
        recorded=(None,) * len(assignments),
        draws=(None,) * len(assignments),
        head=code_head(cached_rollout, key),
        at=now,
    )


def _build_permit_texts(
    cached_rollout: CachedRollout,
    assignments: Iterable[SharedAssignment],
    key: PermitKey,
    now: datetime,
    kind: str,
) -> Mapping[SharedAssignment, str]:
    """Return the unsigned permits of one kind by assignment."""
    era = cached_rollout.state.scope.era
    return {
        shared: _format_permit(shared.assignment, key.number, now, kind, era)
        for shared in assignments
    }


def _format_permit(
    assignment: Assignment, key_number: int, now: datetime, kind: str, era: int
) -> str:
    permit = Permit(assignment.decider, assignment.revision, now, assignment.lease, kind, era=era)
    return build_permit_text(permit, key_number)


LOCAL: Final = "local"
"""The decider in a snapshot's permit: its client decides by the snapshot."""


class ClockSkewError(RefusalError):
    """This replica's clock is off: its leases could end too late."""

    code = "clock-skew"


class NoAutonomyError(RefusalError):
    """This replica can't rely on its writes or rows, so humans decide."""

    code = "no-autonomy"


class ClientAheadError(RefusalError):
    """The ledger lacks the client's newest entry."""

    code = "ledger-rolled-back"


class UnknownSiteError(RefusalError):
    """The policy has no such site."""

    code = "unknown-site"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scope at one revision of its ledger, for some sites.

    Attributes:
        revision, hash: the last ledger entry in it; 0 and "" before the first.
        policy: the policy in force; None before the first.
        policy_text: its text, whose SHA-256 is the policy's hash.
        sites: in the policy's order.
        scope: versions, stops, and the cells of these sites.
        salt: for sampling values; None without the permission.
        leases: by site; empty for the past.
        permits: by site, to be returned with actions.
        head_code: proves that the service gave out this head; "" for the past.
        issued_at: None for the past.
    """

    rollout: str
    revision: int
    hash: str
    policy: Policy | None
    policy_text: str
    sites: tuple[str, ...]
    scope: Scope
    salt: bytes | None = field(default=None, repr=False)
    leases: Mapping[str, timedelta] = field(default_factory=dict)
    permits: Mapping[str, str] = field(default_factory=dict)
    head_code: str = ""
    issued_at: datetime | None = None

    @property
    def cells(self) -> list[tuple[Cell, str, CellState]]:
        """Return the cells and versions with grants, ordered."""
        cell_states = (
            (cell, version, cell_state)
            for (cell, version), cell_state in self.scope.cells.items()
            if cell.site in self.sites
        )
        return sorted(
            (granted_cell for granted_cell in cell_states if granted_cell[2].grants),
            key=lambda granted_cell: granted_cell[:2],
        )


def load_snapshot(
    service: Service,
    caller: Caller,
    rollout_name: str,
    sites: tuple[str, ...],
    client_head: ClientHead | None = None,
) -> Snapshot:
    """Return the current scope at `sites`; () means all readable sites.

    Raises:
        UnknownRolloutError: the caller sees no such rollout.
        NotAllowedError: the caller may not read one of the sites.
        UnknownSiteError: the policy has no such site.
        ClientAheadError: the ledger lacks the entry `client_head`; an incident is open unless the
            caller only reads, and every cell is stopped if this service gave it out.
        ClockSkewError: this replica may grant no lease now.
        NoAutonomyError: likewise, because it can't write or read.
        StoreError: the scope can't be confirmed.
    """
    require_permission(caller, Permission.READ_SCOPE, rollout_name, sites)
    cached_rollout = load_confirmed_rollout(service, rollout_name, client_head)
    doubt_reason = find_head_doubt(service, cached_rollout, caller, client_head)
    if doubt_reason:
        raise ClientAheadError(doubt_reason)
    policy = cached_rollout.state.policy
    unleased_snapshot = Snapshot(
        rollout=rollout_name,
        revision=cached_rollout.head.revision,
        hash=cached_rollout.head.hash,
        policy=policy,
        policy_text=_load_policy_text(service, cached_rollout.state),
        sites=_select_sites(policy, caller, rollout_name, sites),
        scope=cached_rollout.state.scope,
        head_code=code_head(cached_rollout, service.permit_signer.load_signing_key()).code,
        issued_at=service.clock.now(),
    )
    if not all(
        caller.has_permission(Permission.REQUEST_ASSIGNMENT, rollout_name, site)
        for site in unleased_snapshot.sites
    ):
        return unleased_snapshot
    if doubt_reason := find_replica_doubt(service, cached_rollout):
        raise (ClockSkewError if doubt_reason == CLOCK_SKEW else NoAutonomyError)(doubt_reason)
    return _add_leases(service, cached_rollout, unleased_snapshot)


def _add_leases(
    service: Service, cached_rollout: CachedRollout, unleased_snapshot: Snapshot
) -> Snapshot:
    policy, now = cached_rollout.state.policy, unleased_snapshot.issued_at
    assert now is not None  # noqa: S101 - only past snapshots have no time
    leases = {
        site: policy.sites_by_id[site].lease or policy.lease for site in unleased_snapshot.sites
    }
    permits = {
        site: service.permit_signer.sign(
            Permit(LOCAL, unleased_snapshot.revision, now, lease, era=unleased_snapshot.scope.era),
            unleased_snapshot.rollout,
            site,
        )
        for site, lease in leases.items()
    }
    return replace(
        unleased_snapshot, salt=cached_rollout.state.rollout.salt, leases=leases, permits=permits
    )


def load_snapshot_at(
    service: Service, caller: Caller, rollout_name: str, sites: tuple[str, ...], at: datetime
) -> Snapshot:
    """Return the scope at an earlier instant, without leases.

    Raises:
        UnknownRolloutError: the caller sees no such rollout.
        NotAllowedError: the caller may not read one of the sites.
        UnknownSiteError: the policy of that time had no such site.
    """
    require_permission(caller, Permission.READ_SCOPE, rollout_name, sites)
    rollout = service.state_cache.load_rollout(rollout_name).state.rollout
    with service.database.begin_read() as transaction:
        ledger = Ledger(transaction, rollout)
        scope = ledger.load_scope_at(at)
        last_rows = list(ledger.list_rows(after=scope.revision - 1, until=scope.revision))
        texts = PolicyTexts(transaction, rollout).load_texts({scope.policy_hash})
    text = texts.get(scope.policy_hash, "")
    policy = parse_stored_policy(text) if text else None
    return Snapshot(
        rollout=rollout_name,
        revision=scope.revision,
        hash=last_rows[0].hash if last_rows else "",
        policy=policy,
        policy_text=text,
        sites=() if policy is None else _select_sites(policy, caller, rollout_name, sites),
        scope=scope,
    )


def _load_policy_text(service: Service, state: RolloutState) -> str:
    with service.database.begin_read() as transaction:
        policy_hash = state.scope.policy_hash
        return PolicyTexts(transaction, state.rollout).load_texts({policy_hash})[policy_hash]


def _select_sites(
    policy: Policy, caller: Caller, rollout_name: str, requested_sites: tuple[str, ...]
) -> tuple[str, ...]:
    unknown_sites = [site for site in requested_sites if site not in policy.sites_by_id]
    if unknown_sites:
        site_text = ", ".join(policy.sites_by_id)
        raise UnknownSiteError(f"no site {', '.join(unknown_sites)}; the policy has {site_text}")
    return tuple(
        site
        for site in policy.sites_by_id
        if (
            site in requested_sites
            if requested_sites
            else caller.has_permission(Permission.READ_SCOPE, rollout_name, site)
        )
    )

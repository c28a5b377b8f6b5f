"""Model versions and their training cutoffs.

The stored training cutoff decides which cases are no evidence of a version; setting it writes an
entry (decision record 0065). Cutoffs in the ledger are compared with those that are stored.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary

from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import find_people
from rollout.data.records.record_rows import is_storable_name
from rollout.data.records.versions import (
    StoredVersion,
    VersionInfo,
    VersionStore,
    build_version_info,
)
from rollout.engine.decide.commands import RetireVersion
from rollout.engine.decide.decider import MAX_OPEN_VERSIONS
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.policy_changes import list_names
from rollout.engine.decide.scope import find_acting_version
from rollout.engine.events import ENGINE, TrainingCutoffSet
from rollout.engine.records.records import Case, Prediction, Record, select_kind
from rollout.engine.records.reviews import find_version_fault
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError, StaleRevisionError
from rollout.kernel.policy.stages import find_content_fault
from rollout.kernel.units import group_pairs
from rollout.live.evidence.evidence_seals import EvidenceReport
from rollout.live.rollout_state import (
    CommandResult,
    RolloutState,
    find_first_names,
    read_rollout,
    retry_on_stale_revision,
    run_command,
    write_rollout,
)
from rollout.live.service import Service

Ends = Sequence[datetime | None]


def append_training_cutoffs(
    transaction: Transaction,
    state: RolloutState,
    is_changed: Mapping[str, bool],
    caller: Caller | None,
    at: datetime,
) -> None:
    """Append what the ledger lacks on the training cutoffs of some versions.

    A version without entries gets one for each stored end. One with entries gets the last end if it
    is new, and never an older one, which an edit of the database may have left.

    Args:
        transaction: in which the ends were stored.
        state: of this transaction.
        is_changed: by version whether the end that was stored last is another than before.
        caller: who states the ends; None for the engine.
        at: time of the entries.
    """
    stored_ends = VersionStore(transaction, state.rollout).list_training_cutoffs()
    ledger_ends = _load_ledger_ends(transaction, state.rollout)
    by = ENGINE if caller is None else caller.name
    events: list[TrainingCutoffSet] = []
    for version, has_new_end in is_changed.items():
        ends = stored_ends.get(version, [])
        if version in ledger_ends:
            ends = ends[-1:] if has_new_end else []
        events += [
            TrainingCutoffSet(at=at, by=by, version=version, trained_until=end)
            for end in ends
            if end is not None
        ]
    access_head = None if caller is None else caller.access_head
    Ledger(transaction, state.rollout).append(
        events, after=state.scope.revision, access_head=access_head
    )


def check_training_cutoffs(
    transaction: Transaction, rollout: Rollout, report: EvidenceReport
) -> None:
    """Add a fault for each version whose stored ends are not those of the ledger."""
    stored_ends = VersionStore(transaction, rollout).list_training_cutoffs()
    ledger_ends = _load_ledger_ends(transaction, rollout)
    for version in sorted({*stored_ends, *ledger_ends}):
        stored, expected = stored_ends.get(version, []), ledger_ends.get(version, [])
        if stored != expected:
            report.add_faults([_describe_difference(version, stored, expected)])


def _describe_difference(version: str, stored: Ends, expected: Ends) -> str:
    return (
        f"{version}: versions.trained_until says {_format_ends(stored)}; the ledger says"
        f" {_format_ends(expected)}, and no gate counts cases of {version} up to then"
    )


def _load_ledger_ends(transaction: Transaction, rollout: Rollout) -> dict[str, list[datetime]]:
    events = Ledger(transaction, rollout).list_of(TrainingCutoffSet)
    return group_pairs((event.version, event.trained_until) for event in events)


def _format_ends(ends: Ends) -> str:
    return ", then ".join("none" if end is None else end.isoformat() for end in ends) or "none"


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


RECORDS_SOURCE = "records"
LATE_CUTOFF: Final = (
    "{0} predicted before {1}, and a version's training ends before its first prediction: use"
    " another version name, or let an admin correct it"
)
_known_versions: WeakKeyDictionary[Database, dict[int, frozenset[str]]] = WeakKeyDictionary()
"""By database and rollout number, versions known to be stored; they are never deleted."""


@dataclass(frozen=True, slots=True)
class ActingCell:
    """A cell in which a version acts, and its stage."""

    site: str
    window: str
    stage: str


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One model version, the cells where it acts, and its open proposals.

    A version without `acting_cells` runs in shadow. `content` is the SHA-256 of its weights and
    pre-processing, "" if none was declared. `other_names` are later names that declared the same
    content, oldest first: they go on with its evidence and grants.
    """

    version: str
    other_names: tuple[str, ...]
    first_used_at: datetime
    retired: bool
    content: str
    source: str
    trained_until: datetime | None
    acting_cells: tuple[ActingCell, ...]
    proposals: tuple[str, ...]


def load_versions(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime
) -> tuple[VersionStatus, ...]:
    """Return all versions by first use, with cells the caller may read."""
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    cells = [
        cell
        for cell in state.policy.cells
        if caller.has_permission(Permission.READ, rollout_name, cell.site)
    ]
    acting_grants = {
        cell: find_acting_version(state.scope, state.policy, cell, at) for cell in cells
    }
    acting_cells = group_pairs(
        (grant[0], ActingCell(cell.site, cell.window, state.policy.stage_ids[grant[1]]))
        for cell, grant in acting_grants.items()
        if grant is not None
    )
    return tuple(
        _build_version_status(state, version, tuple(acting_cells.get(version, ())), cells)
        for version in state.scope.versions
    )


def _build_version_status(
    state: RolloutState, version: str, acting_cells: tuple[ActingCell, ...], cells: list[Cell]
) -> VersionStatus:
    version_state, known_version = state.scope.versions[version], state.versions.get(version)
    proposals = state.scope.proposals.values()
    return VersionStatus(
        version=version,
        other_names=list_names(state.scope, version)[1:],
        first_used_at=version_state.first_seen,
        retired=version_state.retired,
        content="" if known_version is None else known_version.info.content,
        source="" if known_version is None else known_version.info.source,
        trained_until=None if known_version is None else known_version.info.trained_until,
        acting_cells=acting_cells,
        proposals=tuple(
            proposal.id
            for proposal in proposals
            if proposal.version == version and proposal.cell in cells
        ),
    )


class TrainedLaterError(RefusalError):
    """An earlier training cutoff was given: evidence can't be reinstated."""

    code = "conflict"


class LateCutoffError(RefusalError):
    """A version predicted before its training cutoff."""

    code = "conflict"


class ReviewerNameError(RefusalError):
    """A new version has the name of a reviewer."""

    code = "conflict"


class TooManyVersionsError(RefusalError):
    """The limit of open versions is reached."""

    code = "conflict"


def record_training_cutoff(
    database: Database,
    caller: Caller,
    rollout_name: str,
    version: str,
    *,
    trained_until: datetime | None,
    at: datetime,
) -> None:
    """Record when a version's training cases end: gates don't count them.

    Repeating it changes nothing. The end lies before the version's first prediction: else a sender
    could leave out what it knows to be wrong. It may be moved later, not earlier. An admin may
    correct it either way. What was counted stays counted.

    Raises:
        NotAllowedError: the caller may not state it.
        TrainedLaterError: a later end is recorded.
        LateCutoffError: the version predicted before the end.
        TooManyVersionsError: the limit of open versions is reached; retire one.
        ReviewerNameError: the version is new and has a reviewer's name.
    """
    require_permission(caller, Permission.STATE_TRAINING, rollout_name)
    is_admin = caller.has_permission(Permission.ADMINISTER, rollout_name)
    if is_admin:  # with a second factor, where one is required
        require_permission(caller, Permission.ADMINISTER, rollout_name)
    else:
        _check_cutoff(database, rollout_name, version, trained_until, at)

    def record() -> None:
        with write_rollout(database, rollout_name) as (transaction, state):
            is_new_end = _store_training_cutoff(
                transaction, state, version, trained_until, at, may_correct=is_admin
            )
            append_training_cutoffs(transaction, state, {version: is_new_end}, caller, at)

    retry_on_stale_revision(record)


def _check_cutoff(
    database: Database,
    rollout_name: str,
    version: str,
    trained_until: datetime | None,
    at: datetime,
) -> None:
    """Raise an error if a version, by any name, predicted before its new training cutoff.

    It is no part of the write, which would hold off stops: what comes after `at` comes after it.
    """
    with read_rollout(database, rollout_name) as (transaction, state):
        stored = state.versions.get(version)
        if trained_until is None or (stored and stored.info.trained_until == trained_until):
            return
        names, versions = state.list_names(version), VersionStore(transaction, state.rollout)
        if trained_until > at or versions.has_predictions(names, until=trained_until):
            raise LateCutoffError(LATE_CUTOFF.format(version, trained_until.isoformat()))


def _store_training_cutoff(
    transaction: Transaction,
    state: RolloutState,
    version: str,
    trained_until: datetime | None,
    at: datetime,
    *,
    may_correct: bool,
) -> bool:
    """Store a version's training cutoff; return whether it is another than before."""
    versions = VersionStore(transaction, state.rollout)
    known_versions = versions.list_all()
    known_version = known_versions.get(version)
    previous_end = None if known_version is None else known_version.info.trained_until
    if (
        previous_end is not None
        and (trained_until is None or trained_until < previous_end)
        and not (may_correct and trained_until)
    ):
        raise TrainedLaterError(
            f"{version} was trained on cases until {previous_end.isoformat()}: give that time or a"
            " later one, or use another version name"
        )
    about = {} if known_version is None else known_version.info.about
    facts = VersionInfo(version, "registration", trained_until, about)
    _check_room(state, known_versions, facts, at)
    if known_version is None:
        check_version_names(transaction, state, [version])
    if known_version is not None and previous_end == trained_until:
        return False
    if not versions.record_info(facts, at=at):
        raise StaleRevisionError(f"{version} has just been changed: send it again")
    return previous_end != trained_until


def _check_room(
    state: RolloutState,
    known_versions: Mapping[str, StoredVersion],
    facts: VersionInfo,
    at: datetime,
) -> None:
    version, new_name = facts.version, StoredVersion(at, facts, at)
    if version in known_versions:
        return
    if not select_usable_names(state, known_versions, {version: new_name}):
        raise TooManyVersionsError(
            f"{MAX_OPEN_VERSIONS} versions are open; retire one before {version}"
        )


def find_name_faults(
    transaction: Transaction, state: RolloutState, new_versions: Collection[str]
) -> Mapping[str, str]:
    """Return the new versions that are refused because reviewers have their names, with reasons."""
    people = find_people(transaction, state.rollout, new_versions) if new_versions else set()
    faults = {version: find_version_fault(version, people) for version in new_versions}
    return {version: fault for version, fault in faults.items() if fault}


def check_version_names(
    transaction: Transaction, state: RolloutState, new_versions: Collection[str]
) -> None:
    """Raise an error if a new version has a reviewer's name.

    Raises:
        ReviewerNameError: it is refused.
    """
    for fault in find_name_faults(transaction, state, new_versions).values():
        raise ReviewerNameError(fault)


def record_new_versions(
    transaction: Transaction,
    database: Database,
    state: RolloutState,
    records: Sequence[Record],
    at: datetime,
    contents: Mapping[str, str],
) -> Mapping[str, str]:
    """Record the versions that are new; return the refused ones with reasons.

    A version is refused if too many are open, or if a reviewer has its name. `contents` are the
    declared contents by version.
    """
    predicted_versions = {prediction.version for prediction in select_kind(records, Prediction)}
    predicted_versions = set(filter(is_storable_name, predicted_versions))
    versions_by_rollout = _known_versions.setdefault(database, {})
    if predicted_versions <= state.versions.keys() or predicted_versions <= versions_by_rollout.get(
        state.rollout.number, frozenset()
    ):
        return {}
    versions = VersionStore(transaction, state.rollout)
    stored_versions = versions.list_all()
    versions_by_rollout[state.rollout.number] = frozenset(stored_versions)
    first_use = _find_first_use(records, predicted_versions - stored_versions.keys(), at)
    new_names = {
        version: StoredVersion(used_at, build_version_info(version, RECORDS_SOURCE, contents), at)
        for version, used_at in first_use.items()
    }
    name_faults = find_name_faults(transaction, state, new_names)
    for version in name_faults:
        del new_names[version]
    usable_names = select_usable_names(state, stored_versions, new_names)
    for version in usable_names:
        new_name = new_names[version]
        versions.record_info(new_name.info, at=at, first_used_at=new_name.first_seen_at)
    fault = f"{MAX_OPEN_VERSIONS} versions are open; retire one before {{}} is used"
    refused_names = new_names.keys() - {*usable_names}
    return {**name_faults, **{version: fault.format(version) for version in refused_names}}


def _find_first_use(
    records: Sequence[Record], versions: Collection[str], at: datetime
) -> Mapping[str, datetime]:
    """Return when each version was first used, as a replay returns it."""
    occurred = {case.key: case.occurred_at for case in select_kind(records, Case)}
    first_use = dict.fromkeys(versions, at)
    for prediction in select_kind(records, Prediction):
        if prediction.version in first_use:
            used_at = prediction.at or occurred.get(prediction.key, at)
            first_use[prediction.version] = min(first_use[prediction.version], used_at)
    return first_use


def retire_model_version(
    database: Database,
    caller: Caller,
    rollout_name: str,
    version: str,
    *,
    at: datetime,
    reason: str = "",
) -> CommandResult:
    """Retire a version in every cell; repeating it changes nothing.

    Raises:
        NotAllowedError: the caller does not operate every site.
        UnknownVersionError: it was never used.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)

    def build_command(state: RolloutState) -> RetireVersion:
        sites = tuple(state.policy.sites_by_id)
        require_permission(caller, Permission.OPERATE, rollout_name, sites)
        return RetireVersion(
            at=at, by=caller.as_actor(rollout_name, sites), version=version, reason=reason
        )

    return run_command(database, caller, rollout_name, build_command)


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
    late_cutoffs = _store_new_contents(versions, first_declared, policy_contents, at)
    contents = {name: stored.info.content for name, stored in versions.list_all().items()}

    def check(version: str, declared: str) -> str:
        if version in late_cutoffs:
            return LATE_CUTOFF.format(version, late_cutoffs[version].isoformat())
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
) -> Mapping[str, datetime]:
    """Store them; return the cutoffs of names that may not join a version that predicted before."""
    stored_versions: Mapping[str, StoredVersion] = versions.list_all()
    late_cutoffs: dict[str, datetime] = {}
    for version, declared in first_declared.items():
        stored = stored_versions.get(version)
        if stored is None or stored.info.content:
            continue  # too many versions are open, or it is set for ever
        content = policy_contents.get(version) or declared
        cutoff = stored.info.trained_until
        joined = [name for name, s in stored_versions.items() if s.info.content == content]
        if cutoff is not None and joined and versions.has_predictions(joined, until=cutoff):
            late_cutoffs[version] = cutoff
            continue
        is_used = stored.info.source == RECORDS_SOURCE
        has_predictions = is_used or versions.has_predictions([version])
        if version in policy_contents or not has_predictions:
            about = {**stored.info.about, "content": content}
            versions.record_info(replace(stored.info, about=about), at=at)
    return late_cutoffs

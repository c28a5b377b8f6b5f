"""Declare planted cases: scenarios and seeded rare events, a population of their own.

A case is planted before anything is known of it. Otherwise a user could choose by its answers
whether it counts as a case that occurred.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore, PlantedCases
from rollout.data.records.record_rows import MAX_KEY_LENGTH
from rollout.data.records.records import RejectedRecords
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.events import CasesPlanted
from rollout.engine.records.reviews import PLANTED
from rollout.kernel.errors import NotAllowedError, RefusalError, StaleRevisionError
from rollout.live.rollout_state import RolloutState, retry_on_stale_revision, write_rollout

if TYPE_CHECKING:
    from rollout.engine.evidence.frames import RecordFrames
    from rollout.features.replay.requests import LateDeclaration


def find_planting_faults(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield a sentence for each declaration that differs from the ledger's."""
    stored = PlantedCases(transaction, rollout).load_digests()
    rows = Ledger(transaction, rollout).list_rows(kinds={CasesPlanted.__name__})
    declared = {row.revision: (row.fields["cases"], row.fields["digest"], row.at) for row in rows}
    for revision in sorted({*stored, *declared}):
        if stored.get(revision) != declared.get(revision):
            count = stored.get(revision, (0, "", 0))[0]
            yield (
                f"{count} planted cases name revision {revision} of the ledger, which declares"
                f" {declared.get(revision, (0, '', 0))[0]}, or others, or then; restore them from a"
                " backup"
            )


def describe_planted_cases(transaction: Transaction, rollout: Rollout) -> str:
    """Return how many cases are declared and received; "" if the ledger declares none."""
    if Ledger(transaction, rollout).find_last_event(CasesPlanted.__name__) is None:
        return ""
    declared, received = PlantedCases(transaction, rollout).count()
    return f"{declared:,} declared, {received:,} received"


def split_imported_cases(
    database: Database, rollout: Rollout, records: "RecordFrames", file: Path | None, at: datetime
) -> "RecordFrames":
    """Return the records of an import, with those of planted cases set apart.

    Planted are the cases that were declared before, and at `at` those of the file.

    Raises:
        LateDeclarationError: an answer is older than its case's declaration; nothing was stored.
        RecordError: a row of the file can't be used.
    """
    from rollout.engine.evidence.case_placement import split_populations
    from rollout.engine.files.files import read_planted_rows
    from rollout.features.replay.requests import LateDeclarationError, find_late_declaration

    new_keys = () if file is None else [row.key for row in read_planted_rows(file)]
    frames = (records.cases, records.predictions, records.decisions, records.outcomes)
    keys = (key for frame in frames for key in frame["case_key"].unique())
    with database.begin_read() as transaction:
        received = PlantedCases(transaction, rollout).find_times(chain(new_keys, keys))
    declared = {**dict.fromkeys(new_keys, at), **received}
    late = find_late_declaration(records, declared)
    if late is not None:
        raise LateDeclarationError(_describe_late_import(late, is_new=late.key not in received))
    return split_populations(records, declared.keys())


def _describe_late_import(late: "LateDeclaration", *, is_new: bool) -> str:
    remedy = ", or its row, so that it counts as all others" if is_new else ""
    return (
        f"nothing was imported: case {late.key} has an answer of"
        f" {late.answered_at:%Y-%m-%d %H:%M} UTC, and its declaration as planted came at"
        f" {late.declared_at:%Y-%m-%d %H:%M} UTC. It counts from when the service received it,"
        " whatever a file says; else known answers could be chosen. Remove the records of the"
        f" case{remedy}; declare cases before they are answered (`rollout plant`)"
    )


MAX_CASES: Final = 1_000
MAX_NAMED_CASES: Final = 5
PLANTED_PAGE: Final = "planted-cases"


class PlantingRefusedError(RefusalError):
    """Cases can't be declared as planted; none of them was."""

    code = "planting-refused"


@dataclass(frozen=True, slots=True)
class PlantingRequest:
    """Cases to declare as planted.

    Attributes:
        keys: the keys that their records will have.
        reason: what they are for.
        file_digest: of the file of an import that declares them.
    """

    keys: frozenset[str]
    reason: str
    file_digest: str = ""


@dataclass(frozen=True, slots=True)
class PlantingResult:
    """How many cases are declared now, and of how many that is a repetition."""

    new: int
    repeated: int


def declare_planted_cases(
    database: Database, caller: Caller, rollout_name: str, request: PlantingRequest, at: datetime
) -> PlantingResult:
    """Declare cases as planted, all or none (safe to repeat).

    The caller knows them from then on, also those that somebody declared before, so is not asked to
    review them.

    Raises:
        NotAllowedError: the caller does not administer the rollout, or is a program.
        UnknownRolloutError: the caller sees no such rollout.
        PlantingRefusedError: a key is invalid, or a record of a case is stored.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)
    if caller.is_service_account:
        raise NotAllowedError(f"{caller.name} is a program; a user declares planted cases")
    if fault := _find_request_fault(request):
        raise PlantingRefusedError(f"{fault}; nothing was declared")

    def declare() -> PlantingResult:
        with write_rollout(database, rollout_name) as (transaction, state):
            return _declare(transaction, state, caller, request, at)

    return retry_on_stale_revision(declare)


def declare_planted_file(
    database: Database, caller: Caller, rollout_name: str, file: Path, at: datetime
) -> PlantingResult:
    """Declare the cases of a file of an import, now; the file's own times are a remark.

    Raises the errors of `declare_planted_cases`.
    """
    from rollout.engine.files.files import read_planted_rows

    declarations = read_planted_rows(file)
    times = sorted(f"{row.declared_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for row in declarations)
    remark = f", which says {' to '.join(dict.fromkeys((times[0], times[-1])))}" if times else ""
    request = PlantingRequest(
        keys=frozenset(row.key for row in declarations),
        reason=f"declared in {file.name}{remark}",
        file_digest=sha256(file.read_bytes()).hexdigest(),
    )
    return declare_planted_cases(database, caller, rollout_name, request, at)


def _find_request_fault(request: PlantingRequest) -> str:
    if not request.reason.strip():
        return "there is no reason; say what the cases are for"
    if not request.keys:
        return "there is no case; name at least one"
    for key in request.keys:
        if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isprintable():
            return f"{key[:MAX_KEY_LENGTH]!r} is no key; a key has 1 to {MAX_KEY_LENGTH} letters"
    return ""


def _declare(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    request: PlantingRequest,
    at: datetime,
) -> PlantingResult:
    transaction.tally.announce(state.rollout.name, CasesPlanted.__name__)
    store, keys = PlantedCases(transaction, state.rollout), ExternalKeys(transaction, state.rollout)
    repeated = store.find(request.keys)
    ids = keys.assign_ids(sorted(request.keys - repeated.keys()))  # their first records wait
    if store.find(request.keys, lock=True) != repeated:
        raise StaleRevisionError("somebody has just declared one of these cases; send it again")
    received = keys.find_ids(repeated)
    new_keys = [key for key, number in ids.by_key.items() if number in ids.new_ids]
    late = ids.by_key.keys() - new_keys
    late |= RejectedRecords(transaction, state.rollout).find_keys(new_keys)  # users read them
    if late:  # names planted cases that came too, or it would tell a reviewer which are planted
        raise PlantingRefusedError(_describe_late(sorted(late | received.keys())))
    if new_keys:
        digest = store.compute_digest(new_keys)
        _append_event(transaction, state, caller, request, len(new_keys), digest, at)
        store.add(ids.new_ids, at=at, revision=state.scope.revision + 1)
    declared = {**ids.by_key, **repeated, **received}
    entries = [(number, PLANTED) for number in sorted(declared.values())]
    ExposureStore(transaction, state.rollout).add(
        entries, reviewer=caller.name, page=PLANTED_PAGE, at=at
    )
    return PlantingResult(len(new_keys), len(repeated))


def _append_event(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    request: PlantingRequest,
    count: int,
    digest: str,
    at: datetime,
) -> None:
    event = CasesPlanted(
        at=at,
        by=caller.name,
        cases=count,
        digest=digest,
        file_digest=request.file_digest,
        reason=request.reason,
    )
    Ledger(transaction, state.rollout).append(
        [event], after=state.scope.revision, access_head=caller.access_head
    )


def _describe_late(keys: Sequence[str]) -> str:
    names = ", ".join(keys[:MAX_NAMED_CASES])
    more = f" and {len(keys) - MAX_NAMED_CASES} more" if len(keys) > MAX_NAMED_CASES else ""
    return (
        f"records of {names}{more} came before, so answers to them could be known; a case is"
        " declared as planted before anything is sent of it. Nothing was declared: leave these"
        " keys out, and they count as all others"
    )

"""Applying the erasures of a ledger again, to a database that was restored from a back-up.

Ledgers hold hashes of keys and names; what has these hashes in the database is erased. It is safe
to repeat.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.data.access.users import Users
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollout, Rollouts
from rollout.data.database.session import Database
from rollout.data.erasure.contents import RolloutNames
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.external_keys import CASE, EPISODE, ERASED_NAME, ExternalKeys
from rollout.engine.decide.permissions import Caller
from rollout.engine.events import CasesErased, NameErased
from rollout.engine.ledger.access_events import UserErased
from rollout.engine.ledger.ledger import CanonicalRow
from rollout.engine.words.formatting import format_quantity
from rollout.features.access.users import strip_last_admin
from rollout.features.erasure.erasure import (
    CASES_PER_BATCH,
    ErasureRequest,
    erase_case_batch,
    erase_episode,
    erase_name,
)
from rollout.kernel.errors import LastAdminError, RefusalError

REASON: Final = "applied again after a restore"
ERASURE_KINDS: Final = frozenset({"CasesErased", "NameErased", "UserErased"})


@dataclass(frozen=True, slots=True)
class LedgerErasures:
    """What a ledger says was erased: hashes of keys and names, and ids of accounts."""

    cases: set[str] = field(default_factory=set)
    episodes: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class AppliedErasures:
    """How many cases and names were erased again; 0 if the database had none of them.

    `remaining` says of each name that could not be erased why, and what to do.
    """

    cases: int
    names: int
    remaining: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Both numbers in words, and a line for each remaining name."""
        cases, names = format_quantity(self.cases, "case"), format_quantity(self.names, "name")
        return "\n".join((f"{cases} and {names} erased again", *self.remaining))


def apply_erasures(
    database: Database, caller: Caller, rows: Iterable[CanonicalRow], at: datetime
) -> AppliedErasures:
    """Erase again what ledgers say was erased; rows of several ledgers may follow each other.

    Verify the rows and their shapes before. Rollouts that the database lacks are left out.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    ErasureRequest(caller, "", REASON, at).check(ACCESS_CHAIN.name)
    erasures = collect_erasures(rows)
    with database.begin_read() as transaction:
        rollouts = Rollouts(transaction).list_all()
    case_count = sum(
        _erase_cases_again(
            database,
            ErasureRequest(caller, rollout.name, REASON, at),
            rollout,
            erasures[rollout.name],
        )
        for rollout in rollouts
    )
    subjects = {
        (name, _find_place(database, rollout, name))
        for rollout in rollouts
        for name in _find_names(database, rollout, erasures[rollout.name])
    }
    subjects |= {(name, "") for name in _find_accounts(database, erasures[ACCESS_CHAIN.name])}
    # the caller last: each erasure stores its actor's name
    remaining = [
        _erase_name_again(database, ErasureRequest(caller, place, REASON, at), name)
        for name, place in sorted(subjects, key=lambda each: (each[0] == caller.name, each))
    ]
    texts = tuple(filter(None, remaining))
    return AppliedErasures(case_count, len(remaining) - len(texts), texts)


def _erase_name_again(database: Database, request: ErasureRequest, name: str) -> str:
    """Erase a name; return why it remains and what to do, or ""."""
    try:
        erase_name(database, request, name)
    except LastAdminError:
        strip_last_admin(database, request.caller, name, at=request.at)
        return (
            f"{name} was erased, but stays the last admin, without any way to sign in. Add an"
            f" admin: `rollout users add NAME --role admin --by {name}`; then `rollout erase name"
            f" {name} --by NAME --reason TEXT`"
        )
    except RefusalError as error:
        return f"{name} was erased, but stays: {error}"
    return ""


def collect_erasures(rows: Iterable[CanonicalRow]) -> Mapping[str, LedgerErasures]:
    """Return what was erased by rollout, from the rows of ledgers."""
    erasures: dict[str, LedgerErasures] = defaultdict(LedgerErasures)
    for row in rows:
        match row.kind:
            case CasesErased.__name__:
                erasures[row.rollout].cases.update(row.body["keys"])
                erasures[row.rollout].episodes.update({row.body["episode"]} - {""})
            case NameErased.__name__:
                erasures[row.rollout].names.add(row.body["name_hash"])
            case UserErased.__name__:
                erasures[row.rollout].accounts.add(row.body["user"])
    return erasures


def _erase_cases_again(
    database: Database, request: ErasureRequest, rollout: Rollout, erasures: LedgerErasures
) -> int:
    """Erase the cases and episodes of one rollout; return the number of cases."""
    keys = _find_keys(database, rollout, CASE, erasures.cases)
    for start in range(0, len(keys), CASES_PER_BATCH):
        erase_case_batch(database, request, keys[start : start + CASES_PER_BATCH])
    for episode in _find_keys(database, rollout, EPISODE, erasures.episodes):
        erase_episode(database, request, episode)
    return len(keys)


def _find_keys(
    database: Database, rollout: Rollout, kind: str, key_hashes: Collection[str]
) -> list[str]:
    """Return the keys with these hashes; reads every key of the kind, in parts."""
    if not key_hashes:
        return []
    with database.begin_read() as transaction:
        keys = ExternalKeys(transaction, rollout, kind)
        return [key for key in keys.iterate_keys() if keys.hash_key(key) in key_hashes]


def _find_names(database: Database, rollout: Rollout, erasures: LedgerErasures) -> list[str]:
    """Return the names of one rollout that were erased."""
    if not erasures.names:
        return []
    with database.begin_read() as transaction:
        hashed_names = ExternalKeys(transaction, rollout, ERASED_NAME)
        return [
            name
            for name in RolloutNames(transaction, rollout).list_names()
            if hashed_names.hash_key(name) in erasures.names
        ]


def _find_accounts(database: Database, erasures: LedgerErasures) -> list[str]:
    """Return the names of the erased accounts that still have one."""
    with database.begin_read() as transaction:
        return sorted(Accounts(transaction).find_names(erasures.accounts).names.values())


def _find_place(database: Database, rollout: Rollout, name: str) -> str:
    """Return the rollout in which a name is erased; "" for all, if an account has it."""
    with database.begin_read() as transaction:
        return rollout.name if Users(transaction).find(name) is None else ""

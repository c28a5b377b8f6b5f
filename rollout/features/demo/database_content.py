"""Check that a database holds a quickstart and nothing else."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import CaseFilter
from rollout.engine.decide.permissions import ADMIN, AssignedRole, Caller
from rollout.features.access.users import load_accounts
from rollout.features.demo.accounts import list_quickstart_accounts
from rollout.features.demo.simulated_cases import CASE_PREFIX
from rollout.features.divergences.cases import find_cases
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import load_rollout_state

LIVE_PREFIX = "simulated-"
CASES_PER_PAGE = 500
SETUP_EVENTS = frozenset({"RolloutCreated", "PolicyApplied", "RecordsImported"})
"""Ledger events of a rollout that was never served."""
LOCAL_ADMIN = Caller("", role_assignments=(AssignedRole(ADMIN),))


def is_database_empty(database: Database) -> bool:
    """Return whether a database has neither rollouts nor accounts."""
    with database.begin_read() as transaction:
        has_rollouts = bool(Rollouts(transaction).list_all())
    return not has_rollouts and not load_accounts(database, LOCAL_ADMIN)


def check_quickstart_database(database: Database, policy: Policy, at: datetime) -> None:
    """Raise an error unless a database holds this policy's quickstart alone.

    Raises:
        RefusalError: it holds something else; the text names it.
    """
    with database.begin_read() as transaction:
        names = [rollout.name for rollout in Rollouts(transaction).list_all()]
    accounts = [account.name for account in load_accounts(database, LOCAL_ADMIN)]
    check_content(policy, names, accounts)
    with database.begin_read() as transaction:
        check_policy_hash(policy, load_rollout_state(transaction, policy.rollout).policy.hash)
    check_case_keys(_iterate_case_keys(database, policy.rollout, at))


def check_unfinished_setup(database: Database, policy: Policy, at: datetime) -> None:
    """Raise an error unless a database holds nothing but an interrupted setup's content.

    Raises:
        RefusalError: it holds something else; the text names it.
    """
    with database.begin_read() as transaction:
        rollouts = Rollouts(transaction).list_all()
        kinds = [
            row.kind for rollout in rollouts for row in Ledger(transaction, rollout).list_rows()
        ]
    accounts = [account.name for account in load_accounts(database, LOCAL_ADMIN)]
    _check_nothing_foreign(policy, [rollout.name for rollout in rollouts], accounts)
    if later_kinds := [kind for kind in kinds if kind not in SETUP_EVENTS]:
        raise build_refusal(f"the event {later_kinds[0]}, which no interrupted quickstart wrote")
    if rollouts:
        with database.begin_read() as transaction:
            check_policy_hash(policy, load_rollout_state(transaction, policy.rollout).policy.hash)
        check_case_keys(_iterate_case_keys(database, policy.rollout, at), (CASE_PREFIX,))


def check_content(policy: Policy, rollouts: Iterable[str], accounts: Iterable[str]) -> None:
    """Raise an error unless rollouts and accounts are those of a quickstart.

    Raises:
        RefusalError: one is missing or too many.
    """
    account_names = set(accounts)
    _check_nothing_foreign(policy, rollouts, account_names)
    if missing := sorted(_list_expected_names(policy) - account_names):
        raise build_refusal(f"a rollout without the account {missing[0]}")


def _check_nothing_foreign(
    policy: Policy, rollouts: Iterable[str], accounts: Iterable[str]
) -> None:
    foreign = [f"the rollout {name}" for name in rollouts if name != policy.rollout]
    other_names = set(accounts) - _list_expected_names(policy)
    foreign += [f"the account {name}" for name in sorted(other_names)]
    if foreign:
        raise build_refusal(", ".join(foreign))


def _list_expected_names(policy: Policy) -> set[str]:
    return {account.name for account in list_quickstart_accounts(policy)}


def check_policy_hash(policy: Policy, applied_hash: str) -> None:
    """Raise an error unless the applied policy is this one.

    Raises:
        RefusalError: it is another.
    """
    if policy.hash != applied_hash:
        raise build_refusal(f"the rollout {policy.rollout} under another policy")


def check_case_keys(
    keys: Iterable[str], prefixes: tuple[str, ...] = (CASE_PREFIX, LIVE_PREFIX)
) -> None:
    """Raise an error at the first case that no quickstart made.

    Raises:
        RefusalError: there is one.
    """
    for key in keys:
        if not key.startswith(prefixes):
            raise build_refusal(f"the case {key}, which is not simulated")


def build_refusal(content: str) -> RefusalError:
    """Return the refusal of a database with other content."""
    return RefusalError(
        f"the database holds {content}. Simulated records must not be mixed with others, so"
        " quickstart and simulate only use a database of their own: change to an empty folder, or"
        " set ROLLOUT_DATABASE_URL (to serve this database, run `rollout serve`)"
    )


def _iterate_case_keys(database: Database, rollout_name: str, at: datetime) -> Iterator[str]:
    before: int | None = None
    while True:
        page = find_cases(
            database,
            LOCAL_ADMIN,
            rollout_name,
            CaseFilter(),
            at,
            before=before,
            limit=CASES_PER_PAGE,
        )
        yield from (item.key for item in page.items)
        if page.next is None:
            return
        before = page.next

"""The accounts of a quickstart, with their key file, and of a live demo."""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import (
    ADMIN,
    APPROVER,
    INGEST_DECISIONS,
    INGEST_OUTCOMES,
    INGEST_PREDICTIONS,
    OPERATOR,
    REVIEWER,
    VIEWER,
    AssignedRole,
)
from rollout.features.access import keys, users
from rollout.features.access.sign_in import SignIn
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy

ADMIN_NAME, OPERATOR_NAMES, REVIEWER_NAME = "ada", ("ana", "bo", "cy"), "rui"
"""Who acts, in a quickstart as in a demo."""
PASSWORD_BYTES = 12
KEY_FILE_HEAD = """\
# Keys and passwords of a service that `rollout quickstart` created, for trying only.
# Load them into a shell: . {path}
export ROLLOUT_SERVER={address}
"""
LINE_PATTERN = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """An account to create; users sign in with a password, programs can't."""

    name: str
    roles: tuple[AssignedRole, ...]
    is_service_account: bool = False

    @property
    def variable(self) -> str:
        """Return the start of its variable names in the key file."""
        return re.sub(r"\W", "_", self.name.upper())

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups for which the account approves, besides the operators."""
        return tuple(role.group for role in self.roles if role.role == APPROVER)


@dataclass(frozen=True, slots=True)
class QuickstartSecrets:
    """Keys of all accounts and passwords of users, by variable of the key file."""

    values: Mapping[str, str] = field(repr=False)


class SiteClients(NamedTuple):
    """The accounts of a site: of the model's client, and of the system in which humans decide."""

    model: str
    decisions: str


def get_site_clients(site: str) -> SiteClients:
    """Return the accounts of a site in a quickstart."""
    return SiteClients(f"{site}-model", f"{site}-decisions")


def list_quickstart_accounts(policy: Policy) -> tuple[SimulatedAccount, ...]:
    """Return the accounts of a policy's quickstart, the admin first.

    Raises:
        RefusalError: two sites would have the same variable in the key file.
    """
    accounts = (
        SimulatedAccount(ADMIN_NAME, (AssignedRole(ADMIN),)),
        *list_operators(policy),
        SimulatedAccount(REVIEWER_NAME, (AssignedRole(REVIEWER, policy.rollout),)),
        *(
            SimulatedAccount(
                name, (AssignedRole(role, policy.rollout, site),), is_service_account=True
            )
            for site in policy.sites_by_id
            for name, role in zip(
                get_site_clients(site), (INGEST_PREDICTIONS, INGEST_DECISIONS), strict=True
            )
        ),
    )
    names_by_variable: dict[str, str] = {}
    for account in accounts:
        other = names_by_variable.setdefault(account.variable, account.name)
        if other != account.name:
            raise RefusalError(
                f"the accounts {other} and {account.name} would share the variable "
                f"{account.variable}_KEY; rename one of the two sites in the policy"
            )
    return accounts


def list_operators(policy: Policy) -> tuple[SimulatedAccount, ...]:
    """Return one operator more than any gate has approvals, at least three.

    Ending a stop needs an operator who proposes it, beside those who approve. The groups that
    gates name are split between them: one operator can fill the first approval of each gate, the
    next one the second, so each gate has its approvers and none opens by one user.
    """
    needs = [sorted(gate.approvals, key=OPERATOR.__ne__) for gate in policy.gates]
    count = max(len(OPERATOR_NAMES), *(len(groups) + 1 for groups in needs), 0)
    names = (
        *OPERATOR_NAMES,
        *(f"operator-{number}" for number in range(len(OPERATOR_NAMES) + 1, count + 1)),
    )
    operators = []
    for index, name in enumerate(names):
        groups = dict.fromkeys(groups[index] for groups in needs if index < len(groups))
        approver_roles = (
            AssignedRole(APPROVER, policy.rollout, group=group)
            for group in groups
            if group != OPERATOR
        )
        operators.append(
            SimulatedAccount(name, (AssignedRole(OPERATOR, policy.rollout), *approver_roles))
        )
    return tuple(operators)


def create_accounts(
    database: Database,
    accounts: Iterable[SimulatedAccount],
    admin_name: str,
    get_time: Callable[[], datetime],
) -> None:
    """Create the accounts but the admin's, which is there, without passwords or keys."""
    admin = users.load_local_caller(database, admin_name)
    for account in accounts:
        if account.name != admin_name:
            users.create_account(
                database,
                admin,
                account.name,
                at=get_time(),
                is_service_account=account.is_service_account,
                role_assignments=account.roles,
            )


def create_key(
    database: Database,
    admin_name: str,
    name: str,
    at: datetime,
    *,
    expires_at: datetime | None = None,
) -> str:
    """Create an API key for an account; return its text."""
    admin = users.load_local_caller(database, admin_name)
    entropy = secrets.token_bytes(keys.KEY_BYTES)
    key = keys.create_key(database, admin, name, random_bytes=entropy, at=at, expires_at=expires_at)
    return key.text


def create_quickstart_accounts(
    database: Database, policy: Policy, sign_in: SignIn, get_time: Callable[[], datetime]
) -> QuickstartSecrets:
    """Create all accounts but the admin's, and keys and passwords for all."""
    values: dict[str, str] = {}
    accounts = list_quickstart_accounts(policy)
    create_accounts(database, accounts, ADMIN_NAME, get_time)
    admin = users.load_local_caller(database, ADMIN_NAME)
    for account in accounts:
        values[f"{account.variable}_KEY"] = create_key(
            database, ADMIN_NAME, account.name, get_time()
        )
        if not account.is_service_account:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            sign_in.set_password(admin, account.name, password, at=get_time(), skips_current=True)
            values[f"{account.variable}_PASSWORD"] = password
    return QuickstartSecrets(values)


def format_key_file(secret_values: QuickstartSecrets, address: str, path: str) -> str:
    """Return the key file: lines of a shell script."""
    lines = [f"export {name}={value}\n" for name, value in secret_values.values.items()]
    return KEY_FILE_HEAD.format(path=path, address=address) + "".join(lines)


def replace_address(text: str, address: str, path: str) -> str:
    """Return a key file with another address of the service.

    Raises:
        RefusalError: it is no key file.
    """
    old_address = parse_key_file(text, path)["ROLLOUT_SERVER"]
    return text.replace(f"ROLLOUT_SERVER={old_address}\n", f"ROLLOUT_SERVER={address}\n")


def parse_key_file(text: str, path: str) -> dict[str, str]:
    """Return the variables of a key file.

    Raises:
        RefusalError: it is no key file.
    """
    variables = dict(LINE_PATTERN.findall(text))
    if "ROLLOUT_SERVER" not in variables:
        raise RefusalError(f"{path}: is no key file of `rollout quickstart`; name it with --keys")
    return variables


ROLES_BY_USER: Final = {
    "ana": (OPERATOR, VIEWER),
    "bo": (OPERATOR, VIEWER),
    REVIEWER_NAME: (REVIEWER,),
    ADMIN_NAME: (ADMIN,),
    "vic": (VIEWER,),
}
"""Roles of the users for whom the demo prints a link."""
DEMO_OPERATORS: Final = ("ana", "bo")
COLLEAGUE, RESUME_APPROVER = "cy", "dee"
"""Simulated operators. A resume needs two approvers besides the user who proposes it."""
MODEL_CLIENT: Final = "model-client"
"""The client that asks who decides, with the models' predictions."""
DECISION_SYSTEM: Final = "decision-system"
"""The system in which humans decide, where the policy names none as a source of evidence."""
KEY_LIFETIME: Final = timedelta(days=90)


def get_decision_system(policy: Policy) -> str:
    """Return the account of the system in which humans decide: the policy's first source."""
    accounts = policy.evidence.sources.accounts
    return accounts[0].account if accounts else DECISION_SYSTEM


def list_groups(policy: Policy) -> tuple[str, ...]:
    """Return the groups whose approvals the gates of a policy ask for, besides operators."""
    groups = (group for gate in policy.gates for group in gate.approvals if group != OPERATOR)
    return tuple(dict.fromkeys(groups))


def build_operator(policy: Policy, name: str) -> Actor:
    """Return an operator of the demo, who approves for every group."""
    return Actor(name, (OPERATOR, *list_groups(policy)))


def list_demo_accounts(policy: Policy) -> tuple[SimulatedAccount, ...]:
    """Return the accounts of a demo, users with a link first."""
    colleagues = dict.fromkeys((COLLEAGUE, RESUME_APPROVER), (OPERATOR, VIEWER))
    clients = {
        MODEL_CLIENT: (INGEST_PREDICTIONS, VIEWER),
        get_decision_system(policy): (INGEST_DECISIONS, INGEST_OUTCOMES),
    }
    approvers = tuple(AssignedRole(APPROVER, group=group) for group in list_groups(policy))
    return tuple(
        SimulatedAccount(
            name,
            (*map(AssignedRole, roles), *(approvers if OPERATOR in roles else ())),
            is_service_account=name in clients,
        )
        for name, roles in (ROLES_BY_USER | colleagues | clients).items()
    )


def create_demo_accounts(database: Database, policy: Policy, at: datetime) -> None:
    """Create all accounts of a demo, without passwords or keys."""
    users.create_first_admin(database, ADMIN_NAME, at=at)
    create_accounts(database, list_demo_accounts(policy), ADMIN_NAME, lambda: at)


def create_demo_keys(database: Database, policy: Policy, at: datetime) -> dict[str, str]:
    """Create an API key for each account that the demo itself uses; return their texts by name."""
    clients = (MODEL_CLIENT, get_decision_system(policy))
    return {
        name: create_key(database, ADMIN_NAME, name, at, expires_at=at + KEY_LIFETIME)
        for name in (DEMO_OPERATORS[0], COLLEAGUE, RESUME_APPROVER, *clients)
    }

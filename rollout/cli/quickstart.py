"""`rollout quickstart`: from a policy to a running service, for trying."""

import os
import secrets
import socket
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
)
from rollout.cli.record_import import import_record_files
from rollout.cli.serve import load_service_command
from rollout.core.policy.policy import Policy
from rollout.features.demo.accounts import (
    ADMIN_NAME,
    REVIEWER_NAME,
    SimulatedAccount,
    create_quickstart_accounts,
    format_key_file,
    list_operators,
    list_quickstart_accounts,
    replace_address,
)
from rollout.features.demo.database_content import (
    build_refusal,
    check_quickstart_database,
    check_unfinished_setup,
    is_database_empty,
)
from rollout.features.demo.simulated_cases import FILES, build_history_files, plan_history
from rollout.formats.policy.reader import parse_policy, read_policy_text
from rollout.reports.text.formatting import join_words
from rollout.services.access.sign_in import SignIn
from rollout.services.access.users import create_first_admin, load_local_caller
from rollout.services.policies.policies import put_policy
from rollout.services.support.atomic_files import check_folder, write_files_atomically
from rollout.services.support.clock import SystemClock
from rollout.services.support.package_data import find_package_data
from rollout.store.database.migrations import (
    drop_tables,
    list_table_names,
    load_current_revision,
    upgrade,
)
from rollout.store.database.session import Database

HOST = "127.0.0.1"
KEY_FILE = "keys.env"
MAX_PROGRAMS = 4  # named in the text
DEFAULT_FOLDER = Path("rollout-quickstart")
PUBLIC_URL_VARIABLE = "ROLLOUT_PUBLIC_URL"
CREATED_BEFORE = timedelta(hours=1)  # the rollout, before its first imported record

QuickstartPolicy = Annotated[
    Path | None,
    typer.Argument(
        help="policy file, YAML or JSON (default: the shipped quickstart policy)",
        metavar="[POLICY]",
    ),
]
UNFINISHED_FILE = "setup-unfinished"
"""It marks a database whose setup was begun and not ended; its text is a hash of the URL."""
INTERRUPTED_TEXT = "run the same command again: what was not finished is created anew"
NEXT_STEPS = """\
{rollout} is ready. Keys and passwords: {keys} (only you can read it)
  {admin}, admin; {operators}, operators; {reviewer}, reviewer; {programs}

In a second terminal, in this folder, send live traffic:
  rollout simulate{policy} --agreement 97%
In a third terminal, read the first proposal, which {when}, and approve it as ana and as bo:
  . {keys}
  ROLLOUT_API_KEY=$ANA_KEY rollout proposals {rollout}
  ROLLOUT_API_KEY=$ANA_KEY rollout approve {rollout} P-1 --evidence-hash HASH
  ROLLOUT_API_KEY=$BO_KEY rollout approve {rollout} P-1 --evidence-hash HASH
Then stop the traffic (Ctrl-C), break the model and see it narrowed:
  rollout simulate{policy} --fault drift@15s
Console: {address}/ as ana, password $ANA_PASSWORD
All steps: docs/tutorial.md. Ctrl-C stops the service; the same command starts it again."""


def quickstart(
    policy: QuickstartPolicy = None,
    port: Annotated[
        int, typer.Option(help="port to listen on, at 127.0.0.1", min=1, max=65535)
    ] = 8000,
    out: Annotated[
        Path, typer.Option(help="folder for the key file and the imported history")
    ] = DEFAULT_FOLDER,
) -> None:
    """Start a service to try: accounts, keys, an imported history, at 127.0.0.1 only.

    It creates the database in ROLLOUT_DATABASE_URL (default: the file rollout.db in this folder),
    an admin, three operators, a reviewer, and two service accounts a site: one for the client that
    runs the model, one for the system in which humans decide. Their keys are in one file that only
    you can read. A simulated history is imported, so that a first proposal soon appears; with your
    policy it can take days. Then run `rollout simulate` in another terminal.

    Ending a stop needs an operator more than the gate's approvals, so there are three. Approver
    groups that the policy's gates name are split between them.

    A database that holds anything else is refused. Run it again to start the same service again, or
    to begin anew where it was interrupted before the service started.

    Example: `rollout quickstart`

    With your policy: `rollout quickstart policy.yaml --port 8100`
    """
    address = f"http://{HOST}:{port}"
    with print_refusals(interrupted_text=INTERRUPTED_TEXT), convert_store_errors():
        policy_file = find_policy_file(policy)
        policy_text = read_policy_text(policy_file)
        parsed_policy = parse_policy(policy_text, name=policy_file.name)
        serve = load_service_command("serve")
        _check_port(port)
        if not _resume(parsed_policy, out, address):
            _set_up(parsed_policy, policy_text, out, address)
        typer.echo(_format_next_steps(parsed_policy, policy, out, address))
        os.environ.setdefault(PUBLIC_URL_VARIABLE, address)
    with print_refusals(interrupted_text="all work that had begun is finished"):
        serve(HOST, port)


def find_policy_file(policy: Path | None) -> Path:
    """Return the policy file, by default the shipped one."""
    return policy or find_package_data("config") / "policies" / "quickstart.yaml"


def _check_port(port: int) -> None:
    """Raise an error if the port is in use, before anything is created."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            raise ValueError(
                f"port {port} is in use; choose another one, as --port {port + 1}"
            ) from None


def _resume(policy: Policy, out: Path, address: str) -> bool:
    """Return whether the database holds this quickstart; False if it is empty.

    Raises:
        RefusalError: it holds something else.
    """
    url = _get_database_url()
    if load_current_revision(url) is None:
        if tables := list_table_names(url):
            raise build_refusal(f"the table {tables[0]}")
        upgrade(url)
    is_unfinished = _has_unfinished_mark(out, url)
    with connect_database() as database:
        if is_database_empty(database):
            return False
        check = check_unfinished_setup if is_unfinished else check_quickstart_database
        check(database, policy, datetime.now(UTC))
    if is_unfinished:
        typer.echo("An earlier quickstart was interrupted: what it had created is created anew.")
        drop_tables(url)
        upgrade(url)
        return False
    key_path = out / KEY_FILE
    if not key_path.exists():
        raise build_refusal(f"a quickstart whose keys are not in {key_path}")
    text = key_path.read_text(encoding="utf-8")
    _write_private_file(key_path, replace_address(text, address, str(key_path)))
    return True


def _get_database_url() -> str:
    return os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)


def _has_unfinished_mark(out: Path, url: str) -> bool:
    """Return whether a setup in this database was begun and not ended."""
    mark = out / UNFINISHED_FILE
    return mark.exists() and mark.read_bytes() == _build_unfinished_mark(url)


def _build_unfinished_mark(url: str) -> bytes:
    """Return a hash of the URL, which may hold a password."""
    return sha256(url.encode()).hexdigest().encode()


def _set_up(policy: Policy, policy_text: str, out: Path, address: str) -> None:
    """Fill an empty database: accounts, policy, keys, history."""
    check_folder(out)
    list_quickstart_accounts(policy)  # refuses sites that would share a variable
    write_files_atomically(out, {UNFINISHED_FILE: _build_unfinished_mark(_get_database_url())})
    now = datetime.now(UTC)
    plan = plan_history(policy, now)
    with connect_database() as database:
        _create_rollout(database, policy_text, policy, plan.since - CREATED_BEFORE, now)
        clock = SystemClock()
        sign_in = SignIn(database, clock, secrets.token_bytes)
        quickstart_secrets = create_quickstart_accounts(database, policy, sign_in, clock.now)
    files = build_history_files(policy, plan, np.random.default_rng())
    write_files_atomically(out, files)
    cases, predictions, decisions = (out / name for name in FILES)
    typer.echo("Importing a simulated history, as this command does:")
    typer.echo(
        f"  rollout import {policy.rollout} --cases {cases} --predictions {predictions}"
        f" --decisions {decisions} --by {ADMIN_NAME}"
    )
    import_record_files(
        policy.rollout, predictions=predictions, decisions=decisions, cases=cases, by=ADMIN_NAME
    )
    key_path = out / KEY_FILE
    _write_private_file(key_path, format_key_file(quickstart_secrets, address, str(key_path)))
    (out / UNFINISHED_FILE).unlink()


def _create_rollout(
    database: Database, policy_text: str, policy: Policy, starts_at: datetime, now: datetime
) -> None:
    """Create the admin, and the rollout as of a time before the history."""
    create_first_admin(database, ADMIN_NAME, at=now)
    admin = load_local_caller(database, ADMIN_NAME)
    put_policy(database, admin, policy.rollout, policy_text, at=starts_at)


def _write_private_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read, also while it is written."""
    partial_path = path.with_name(f".{path.name}.part")
    partial_path.unlink(missing_ok=True)
    descriptor = os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial_path.replace(path)


def _describe_operator(account: SimulatedAccount) -> str:
    """Return an operator's name, with the groups for which they approve."""
    groups = f" (approves for {join_words(list(account.groups))})" if account.groups else ""
    return f"{account.name}{groups}"


def _format_next_steps(policy: Policy, policy_file: Path | None, out: Path, address: str) -> str:
    programs = [
        account.name for account in list_quickstart_accounts(policy) if account.is_service_account
    ]
    more = f" and {len(programs) - MAX_PROGRAMS} more" if len(programs) > MAX_PROGRAMS else ""
    return NEXT_STEPS.format(
        rollout=policy.rollout,
        when="can take days with your policy" if policy_file else "soon appears",
        keys=out / KEY_FILE,
        admin=ADMIN_NAME,
        operators=join_words([_describe_operator(account) for account in list_operators(policy)]),
        reviewer=REVIEWER_NAME,
        programs=f"service accounts {', '.join(programs[:MAX_PROGRAMS])}{more}",
        policy="".join(
            (
                f" {policy_file}" if policy_file else "",
                f" --keys {out / KEY_FILE}" if out != DEFAULT_FOLDER else "",
            )
        ),
        address=address,
    )

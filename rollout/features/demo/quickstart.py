"""`rollout quickstart` and `rollout simulate`: a running service to try, and its live traffic.

A quickstart begins with a policy. Its database must hold a quickstart and nothing else.

The simulated traffic is believable, and sent over HTTP.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rollout.data.database.migrations import (
    drop_tables,
    list_table_names,
    load_current_revision,
    upgrade,
)
from rollout.data.database.rollouts import Rollouts, list_rollout_names
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import CaseFilter
from rollout.engine.decide.permissions import ADMIN, AssignedRole, Caller
from rollout.engine.words.formatting import format_percent, join_words
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import create_first_admin, load_accounts, load_local_caller
from rollout.features.demo.accounts import (
    ADMIN_NAME,
    REVIEWER_NAME,
    SimulatedAccount,
    create_quickstart_accounts,
    format_key_file,
    list_operators,
    list_quickstart_accounts,
    parse_key_file,
    replace_address,
)
from rollout.features.demo.player import BusyServiceError, CaseTraffic, request_with_retries
from rollout.features.demo.simulated_cases import (
    CASE_PREFIX,
    DRIFT,
    FILES,
    MODEL_VERSION,
    JsonObject,
    LiveCases,
    build_history_files,
    build_live_records,
    parse_fault,
    plan_history,
)
from rollout.features.divergences.cases import find_cases
from rollout.features.policies.policies import put_policy
from rollout.features.records.cli import import_record_files
from rollout.kernel.atomic_files import check_folder, find_package_data, write_files_atomically
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files import fields
from rollout.kernel.policy_files.reader import load_policy, parse_policy, read_policy_text
from rollout.live.clock import SystemClock
from rollout.live.rollout_state import load_rollout_state
from rollout.terminal.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
)
from rollout.terminal.remote import build_path, print_refusals
from rollout.terminal.serve import load_service_command

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
    names = list_rollout_names(database)
    check_content(policy, names, [account.name for account in load_accounts(database, LOCAL_ADMIN)])
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
    write_files_atomically(out, build_history_files(policy, plan, np.random.default_rng()))
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


NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"  # terminals may draw it as something else
STEP_SECONDS = 1.0
LONGEST_STEP = 5.0  # a machine that slept sends no burst of old cases
REPORT_EVERY = timedelta(seconds=30)
REQUEST_TIMEOUT = 30.0
ITEMS_PER_PAGE = 500


def simulate(
    policy: QuickstartPolicy = None,
    agreement: Annotated[
        str, typer.Option(help="share of cases in which model and humans agree")
    ] = "97%",
    fault: Annotated[
        str | None,
        typer.Option(
            help="plant a fault, KIND@TIME: with drift@2m the model at the policy's first site is "
            "wrong far more often from two minutes on"
        ),
    ] = None,
    lasts: Annotated[
        str | None, typer.Option("--for", help="stop after this time, as 5m (default: Ctrl-C)")
    ] = None,
    keys: Annotated[Path, typer.Option(help="key file that `rollout quickstart` wrote")] = (
        DEFAULT_FOLDER / KEY_FILE
    ),
) -> None:
    """Send live traffic to the service of `rollout quickstart`, as its clients would.

    At each site the model's client asks who decides, with its prediction, about three times a
    second. A few seconds later humans decide, blind or having seen the prediction, and the action
    is reported. Everything goes over HTTP with the keys of the sites' service accounts.

    A service that holds anything but its quickstart is refused.

    Example: `rollout simulate --agreement 97% --fault drift@2m`

    With your policy: `rollout simulate policy.yaml --for 10m`
    """
    with print_refusals():
        parsed_policy = load_policy(find_policy_file(policy))
        live_cases = LiveCases(
            parsed_policy,
            np.random.default_rng(),
            f"{LIVE_PREFIX}{int(time.time()):x}",
            _read_agreement(agreement),
            None if fault is None else parse_fault(fault, parsed_policy),
        )
        duration = None if lasts is None else fields.read_positive_duration(lasts)
        variables = _read_keys(keys)
    with (
        print_refusals(interrupted_text="no more cases are sent"),
        open_quickstart_client(parsed_policy, variables) as client,
    ):
        client.check_service()
        _echo_start(live_cases, client.address)
        traffic = CaseTraffic(build_live_records(parsed_policy), client.send)
        try:
            _run(live_cases, traffic, duration)
        finally:
            _send_rest(traffic)
            typer.echo(f"Sent {_format_counts(traffic)}.")


def _read_keys(path: Path) -> dict[str, str]:
    if not path.exists():
        raise RefusalError(
            f"{path}: no such file; run `rollout quickstart` here, or name the key file with --keys"
        )
    return parse_key_file(path.read_text(encoding="utf-8"), str(path))


def _read_agreement(text: str) -> float:
    try:
        return fields.read_share(text)
    except ValueError as error:
        raise ValueError(f"--agreement: {error}") from None


@dataclass(slots=True)
class QuickstartClient:
    """Calls a service with the keys of a quickstart's accounts."""

    policy: Policy
    address: str
    http: Any = field(repr=False)
    keys: dict[str, str] = field(repr=False)

    def check_service(self) -> None:
        """Raise an error unless the service holds this policy's quickstart alone.

        Raises:
            RefusalError: it holds something else, or can't be reached.
        """
        import httpx2

        try:
            self.http.get("/health/live")  # once: who forgot to start it shouldn't wait
        except httpx2.TransportError as error:
            raise self._build_unreachable_error(error) from None
        rollouts = [item["name"] for item in self._list_items("/v1/rollouts")]
        accounts = [item["name"] for item in self._list_items("/v1/users")]
        check_content(self.policy, rollouts, accounts)
        if self.policy.rollout not in rollouts:
            raise RefusalError(
                f"{self.address} has no rollout {self.policy.rollout}; start it with"
                " `rollout quickstart` and the same policy"
            )
        applied = self.request(ADMIN_NAME, "GET", build_path(self.policy.rollout, "policy"))
        check_policy_hash(self.policy, parse_policy(applied["text"]).hash)
        cases = self._list_items(build_path(self.policy.rollout, "cases"))
        check_case_keys(item["key"] for item in cases)

    def request(self, account: str, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a response; retry while the service is unavailable.

        Raises:
            RefusalError: the service refused it or can't be reached.
        """
        options["headers"] = {"Authorization": f"Bearer {self.keys[account]}"}
        try:
            response = request_with_retries(self.http, method, path, **options)
        except BusyServiceError as error:
            raise self._build_unreachable_error(error) from None
        if not response.is_success:
            raise RefusalError(f"{self.address} answered {response.status_code}: {response.text}")
        return response.json()

    def _build_unreachable_error(self, error: Exception) -> RefusalError:
        return RefusalError(
            f"{self.address} can't be reached ({error}); start it with `rollout quickstart`"
        )

    def send(self, account: str, method: str, resource: str, body: JsonObject) -> JsonObject:
        """Send a body to a resource of the rollout, as `request` does."""
        return dict(
            self.request(account, method, build_path(self.policy.rollout, resource), body=body)
        )

    def _list_items(self, path: str) -> Iterator[Any]:
        params: dict[str, Any] = {"limit": ITEMS_PER_PAGE}
        while True:
            page = self.request(ADMIN_NAME, "GET", path, params=params)
            yield from page["items"]
            if page.get("next") is None:  # short lists have no pages
                return
            params["after"] = page["next"]


@contextmanager
def open_quickstart_client(policy: Policy, variables: dict[str, str]) -> Iterator[QuickstartClient]:
    """Yield a client with the keys of a key file.

    Raises:
        RefusalError: the file lacks a key.
    """
    import httpx2

    address = variables["ROLLOUT_SERVER"]
    keys = {
        account.name: _get_key(account, variables) for account in list_quickstart_accounts(policy)
    }
    with httpx2.Client(base_url=address, timeout=REQUEST_TIMEOUT, trust_env=False) as http:
        yield QuickstartClient(policy, address, http, keys)


def _get_key(account: SimulatedAccount, variables: dict[str, str]) -> str:
    variable = f"{account.variable}_KEY"
    if variable not in variables:
        raise RefusalError(
            f"the key file has no {variable}: it belongs to a quickstart of another policy; name"
            " that policy, or the right file with --keys"
        )
    return variables[variable]


def _run(live_cases: LiveCases, traffic: CaseTraffic, duration: timedelta | None) -> None:
    """Send traffic, a step a second, and print what changes."""
    started = last = time.monotonic()
    shown_stages: dict[str, str] = {}
    next_report, has_fault_begun = REPORT_EVERY, False
    while True:
        now = time.monotonic()
        elapsed = timedelta(seconds=now - started)
        if duration is not None and elapsed >= duration:
            return
        at = datetime.now(UTC)
        traffic.ask(live_cases.create_cases(at, elapsed, min(now - last, LONGEST_STEP)))
        traffic.send_due(at)
        _echo_stages(traffic.stages, shown_stages, elapsed)
        last = now
        if live_cases.fault and not has_fault_begun and elapsed >= live_cases.fault.after:
            has_fault_begun = True
            _echo_fault(live_cases, live_cases.fault.site, elapsed)
        if elapsed >= next_report:
            next_report += REPORT_EVERY
            _echo(elapsed, _format_counts(traffic))
        time.sleep(max(0.0, now + STEP_SECONDS - time.monotonic()))


def _send_rest(traffic: CaseTraffic) -> None:
    """Send the decisions on the last cases, so that none is missing."""
    while traffic.scheduled:
        time.sleep(STEP_SECONDS)
        traffic.send_due(datetime.now(UTC))


def _echo_start(live_cases: LiveCases, address: str) -> None:
    sites = ", ".join(live_cases.policy.sites_by_id)
    typer.echo(
        f"Sending cases of {live_cases.policy.rollout} to {address}: {MODEL_VERSION} at {sites},"
        f" agreement {_format_share(live_cases.agreement)}. Ctrl-C ends it."
    )


def _echo_stages(
    stages: Mapping[str, str], shown_stages: dict[str, str], elapsed: timedelta
) -> None:
    """Print the stages in the answers to sites that changed."""
    for site, stage in stages.items():
        before = shown_stages.get(site)
        if stage != before:
            shown_stages[site] = stage
            _echo(elapsed, f"{site} is in {stage}" + (f" (before: {before})" if before else ""))


def _echo_fault(live_cases: LiveCases, site: str, elapsed: timedelta) -> None:
    share = _format_share(live_cases.get_agreement(site, elapsed))
    _echo(
        elapsed, f"fault {DRIFT}: from now on model and humans agree in {share} of cases at {site}"
    )


def _format_share(share: float) -> str:
    return format_percent(share, 0).replace(NO_BREAK_SPACE, " ")


def _format_counts(traffic: CaseTraffic) -> str:
    human, model = traffic.counts["human"], traffic.counts["model"]
    return f"{human + model} cases: {human} for humans to decide, {model} decided by the model"


def _echo(elapsed: timedelta, text: str) -> None:
    minutes, seconds = divmod(int(elapsed.total_seconds()), 60)
    typer.echo(f"{minutes}:{seconds:02}  {text}")

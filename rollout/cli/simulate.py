"""`rollout simulate`: believable live traffic for a quickstart, over HTTP."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rollout.cli.errors import print_refusals
from rollout.cli.quickstart import DEFAULT_FOLDER, KEY_FILE, QuickstartPolicy, find_policy_file
from rollout.cli.remote import build_path
from rollout.core.errors import RefusalError
from rollout.core.policy.policy import Policy
from rollout.features.demo.accounts import (
    ADMIN_NAME,
    SimulatedAccount,
    list_quickstart_accounts,
    parse_key_file,
)
from rollout.features.demo.case_records import JsonObject
from rollout.features.demo.database_content import (
    LIVE_PREFIX,
    check_case_keys,
    check_content,
    check_policy_hash,
)
from rollout.features.demo.live_traffic import (
    DRIFT,
    LiveCases,
    build_live_records,
    parse_fault,
)
from rollout.features.demo.retries import BusyServiceError, request_with_retries
from rollout.features.demo.simulated_cases import MODEL_VERSION
from rollout.features.demo.traffic import CaseTraffic
from rollout.formats.policy import scalars
from rollout.formats.policy.reader import parse_policy, read_policy
from rollout.reports.text.formatting import format_percent

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
        parsed_policy = read_policy(find_policy_file(policy))
        live_cases = LiveCases(
            parsed_policy,
            np.random.default_rng(),
            f"{LIVE_PREFIX}{int(time.time()):x}",
            _read_agreement(agreement),
            None if fault is None else parse_fault(fault, parsed_policy),
        )
        duration = None if lasts is None else scalars.read_positive_duration(lasts)
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
        share = scalars.read_share(text)
    except ValueError as error:
        raise ValueError(f"--agreement: {error}") from None
    return share


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
        import httpx2  # noqa: PLC0415 - loaded only when traffic is sent

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
        answer: JsonObject = self.request(
            account, method, build_path(self.policy.rollout, resource), body=body
        )
        return answer

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
    import httpx2  # noqa: PLC0415 - loaded only when traffic is sent

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
            _echo_fault(live_cases, elapsed)
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


def _echo_fault(live_cases: LiveCases, elapsed: timedelta) -> None:
    assert live_cases.fault is not None  # noqa: S101 - checked by the caller
    site = live_cases.fault.site
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

"""Settings of a process, read once from environment variables `ROLLOUT_…`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network

PREFIX = "ROLLOUT_"
MAX_RESERVE = 1e9  # MiB
LOG_FORMATS = ("text", "json")
REQUEST_RATE, MAX_REQUEST_RATE = 500.0, 1e6  # requests a second


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process.

    Attributes:
        database_url: SQLite file or PostgreSQL.
        public_url: URL at which browsers reach the service, for links and OpenID Connect; empty:
            the address that `rollout serve` listens on.
        poll_interval: seconds between two checks for rollouts that are due for a tick.
        oidc_issuer: URL of the OpenID Connect provider; empty: users sign in with passwords only.
        oidc_client_id: client id of this service at the provider.
        oidc_client_secret: client secret of this service.
        log_format: `text`, or `json`: one object a line, with access log and request ids, without
            the names of users, cases or clients.
        oidc_acr_values: values of the claim `acr` that stand for a second factor, with spaces
            between them; `mfa` in the claim `amr` always does.
        require_second_factor: `on`: users who may approve or administer need a second factor;
            until they have given one they may look, stop and narrow.
        secret_key_file: file of the key that encrypts second factors, the same for all replicas,
            by default `rollout-secret.key` in the working directory.
        trusted_proxies: addresses or networks of reverse proxies, with commas between them, whose
            `X-Forwarded-For` names the client; empty: none, the client is the peer.
        checkpoint_key_file: file of the key that signs ledger heads each hour, the same for all
            replicas; by default `rollout-checkpoint.key` beside the secret key, created at the
            first start.
        checkpoint_file: file that signed heads are appended to, best on another machine; by default
            `rollout-checkpoints.jsonl` beside the key.
        checkpoint_channel: name of the channel that signed heads are sent to; empty: none.
        channels_file: file of the channels that reports are sent to, `name: url`; empty: none.
        latch_folder: folder with a small file for each stop or narrowing that the database can't
            take, which the next start obeys, also of commands; another volume than the database's
            is best.
        disk_reserve: MiB that the volume of an SQLite database must have free, or humans decide.
        request_rate: requests a second that each API key, and each signed-in user, may send; four
            seconds' worth at once after a pause. Stops and narrowings are exempt.
        server: URL of the service that commands call; empty: commands use the database.
        api_key: API key with which commands call it.
    """

    database_url: str = field(default="sqlite:///rollout.db", repr=False)
    public_url: str = ""
    poll_interval: float = 1.0
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    log_format: str = "text"
    oidc_acr_values: str = ""
    require_second_factor: bool = False
    secret_key_file: str = ""
    trusted_proxies: str = ""
    checkpoint_key_file: str = ""
    checkpoint_file: str = ""
    checkpoint_channel: str = ""
    channels_file: str = ""
    latch_folder: str = "rollout-stops"
    disk_reserve: float = 64.0
    request_rate: float = REQUEST_RATE
    server: str = ""
    api_key: str = field(default="", repr=False)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings from environment variables.

    Raises:
        ValueError: a value is malformed; the text has the correct form.

    >>> read_settings({"ROLLOUT_POLL_INTERVAL": "0.5"}).poll_interval
    0.5
    """
    values: dict[str, str | float | bool] = {}
    for setting in fields(Settings):
        name = PREFIX + setting.name.upper()
        read_value = READERS.get(setting.name) or READERS[setting.type]
        if name in environment:
            values[setting.name] = read_value(name, environment[name])
    return Settings(**values)  # type: ignore[arg-type]  # by name: each has its field's type


def _read_seconds(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 60:
        raise ValueError(f"{name}={text} is out of range; write seconds above 0, at most 60")
    return number


def _read_rate(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= MAX_REQUEST_RATE:
        raise ValueError(f"{name}={text} is no rate; write requests a second, 1 to 1,000,000")
    return number


def _read_mebibytes(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= MAX_RESERVE:
        raise ValueError(f"{name}={text} is no size; write MiB, 0 or more")
    return number


def _read_switch(name: str, text: str) -> bool:
    if text not in SWITCH_VALUES:
        raise ValueError(f"{name}={text} is no switch; write on or off")
    return SWITCH_VALUES[text]


def _read_networks(name: str, text: str) -> str:
    """Return addresses and networks as written; a wildcard would let every client choose."""
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            ip_network(part)
        except ValueError:
            raise ValueError(
                f"{name}: {part} is no address or network; write 10.0.0.5 or 10.0.0.0/24, with"
                " commas between them"
            ) from None
    return text


def _read_log_format(name: str, text: str) -> str:
    if text not in LOG_FORMATS:
        raise ValueError(f"{name}={text} is unknown; write text or json")
    return text


SWITCH_VALUES = {"on": True, "off": False, "1": True, "0": False, "": False}
READERS: Mapping[object, Callable[[str, str], str | float | bool]] = {
    bool: _read_switch,
    str: lambda _, text: text,
    "disk_reserve": _read_mebibytes,
    "log_format": _read_log_format,
    "poll_interval": _read_seconds,
    "request_rate": _read_rate,
    "trusted_proxies": _read_networks,
}
"""What reads a setting, by its name or else by its type: a number has limits of its own."""
